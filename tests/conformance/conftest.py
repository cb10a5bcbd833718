"""Runs one conformance test on a component that must not pass it."""

import pytest

from fluid_core.errors import FluidError


@pytest.fixture
def assert_rejected(tmp_path):
    """A function that takes a suite for a broken component and the name of the test that must fail.

    An unexpected error, such as a shape that does not multiply, is no finding of the kit and passes through.
    """

    def check(suite, test):
        run = suite()
        run.folder = tmp_path
        try:
            getattr(run, test)()
        except (AssertionError, FluidError, pytest.fail.Exception):
            return
        except pytest.skip.Exception as skipped:
            pytest.fail(f"{test} was skipped: {skipped}")
        pytest.fail(f"{test} accepted a broken component")

    return check
