"""Plugins written and installed for a test, found by real discovery."""

import importlib.metadata
from collections.abc import Callable

import attrs
import pytest

from fluid_core.catalog import ComponentCatalog
from fluid_core.hookspecs import ENTRY_POINT_GROUP
from fluid_core.testing.plugin_fixture import install_plugin

__all__ = ["install_plugin"]

_INSTALLED_BEFORE = frozenset(
    point.dist.name for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP) if point.dist
)


@pytest.fixture
def discover_new() -> Callable[[], ComponentCatalog]:
    """Discovers only what the test installed, so that messages can be pinned whatever else is installed."""

    def discover() -> ComponentCatalog:
        return attrs.evolve(ComponentCatalog.discover(disabled=_INSTALLED_BEFORE), disabled=())

    return discover


@pytest.fixture
def head_plugin() -> Callable[[str], str]:
    """The text of a plugin that declares one head under the given name."""

    def source(name: str) -> str:
        return f'''
            import attrs
            from fluid_core.components import HeadComponent
            from fluid_core.hookspecs import hookimpl

            @attrs.frozen(kw_only=True)
            class Options:
                num_parts: int = 3

            @hookimpl
            def fluid_register_heads():
                return (
                    HeadComponent(
                        name="{name}", summary="Parts", options=Options, build=dict, predicts="continuous"
                    ),
                )
        '''

    return source
