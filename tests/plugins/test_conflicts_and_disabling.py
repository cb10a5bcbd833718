"""Two plugins with one name, and plugins that are left out on request."""

import pytest

from fluid_core.catalog import ComponentCatalog
from fluid_core.errors import DuplicateComponentError, UnknownComponentError

CONFLICT = (
    "The head 'parts' is declared more than once: by first-parts 1.0 (plugin 'first') and second-parts 2.0 "
    "(plugin 'second'). Disable one of them, for example with FLUID_DISABLED_PLUGINS=second."
)


@pytest.fixture
def two_with_one_name(install_plugin, head_plugin):
    """Two distributions that both declare the head 'parts'."""
    install_plugin(head_plugin("parts"), distribution="first-parts", plugin="first")
    install_plugin(head_plugin("parts"), distribution="second-parts", version="2.0", plugin="second")


def test_two_plugins_with_one_name(two_with_one_name, discover_new):
    """The lookup of a name that two plugins declare names both, and how to disable one."""
    catalog = discover_new()
    with pytest.raises(DuplicateComponentError) as raised:
        catalog.find("head", "parts")
    assert str(raised.value) == CONFLICT
    assert [str(conflict) for conflict in catalog.conflicts()] == [CONFLICT]
    assert [one.distribution for one in catalog.components("head")] == ["first-parts", "second-parts"]


def test_conflict_leaves_other_names_alone(two_with_one_name, install_plugin, head_plugin, discover_new):
    """Only the name in conflict is refused."""
    install_plugin(head_plugin("other"), distribution="third-parts")
    assert discover_new().find("head", "other").distribution == "third-parts"


@pytest.mark.parametrize("name", ["second", "second-parts", "Second_Parts"])
def test_advice_of_the_message_works(name, two_with_one_name, monkeypatch):
    """Disabling one of the two, by entry point or distribution name, leaves the other to be found."""
    monkeypatch.setenv("FLUID_DISABLED_PLUGINS", f" {name} ,")
    catalog = ComponentCatalog.discover()
    assert catalog.find("head", "parts").distribution == "first-parts"
    assert catalog.conflicts() == ()
    assert [str(plugin) for plugin in catalog.disabled] == ["'second' of second-parts 2.0"]


def test_disabled_plugin_is_not_imported(install_plugin, monkeypatch):
    """A plugin that is left out is not even imported, so that it can do no harm."""
    install_plugin("raise SystemExit", distribution="broken-parts")
    monkeypatch.setenv("FLUID_DISABLED_PLUGINS", "broken-parts")
    catalog = ComponentCatalog.discover()
    assert "broken-parts" not in [failure.distribution for failure in catalog.failures]


def test_failed_lookup_names_disabled_plugins(install_plugin, head_plugin):
    """A component that is not there may belong to a plugin that was left out: the message says so."""
    everything = [one.distribution for one in ComponentCatalog.discover().components()]
    install_plugin(head_plugin("parts"), distribution="my-parts")
    catalog = ComponentCatalog.discover(disabled=[*everything, "my-parts"])
    with pytest.raises(UnknownComponentError) as raised:
        catalog.find("head", "parts")
    disabled = "; ".join(str(plugin) for plugin in catalog.disabled)
    assert "'my-parts' of my-parts 1.0" in disabled
    assert str(raised.value) == (
        f"There is no head named 'parts'. Installed: none. Plugins disabled by FLUID_DISABLED_PLUGINS: {disabled}."
    )


def test_misspelt_disabled_name_is_remembered(monkeypatch):
    """A name that disables nothing is most likely misspelt, and is kept to be shown."""
    monkeypatch.setenv("FLUID_DISABLED_PLUGINS", "fluid-haeds")
    assert ComponentCatalog.discover().unknown_disabled == ("fluid-haeds",)


def test_argument_goes_before_the_environment(monkeypatch, install_plugin, head_plugin):
    """An explicit collection, even an empty one, replaces the environment variable."""
    install_plugin(head_plugin("parts"), distribution="my-parts")
    monkeypatch.setenv("FLUID_DISABLED_PLUGINS", "my-parts")
    assert "parts" not in ComponentCatalog.discover().names("head")
    assert "parts" in ComponentCatalog.discover(disabled=()).names("head")
