"""The kit itself: its guard, how components are supplied, and what a plugin author sees when a test fails."""

import inspect
import subprocess
import sys
from textwrap import dedent

import pytest

import fluid_core.testing
from fluid_core.components import HeadComponent
from fluid_core.errors import InvalidComponentError, UnknownComponentError
from fluid_core.testing import (
    DatasetSuite,
    EncodedDatasetSuite,
    FeatureNetworkSuite,
    HeadSuite,
    OrderSuite,
    TextEncoderSuite,
    TokenizerSuite,
)

SUITES = [
    TokenizerSuite,
    HeadSuite,
    OrderSuite,
    TextEncoderSuite,
    DatasetSuite,
    EncodedDatasetSuite,
    FeatureNetworkSuite,
]


def override(*marks):
    """A test function with these marks."""

    def test(self):
        pass

    for mark in marks:
        test = mark(test)
    return test


@pytest.mark.parametrize(
    "replacement",
    [
        override(),
        override(pytest.mark.skip(reason="too slow")),
        override(pytest.mark.xfail()),
        override(pytest.mark.xfail(reason="known")),
        override(pytest.mark.xfail(strict=True)),
        None,
    ],
    ids=["passing", "skipped", "without a reason", "not strict", "strict without a reason", "removed"],
)
def test_overriding_a_test_is_refused(replacement):
    """The class can not be made, and the message names the test and says what to do."""
    with pytest.raises(TypeError, match=r"TestMine overrides the conformance test test_temperature") as caught:
        type("TestMine", (HeadSuite,), {"test_temperature": replacement})
    assert "super().test_temperature()" in str(caught.value)
    assert '@pytest.mark.xfail(strict=True, reason="...")' in str(caught.value)


def test_overriding_in_a_mixin_or_a_grandchild_is_refused():
    """It makes no difference where the override stands."""
    mixin = type("Mixin", (), {"test_is_an_order": override()})
    with pytest.raises(TypeError, match="test_is_an_order"):
        type("TestMixed", (mixin, OrderSuite), {})
    child = type("TestChild", (OrderSuite,), {})
    with pytest.raises(TypeError, match="test_is_an_order"):
        type("TestGrandchild", (child,), {"test_is_an_order": override()})


def test_overriding_is_allowed_where_it_is_said():
    """A strict xfail with a reason may be set, inherited, and stand beside new tests of the author's own."""
    known = override(pytest.mark.xfail(strict=True, reason="issue 12"))
    child = type("TestChild", (OrderSuite,), {"test_is_an_order": known, "test_my_own": override()})
    type("TestGrandchild", (child,), {})


@pytest.mark.parametrize("suite", SUITES)
def test_every_test_has_a_note_for_troubles(suite):
    """Docstrings say what is tested, and what to look for if it fails; the class shows a complete subclass."""
    tests = [function for name, function in inspect.getmembers(suite) if name.startswith("test_")]
    assert len(tests) >= 7
    for test in tests:
        assert "If this fails: " in inspect.getdoc(test), test.__qualname__
    assert f"({suite.__name__}):" in inspect.getdoc(suite)
    assert f"def {suite.supplier}(self" in inspect.getdoc(suite)


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_that_names_no_component_says_so(suite, tmp_path):
    """The message names the attribute and the method that can supply a component."""
    run = type("TestNothing", (suite,), {})()
    run.folder = tmp_path
    with pytest.raises(InvalidComponentError, match=f"TestNothing does not say what to test.*`{suite.supplier}`"):
        run.build()


def test_a_misspelt_component_is_reported(tmp_path):
    """Components are looked up in the catalog, with its hints."""
    run = type("TestMisspelt", (OrderSuite,), {"component": "rasterr"})()
    run.folder = tmp_path
    with pytest.raises(UnknownComponentError, match="Did you mean 'raster'"):
        run.order()


def test_options_reach_the_component(tmp_path):
    """A suite may choose other options than the declaration's example."""
    run = type("TestNarrow", (TextEncoderSuite,), {"component": "bytes", "options": {"width": 24}})()
    run.folder = tmp_path
    assert run.text_encoder().width == 24


def test_public_names_exist():
    """All that `__all__` promises can be imported, and declarations of heads tell the suite their tokens."""
    for name in fluid_core.testing.__all__:
        assert getattr(fluid_core.testing, name) is not None
    assert HeadSuite.kind == HeadComponent.kind


@pytest.fixture(scope="module")
def author_report(warm_start, tmp_path_factory):
    """What pytest prints for an author whose two heads, one intact and one broken, run the suite."""
    folder = tmp_path_factory.mktemp("author")
    (folder / "test_heads.py").write_text(
        dedent("""
        import pytest
        from fluid_core.testing import HeadSuite
        from fluid_core.testing.example_tokens import example_token_space
        from fluid_core.testing.tiny import TinyGaussianHead

        class TestIntact(HeadSuite):
            def head(self, context):
                return TinyGaussianHead(context)

            def token_space(self):
                return example_token_space("continuous")

        class NoLoss(TinyGaussianHead):
            def loss(self, condition, target, *, random):
                loss = super().loss(condition, target, random=random)
                return type(loss)(total=loss.total.double())

        class TestBroken(TestIntact):
            def head(self, context):
                return NoLoss(context)

            @pytest.mark.xfail(strict=True, reason="issue 12")
            def test_runs_under_autocast(self):
                super().test_runs_under_autocast()
        """)
    )
    command = [warm_start.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_an_author_sees_what_failed_and_why(author_report):
    """Only the broken head fails, in one test; the report shows its note and the values that were compared."""
    num_tests = len([name for name in dir(HeadSuite) if name.startswith("test_")])
    # Five tests of each head are for abilities that neither has.
    assert f"1 failed, {2 * num_tests - 12} passed, 10 skipped, 1 xfailed" in author_report
    assert "FAILED test_heads.py::TestBroken::test_loss_is_one_finite_number_per_token" in author_report
    assert "If this fails: do not reduce" in author_report
    assert "assert torch.float64 == torch.float32" in author_report


def test_importing_core_does_not_import_pytest():
    """Only `fluid_core.testing` needs the extra."""
    command = [sys.executable, "-c", "import fluid_core, sys; assert 'pytest' not in sys.modules"]
    assert subprocess.run(command, check=False).returncode == 0
