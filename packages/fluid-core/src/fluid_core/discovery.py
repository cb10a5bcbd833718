"""Finds the installed plugins and asks each of them, one at a time, what it declares.

Plugins are entry points of the group `fluid_core`; the packages of this repository are found in the same way
as anybody else's. A plugin that can not be used is described by a `PluginFailure` and never keeps another
from loading.
"""

import importlib.metadata
import os
import re
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints

import attrs
import pluggy

from fluid_core import hookspecs
from fluid_core.components import Component
from fluid_core.errors import did_you_mean, listing

DISABLED_PLUGINS_VARIABLE = "FLUID_DISABLED_PLUGINS"
"""Environment variable: plugins to leave out, by entry point or distribution name, separated by commas."""

HOOKS: dict[str, type[Component]] = {
    name: get_args(get_type_hints(hook)["return"])[0]
    for name, hook in vars(hookspecs).items()
    if name.startswith("fluid_register_")
}
"""Every hook, with the class of the declarations it returns (read from the hook's return annotation)."""

KINDS: tuple[str, ...] = tuple(declaration.kind for declaration in HOOKS.values())
"""The kinds of components: `tokenizer`, `head`, `order`, `text-encoder`, `dataset`, `feature-network`."""


@attrs.frozen(kw_only=True)
class InstalledComponent:
    """A declaration and where it comes from; `plugin` is the entry point, empty if it was added by hand."""

    component: Component
    distribution: str
    version: str
    plugin: str = ""

    @property
    def kind(self) -> str:
        """Kind of the component, such as `head`."""
        return self.component.kind

    @property
    def name(self) -> str:
        """Name of the component, such as `diffusion`."""
        return self.component.name

    @property
    def origin(self) -> str:
        """Distribution and version, as in `fluid-heads 0.1.0`."""
        return f"{self.distribution} {self.version}"

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' of {self.origin}"

    def example_options(self, folder: Path) -> Any:
        """Options of a small instance, for tests; what it needs on disk is written into `folder`."""
        return self.component.example(folder) if self.component.example else self.component.options()


@attrs.frozen(kw_only=True)
class PluginFailure:
    """A plugin that could not be used, and why."""

    plugin: str
    distribution: str
    version: str
    cause: str

    def __str__(self) -> str:
        return f"'{self.plugin}' of {self.distribution} {self.version}: {self.cause}"


@attrs.frozen(kw_only=True)
class DisabledPlugin:
    """A plugin that was left out on request."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"'{self.plugin}' of {self.distribution} {self.version}"


@attrs.frozen(kw_only=True)
class Discovery:
    """What one walk over the entry points found."""

    installed: tuple[InstalledComponent, ...]
    failures: tuple[PluginFailure, ...]
    disabled: tuple[DisabledPlugin, ...]
    unknown_disabled: tuple[str, ...]
    """Names that were to be disabled and belong to no installed plugin: most likely spelling mistakes."""


_IMPORT_MACHINERY = Path(importlib.__file__).parent


class _RefusedPlugin(Exception):  # noqa: N818 - never leaves this module
    """The plugin at hand can not be used; the text says why."""


def discover_plugins(*, disabled: Collection[str] | None = None) -> Discovery:
    """Load every installed plugin, sorted by distribution and entry point name.

    `disabled` holds names of entry points or distributions to leave out; None reads `FLUID_DISABLED_PLUGINS`.
    """
    if disabled is None:
        disabled = [name.strip() for name in os.environ.get(DISABLED_PLUGINS_VARIABLE, "").split(",")]
    wanted_out = {_normalised(name): name for name in disabled if name}
    installed: list[InstalledComponent] = []
    failures: list[PluginFailure] = []
    left_out: list[DisabledPlugin] = []
    matched: set[str] = set()
    entry_points = importlib.metadata.entry_points(group=hookspecs.ENTRY_POINT_GROUP)
    for entry_point in sorted(entry_points, key=lambda point: (_origin(point), point.name, point.value)):
        distribution, version = _origin(entry_point)
        blocked_by = wanted_out.keys() & {_normalised(entry_point.name), _normalised(distribution)}
        if blocked_by:
            matched |= blocked_by
            left_out.append(DisabledPlugin(plugin=entry_point.name, distribution=distribution, version=version))
            continue
        try:
            components = _declarations(entry_point)
        except _RefusedPlugin as refusal:
            failures.append(
                PluginFailure(plugin=entry_point.name, distribution=distribution, version=version, cause=str(refusal))
            )
            continue
        installed += [
            InstalledComponent(component=component, distribution=distribution, version=version, plugin=entry_point.name)
            for component in components
        ]
    return Discovery(
        installed=tuple(installed),
        failures=tuple(failures),
        disabled=tuple(left_out),
        unknown_disabled=tuple(name for key, name in wanted_out.items() if key not in matched),
    )


def problems_of(component: Any, expected: type[Component] = Component) -> list[str]:
    """Everything that is wrong with one declaration, in words; empty if it is valid."""
    if not isinstance(component, expected):
        return [f"expected a {expected.__name__}, found {_described(component)}"]
    label = f"{component.kind} {component.name!r}"
    problems = component.problems()
    if component.kind not in KINDS:
        problems.append(f"its kind must be one of {listing(KINDS)}, found {component.kind!r}")
    if not problems:
        try:
            attrs.resolve_types(component.options, include_extras=True)
        except Exception as error:
            problems = [
                f"the annotations of its options must be importable when the program runs, found "
                f"{type(error).__name__}: {error}"
            ]
    return [f"{label}: {problem}" for problem in problems]


def repeated(components: Collection[Component]) -> list[str]:
    """Labels of the components whose kind and name occur more than once."""
    labels = [f"{component.kind} '{component.name}'" for component in components]
    return sorted({label for label in labels if labels.count(label) > 1})


def _declarations(entry_point: importlib.metadata.EntryPoint) -> tuple[Component, ...]:
    """All components of one plugin, valid as a whole. Raises `_RefusedPlugin`."""
    with _blaming(f"importing '{entry_point.value}'"):
        plugin = entry_point.load()
    declared: list[Component] = []
    problems: list[str] = []
    for name, function in _hook_functions(plugin).items():
        with _blaming(f"calling '{name}'"):
            returned = function()
        if not isinstance(returned, tuple):
            expected = f"a tuple of {HOOKS[name].__name__}"
            problems.append(f"'{name}' must return {expected}, found {_described(returned)}")
            continue
        for index, component in enumerate(returned):
            with _blaming(f"checking what '{name}' returned"):
                found = problems_of(component, HOOKS[name])
            problems += [f"'{name}' returned an invalid declaration at index {index}: {text}" for text in found]
        declared += returned
    if problems:
        raise _RefusedPlugin("; ".join(problems))
    if twice := repeated(declared):
        raise _RefusedPlugin(f"it declares {' and '.join(twice)} more than once")
    return tuple(declared)


def _hook_functions(plugin: Any) -> dict[str, Any]:
    """The functions with which `plugin` implements hooks, by hook name. Raises `_RefusedPlugin`."""
    manager = pluggy.PluginManager("fluid_core")
    manager.add_hookspecs(hookspecs)
    with _blaming("looking for its hooks"):
        try:
            manager.register(plugin)
        except pluggy.PluginValidationError as error:
            # pluggy's text spans several lines; the last one says what is wrong.
            reason = str(error).splitlines()[-1]
            raise _RefusedPlugin(f"a hook does not fit its specification: {reason}") from error
    callers = {caller.name: caller for caller in manager.get_hookcallers(plugin) or ()}
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = sorted(name for name, caller in callers.items() if not caller.has_spec())
        hints = " ".join(f"There is no hook '{name}'.{did_you_mean(name, HOOKS)}" for name in unknown)
        raise _RefusedPlugin(f"{hints} The hooks are {listing(HOOKS)}") from error
    unmarked = [
        name
        for name in dir(plugin)
        if name.startswith("fluid_register_") and name not in callers and callable(getattr(plugin, name))
    ]
    if unmarked:
        raise _RefusedPlugin(
            f"it defines {listing(unmarked)} without the mark '@hookimpl' from fluid_core.hookspecs, "
            f"so it would never be called"
        )
    if not callers:
        raise _RefusedPlugin(f"it implements no hook; expected at least one of {listing(HOOKS)}")
    return {
        name: implementation.function
        for name, caller in sorted(callers.items())
        if name in HOOKS
        for implementation in caller.get_hookimpls()
    }


@contextmanager
def _blaming(action: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into a refusal of the plugin at hand.

    That includes `SystemExit`, which a module may raise on import: one plugin must not end the program.
    """
    try:
        yield
    except (KeyboardInterrupt, _RefusedPlugin):
        raise
    except BaseException as error:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise _RefusedPlugin(f"{action} raised {text}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """Where in the plugin the error arose, as ` (file, line 3)`; empty if that is not the plugin's code."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen")
        and not Path(frame.filename).is_relative_to(_IMPORT_MACHINERY)
        and frame.filename != __file__
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _described(value: Any) -> str:
    if isinstance(value, Component):
        return f"one {type(value).__name__}"
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _origin(entry_point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution behind an entry point, even if its metadata is incomplete."""
    if entry_point.dist is None:
        return "unknown", "unknown"
    # A missing field of the metadata reads as None, whatever its type says.
    metadata = entry_point.dist.metadata
    return str(metadata["Name"] or "unknown"), str(metadata["Version"] or "unknown")


def _normalised(name: str) -> str:
    """A name as package indexes compare it: without regard to case, hyphens, underscores and dots."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
