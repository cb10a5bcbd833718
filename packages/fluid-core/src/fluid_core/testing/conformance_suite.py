"""What all suites share: how a component is supplied, and a guard against tests that are silently switched off."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fluid_core.building import build_component
from fluid_core.catalog import installed_components
from fluid_core.discovery import InstalledComponent
from fluid_core.errors import InvalidComponentError


class ConformanceSuite:
    """Base of the suites: one instance per test, as pytest makes them.

    A subclass says what to test in one of two ways. It sets `component` to the name of an installed component, which is
    then found and built through the catalog, with `options`, or with the declaration's `example`. Or, for an object
    that is in no catalog, it overrides the method that supplies the component, such as `HeadSuite.head`.

    Inherited tests may not be overridden: a component that fails one is used in ways that its author never sees. Where
    a test must fail for a known reason, say so:

        @pytest.mark.xfail(strict=True, reason="ids are drawn on the GPU: my-plugin issue 12")
        def test_samples_follow_the_keys(self):
            super().test_samples_follow_the_keys()
    """

    kind: ClassVar[str]
    """Kind of the components a suite is for, as in the catalog."""

    supplier: ClassVar[str]
    """Name of the method that supplies the component."""

    component: str = ""
    """Name of an installed component."""

    options: Any = None
    """Options of the component: a mapping, or an instance of its options class. None: those of the declaration's
    `example`, or else the defaults."""

    folder: Path
    """An empty folder, new for each test."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Refuse overridden tests when the class is made. Raises `TypeError`, naming the test."""
        super().__init_subclass__(**arguments)
        for name in {name for base in cls.__mro__ for name in vars(base) if name.startswith("test_")}:
            owners = [base for base in cls.__mro__ if name in vars(base)]
            if len(owners) > 1 and issubclass(owners[-1], ConformanceSuite):
                _refuse_unless_xfail(cls, name, vars(owners[0])[name])

    @pytest.fixture(autouse=True)
    def _give_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @cached_property
    def installed(self) -> InstalledComponent:
        """The catalog's entry for `component`. Raises `InvalidComponentError` if the subclass names none."""
        if not self.component:
            raise InvalidComponentError(
                f"{type(self).__name__} does not say what to test: set `component` to the name of an installed "
                f"{self.kind}, or define `{self.supplier}`."
            )
        return installed_components().find(self.kind, self.component)

    @cached_property
    def _options(self) -> Any:
        return self.installed.example_options(self.folder) if self.options is None else self.options

    def build(self, *context: Any) -> Any:
        """The component called `component`, built as `FluidModel.from_config` builds it."""
        return build_component(self.installed, self._options, *context)


def _refuse_unless_xfail(suite: type, name: str, override: Callable[..., Any] | None) -> None:
    for mark in getattr(override, "pytestmark", ()):
        if mark.name == "xfail" and mark.kwargs.get("reason") and mark.kwargs.get("strict"):
            return
    raise TypeError(
        f"{suite.__name__} overrides the conformance test {name}, so that nobody would notice what it tests. Remove "
        "the override and mend the component. If the test has to fail for a known reason, keep the override, let it "
        f"call super().{name}(), and mark it with "
        '@pytest.mark.xfail(strict=True, reason="...").'
    )
