"""The components that can be chosen by name: those of the installed plugins, and any added by hand."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import attrs

from fluid_core.components import Component
from fluid_core.discovery import (
    DISABLED_PLUGINS_VARIABLE,
    KINDS,
    DisabledPlugin,
    InstalledComponent,
    PluginFailure,
    discover_plugins,
    problems_of,
    repeated,
)
from fluid_core.errors import (
    DuplicateComponentError,
    InvalidComponentError,
    UnknownComponentError,
    did_you_mean,
    listing,
)

__all__ = [
    "KINDS",
    "ComponentCatalog",
    "Conflict",
    "InstalledComponent",
    "PluginFailure",
    "installed_components",
]


@attrs.frozen(kw_only=True)
class Conflict:
    """Several components of one kind under one name: none of them can be chosen."""

    kind: str
    name: str
    providers: tuple[InstalledComponent, ...]

    def __str__(self) -> str:
        origins = " and ".join(
            f"{one.origin} (plugin '{one.plugin}')" if one.plugin else f"{one.origin} (added by hand)"
            for one in self.providers
        )
        plugins = sorted({one.plugin for one in self.providers if one.plugin})
        remedy = (
            f"Disable one of them, for example with {DISABLED_PLUGINS_VARIABLE}={plugins[-1]}"
            if plugins
            else "Add only one of them"
        )
        return f"The {self.kind} '{self.name}' is declared more than once: by {origins}. {remedy}."


@attrs.frozen(kw_only=True)
class ComponentCatalog:
    """Components by kind and name, and what is known about plugins that could not be used. Never changes."""

    installed: tuple[InstalledComponent, ...] = ()
    failures: tuple[PluginFailure, ...] = ()
    disabled: tuple[DisabledPlugin, ...] = ()
    unknown_disabled: tuple[str, ...] = ()
    """Names in `FLUID_DISABLED_PLUGINS` that no installed plugin has."""

    @classmethod
    def discover(cls, *, disabled: Collection[str] | None = None) -> "ComponentCatalog":
        """The components of all installed plugins.

        `disabled` names plugins (by entry point or distribution) to leave out; None reads
        `FLUID_DISABLED_PLUGINS`. A broken plugin raises nothing here: it is listed in `failures`, and named
        when a lookup fails.
        """
        found = discover_plugins(disabled=disabled)
        return cls(
            installed=found.installed,
            failures=found.failures,
            disabled=found.disabled,
            unknown_disabled=found.unknown_disabled,
        )

    def with_components(
        self, *components: Component, distribution: str = "added-by-hand", version: str = "0"
    ) -> "ComponentCatalog":
        """A catalog that also has `components`: for notebooks and tests, where nothing needs to be installed.

        Raises `InvalidComponentError` if a declaration is not valid, or two of them share kind and name.
        """
        problems = [problem for component in components for problem in problems_of(component)]
        if not problems and (twice := repeated(components)):
            problems = [f"{label} is declared more than once" for label in twice]
        if problems:
            raise InvalidComponentError(f"Expected valid declarations, found: {'; '.join(problems)}.")
        added = (InstalledComponent(component=one, distribution=distribution, version=version) for one in components)
        return attrs.evolve(self, installed=(*self.installed, *added))

    def components(self, kind: str | None = None) -> tuple[InstalledComponent, ...]:
        """All components, or all of one kind, sorted by kind and name; conflicting ones are included.

        Raises `UnknownComponentError` for a kind that does not exist.
        """
        if kind is not None:
            _check_kind(kind)
        chosen = (one for one in self.installed if kind in (None, one.kind))
        return tuple(sorted(chosen, key=lambda one: (KINDS.index(one.kind), one.name, one.distribution)))

    def names(self, kind: str) -> tuple[str, ...]:
        """Names of the components of one kind, sorted."""
        return tuple(sorted({one.name for one in self.components(kind)}))

    def conflicts(self) -> tuple[Conflict, ...]:
        """The names that several plugins declare."""
        providers: dict[tuple[str, str], list[InstalledComponent]] = {}
        for one in self.components():
            providers.setdefault((one.kind, one.name), []).append(one)
        return tuple(
            Conflict(kind=kind, name=name, providers=tuple(found))
            for (kind, name), found in providers.items()
            if len(found) > 1
        )

    def find(self, kind: str, name: str) -> InstalledComponent:
        """The component of this kind and name.

        Raises `UnknownComponentError` if there is none, saying what there is and which plugins failed, and
        `DuplicateComponentError` if several plugins declare it.
        """
        found = tuple(one for one in self.components(kind) if one.name == name)
        if not found:
            raise UnknownComponentError(self._unknown(kind, name))
        if len(found) > 1:
            raise DuplicateComponentError(str(Conflict(kind=kind, name=name, providers=found)))
        return found[0]

    def build(
        self,
        kind: str,
        name: str,
        options: Any = None,
        *context: Any,
        root: str = "$",
    ) -> Any:
        """Build the component of this kind and name.

        See `find` and `fluid_core.building.build_component` for the arguments and for what is raised.
        """
        # Imported late: listing components needs neither the converter nor anything behind it.
        from fluid_core.building import build_component

        return build_component(self.find(kind, name), options, *context, root=root)

    def _unknown(self, kind: str, name: str) -> str:
        """The text for a name that is not known: what there is instead, and what could have provided it."""
        known = self.names(kind)
        hint = did_you_mean(name, known)
        sentences = [f"There is no {kind} named '{name}'.{hint} Installed: {listing(known)}."]
        sentences += [
            f"'{name}' is the name of a component of another kind: {one.kind}."
            for one in self.components()
            if one.name == name
        ]
        if self.failures:
            failures = "; ".join(str(failure) for failure in self.failures)
            sentences.append(f"Plugins that failed to load might have provided it: {failures}.")
        if self.disabled:
            disabled = "; ".join(str(plugin) for plugin in self.disabled)
            sentences.append(f"Plugins disabled by {DISABLED_PLUGINS_VARIABLE}: {disabled}.")
        return " ".join(sentences)


@lru_cache(maxsize=1)
def installed_components() -> ComponentCatalog:
    """The catalog of this process, made on first use; `installed_components.cache_clear()` forgets it."""
    return ComponentCatalog.discover()


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise UnknownComponentError(
            f"There is no kind of component named '{kind}'.{did_you_mean(kind, KINDS)} The kinds are {listing(KINDS)}."
        )
