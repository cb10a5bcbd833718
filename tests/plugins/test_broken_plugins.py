"""A plugin that can not be used is reported with its cause, and keeps no other plugin from loading."""

import pytest

from fluid_core.catalog import ComponentCatalog
from fluid_core.errors import UnknownComponentError

HEAD = """
import attrs
from fluid_core.components import HeadComponent, OrderComponent
from fluid_core.hookspecs import hookimpl

@attrs.frozen(kw_only=True)
class Options:
    pass

def head(name="parts", **changes):
    values = dict(name=name, summary="Parts", options=Options, build=dict, predicts="continuous")
    return HeadComponent(**(values | changes))
"""

ALL_HOOKS = (
    "'fluid_register_datasets', 'fluid_register_feature_networks', 'fluid_register_heads', 'fluid_register_orders', "
    "'fluid_register_text_encoders', 'fluid_register_tokenizers'"
)

BROKEN = {
    "missing dependency": (
        "import no_such_package",
        "importing 'broken_parts' raised ModuleNotFoundError: No module named 'no_such_package' ({module}, line 1)",
    ),
    "syntax error": (
        "def (:",
        "importing 'broken_parts' raised SyntaxError: invalid syntax (broken_parts.py, line 1)",
    ),
    "exit on import": ("raise SystemExit(3)", "importing 'broken_parts' raised SystemExit: 3 ({module}, line 1)"),
    "misspelt hook": (
        HEAD + "@hookimpl\ndef fluid_register_haeds():\n    return (head(),)",
        "There is no hook 'fluid_register_haeds'. Did you mean 'fluid_register_heads'? The hooks are " + ALL_HOOKS,
    ),
    "forgotten mark": (
        HEAD + "def fluid_register_heads():\n    return (head(),)",
        "it defines 'fluid_register_heads' without the mark '@hookimpl' from fluid_core.hookspecs, so it would "
        "never be called",
    ),
    "no hooks": ("", f"it implements no hook; expected at least one of {ALL_HOOKS}"),
    "unknown argument": (
        HEAD + "@hookimpl\ndef fluid_register_heads(register):\n    return (head(),)",
        "a hook does not fit its specification: Argument(s) {{'register'}} are declared in the hookimpl but can "
        "not be found in the hookspec",
    ),
    "hook raises": (
        HEAD + "@hookimpl\ndef fluid_register_heads():\n    return 1 / 0",
        "calling 'fluid_register_heads' raised ZeroDivisionError: division by zero ({module}, line 14)",
    ),
    "list": (
        HEAD + "@hookimpl\ndef fluid_register_heads():\n    return [head()]",
        "'fluid_register_heads' must return a tuple of HeadComponent, found a value of type list",
    ),
    "nothing": (
        HEAD + "@hookimpl\ndef fluid_register_heads():\n    head()",
        "'fluid_register_heads' must return a tuple of HeadComponent, found None",
    ),
    "bare declaration": (
        HEAD + "@hookimpl\ndef fluid_register_heads():\n    return head()",
        "'fluid_register_heads' must return a tuple of HeadComponent, found one HeadComponent",
    ),
    "wrong class": (
        HEAD
        + "@hookimpl\ndef fluid_register_heads():\n"
        + "    return (head(), OrderComponent(name='x', summary='X', options=Options, build=dict))",
        "'fluid_register_heads' returned an invalid declaration at index 1: expected a HeadComponent, found one "
        "OrderComponent",
    ),
    "not a declaration": (
        HEAD + "@hookimpl\ndef fluid_register_heads():\n    return (Options,)",
        "'fluid_register_heads' returned an invalid declaration at index 0: expected a HeadComponent, found a "
        "value of type type",
    ),
    "bad name and build": (
        HEAD + "@hookimpl\ndef fluid_register_heads():\n    return (head('My Head', build=None),)",
        "'fluid_register_heads' returned an invalid declaration at index 0: head 'My Head': its name must be "
        "lower-case words joined by hyphens, found 'My Head'; 'fluid_register_heads' returned an invalid "
        "declaration at index 0: head 'My Head': its build must be a function, found None",
    ),
    "bad options": (
        HEAD + "@hookimpl\ndef fluid_register_heads():\n    return (head(options=dict),)",
        "'fluid_register_heads' returned an invalid declaration at index 0: head 'parts': its options must be an "
        "attrs class, found <class 'dict'>",
    ),
    "bad summary, token kind and example": (
        HEAD + "@hookimpl\ndef fluid_register_heads():\n    return (head(summary='', predicts=None, example=3),)",
        "'fluid_register_heads' returned an invalid declaration at index 0: head 'parts': its summary must be one "
        "line of text, found ''; 'fluid_register_heads' returned an invalid declaration at index 0: head 'parts': "
        "its example must be a function or None, found 3; 'fluid_register_heads' returned an invalid declaration "
        "at index 0: head 'parts': its predicts must be a kind of token such as 'continuous' or 'discrete', found "
        "None",
    ),
    "annotation for type checkers only": (
        HEAD
        + "@attrs.frozen(kw_only=True)\nclass Late:\n    value: 'Tensor' = None\n"
        + "@hookimpl\ndef fluid_register_heads():\n    return (head(options=Late),)",
        "'fluid_register_heads' returned an invalid declaration at index 0: head 'parts': the annotations of its "
        "options must be importable when the program runs, found NameError: name 'Tensor' is not defined",
    ),
    "a name twice": (
        HEAD + "@hookimpl\ndef fluid_register_heads():\n    return (head(), head('other'), head())",
        "it declares head 'parts' more than once",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_cause_is_reported(case, install_plugin, discover_new, head_plugin):
    """Each way of being broken is named in full, nothing of that plugin is stored, and another one loads."""
    source, cause = BROKEN[case]
    folder = install_plugin(source.lstrip("\n"), distribution="broken-parts", version="1.2", plugin="parts-plugin")
    install_plugin(head_plugin("healthy"), distribution="healthy-parts")
    catalog = discover_new()
    (failure,) = catalog.failures
    assert failure.cause == cause.format(module=folder / "broken_parts.py")
    assert (failure.plugin, failure.distribution, failure.version) == ("parts-plugin", "broken-parts", "1.2")
    assert [one.name for one in catalog.components()] == ["healthy"]


def test_entry_point_without_module(install_plugin, discover_new):
    """An entry point that names a module that does not exist is the plugin's failure."""
    install_plugin("", distribution="broken-parts", entry_point="broken_parts_elsewhere")
    (failure,) = discover_new().failures
    assert failure.cause == (
        "importing 'broken_parts_elsewhere' raised ModuleNotFoundError: No module named 'broken_parts_elsewhere'"
    )


def test_entry_point_without_attribute(install_plugin, discover_new):
    """An entry point that names an attribute that does not exist is the plugin's failure."""
    install_plugin("", distribution="broken-parts", entry_point="broken_parts:Plugin")
    (failure,) = discover_new().failures
    assert failure.cause == (
        "importing 'broken_parts:Plugin' raised AttributeError: module 'broken_parts' has no attribute 'Plugin'"
    )


def test_interruption_is_not_swallowed(install_plugin):
    """Ctrl-C while a plugin is imported ends the program, as everywhere."""
    install_plugin("raise KeyboardInterrupt", distribution="broken-parts")
    with pytest.raises(KeyboardInterrupt):
        ComponentCatalog.discover()


def test_failed_lookup_names_the_failure(install_plugin, discover_new, head_plugin):
    """A component that is not there may belong to a plugin that failed: the message says so, with the cause."""
    folder = install_plugin("import no_such_package", distribution="broken-parts", version="1.2")
    install_plugin(head_plugin("healthy"), distribution="healthy-parts")
    with pytest.raises(UnknownComponentError) as raised:
        discover_new().find("head", "parts")
    assert str(raised.value) == (
        "There is no head named 'parts'. Installed: 'healthy'. Plugins that failed to load might have provided it: "
        "'broken-parts' of broken-parts 1.2: importing 'broken_parts' raised ModuleNotFoundError: No module named "
        f"'no_such_package' ({folder / 'broken_parts.py'}, line 1)."
    )


def test_failure_does_not_touch_what_works(install_plugin):
    """With a broken plugin installed, the packages of this repository are found as without it."""
    before = ComponentCatalog.discover()
    install_plugin("raise RuntimeError", distribution="aaa-broken")
    after = ComponentCatalog.discover()
    assert after.installed == before.installed
    assert after.names("text-encoder")
