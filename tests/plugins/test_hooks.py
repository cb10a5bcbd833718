"""Every hook, implemented by a plugin of a third party and found by real discovery."""

import pytest

from fluid_core import hookspecs
from fluid_core.catalog import KINDS, ComponentCatalog, installed_components
from fluid_core.discovery import HOOKS

DECLARATIONS = {
    "fluid_register_tokenizers": ("TokenizerComponent", "tokenizer", ", produces='continuous'"),
    "fluid_register_heads": ("HeadComponent", "head", ", predicts='continuous'"),
    "fluid_register_orders": ("OrderComponent", "order", ""),
    "fluid_register_text_encoders": ("TextEncoderComponent", "text-encoder", ""),
    "fluid_register_datasets": ("DatasetComponent", "dataset", ""),
    "fluid_register_feature_networks": ("FeatureNetworkComponent", "feature-network", ""),
}


def test_every_hook_has_a_test():
    """A hook added to the specifications must be added to the table above."""
    specified = {name for name, value in vars(hookspecs).items() if hasattr(value, "fluid_core_spec")}
    assert specified == set(DECLARATIONS) == set(HOOKS)
    assert [HOOKS[name].__name__ for name in HOOKS] == [DECLARATIONS[name][0] for name in HOOKS]


@pytest.mark.parametrize("hook", DECLARATIONS)
def test_hook_is_called(hook, install_plugin, discover_new):
    """What a hook returns is found under its kind and name, with the distribution and version it comes from."""
    declaration, kind, more = DECLARATIONS[hook]
    install_plugin(
        f"""
        import attrs
        from fluid_core.components import {declaration}
        from fluid_core.hookspecs import hookimpl

        @attrs.frozen(kw_only=True)
        class Options:
            size: int = 3

        @hookimpl
        def {hook}():
            return ({declaration}(name="mine", summary="My own", options=Options, build=dict{more}),)
        """,
        distribution="my-parts",
        version="2.5",
        plugin="mine-plugin",
    )
    catalog = discover_new()
    assert catalog.failures == ()
    found = catalog.find(kind, "mine")
    assert (found.kind, found.name, found.distribution, found.version, found.plugin) == (
        kind,
        "mine",
        "my-parts",
        "2.5",
        "mine-plugin",
    )
    assert str(found) == f"{kind} 'mine' of my-parts 2.5"
    assert catalog.components() == (found,)


def test_plugin_may_be_an_object(install_plugin, discover_new):
    """An entry point may name an object whose methods implement the hooks."""
    install_plugin(
        """
        import attrs
        from fluid_core.components import OrderComponent
        from fluid_core.hookspecs import hookimpl

        @attrs.frozen(kw_only=True)
        class Options:
            pass

        class Plugin:
            @hookimpl
            def fluid_register_orders(self):
                return (OrderComponent(name="mine", summary="My own", options=Options, build=dict),)

        plugin = Plugin()
        """,
        entry_point="temporary_plugin:plugin",
    )
    assert discover_new().names("order") == ("mine",)


def test_built_ins_take_the_same_path():
    """The packages of this repository are found through their entry points, each without a failure."""
    catalog = ComponentCatalog.discover()
    ours = {"fluid-core", "fluid-tokenizers", "fluid-heads", "fluid-orders"}
    assert [failure for failure in catalog.failures if failure.distribution in ours] == []
    assert {one.distribution for one in catalog.components()} >= ours
    assert {one.kind for one in catalog.components() if one.distribution in ours} == set(KINDS)
    assert all(one.plugin for one in catalog.components())


def test_core_names_no_component_of_the_plugins():
    """With every plugin left out nothing is known: no list of built-in names hides in core."""
    everything = {one.distribution for one in ComponentCatalog.discover().components()}
    assert ComponentCatalog.discover(disabled=everything).components() == ()


def test_process_catalog_notices_a_temporary_plugin(install_plugin, head_plugin):
    """The cached catalog of the process is made anew when a temporary plugin is installed."""
    assert installed_components() is installed_components()
    assert "fresh" not in installed_components().names("head")
    install_plugin(head_plugin("fresh"))
    assert "fresh" in installed_components().names("head")
