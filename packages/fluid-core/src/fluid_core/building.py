"""Builds a component from its declaration: options are checked before, and what comes out is checked after.

Whatever goes wrong is attributed to the component and the distribution it comes from.
"""

from collections.abc import Mapping
from typing import Any

from typing_extensions import get_protocol_members

from fluid_core.configuration.structuring import structure
from fluid_core.discovery import InstalledComponent
from fluid_core.errors import ConfigurationError, FluidError, InvalidComponentError, PluginError


def component_options(installed: InstalledComponent, options: Any = None, *, root: str = "$") -> Any:
    """Options of a component as an instance of its own class.

    `options` is a mapping as it stands in a configuration, an instance already, or None for the defaults;
    `root` is where the mapping stands, such as `$.head.options`. Raises `ConfigurationError` that lists every
    problem.
    """
    expected = installed.component.options
    if isinstance(options, expected):
        return options
    if options is None or isinstance(options, Mapping):
        return structure(options or {}, expected, root=root, subject=f"options of {installed}")
    raise ConfigurationError(
        f"Expected the options of {installed} as a mapping or a {expected.__name__}, found a value of type "
        f"{type(options).__name__}."
    )


def build_component(installed: InstalledComponent, options: Any = None, *context: Any, root: str = "$") -> Any:
    """Build a component and check that it has what its kind promises.

    `options` and `root` are those of `component_options`; `context` is what the kind is built for (see
    `fluid_core.components`). Raises `ConfigurationError` for options that do not fit, `InvalidComponentError`
    for a result that lacks something, and `PluginError` for an error inside the build function; errors of
    Fluid's own family pass through with a note.
    """
    checked = component_options(installed, options, root=root)
    try:
        built = installed.component.build(checked, *context)
        contract = _protocol(installed.kind, built)
        missing = missing_members(built, contract)
    except FluidError as error:
        error.add_note(f"This happened while building the {installed}.")
        raise
    except Exception as error:
        raise PluginError(
            f"The {installed} could not be built: {type(error).__name__}: {error}. "
            f"If the options {checked!r} are right, report this to the authors of {installed.distribution}."
        ) from error
    if missing:
        raise InvalidComponentError(
            f"The {installed} is not valid: expected a {contract.__name__} (see "
            f"{contract.__module__}), found a value of type {type(built).__name__} without "
            f"{', '.join(missing)}."
        )
    return built


def _protocol(kind: str, built: object) -> type:
    """The contract for components of this kind, for data sets that of `built`'s form. Imports torch."""
    from fluid_core import protocols
    from fluid_core.data.captioned_images import CaptionedImages, CaptionedStream

    contracts: dict[str, type] = {
        "tokenizer": protocols.Tokenizer,
        "head": protocols.Head,
        "order": protocols.OrderPolicy,
        "text-encoder": protocols.TextEncoder,
        "dataset": CaptionedStream if hasattr(built, "samples") else CaptionedImages,
        "feature-network": protocols.FeatureNetwork,
    }
    return contracts[kind]


def missing_members(built: Any, protocol: type) -> list[str]:
    """Names of the protocol's attributes and methods that `built` lacks."""
    missing = []
    for name in sorted(get_protocol_members(protocol)):
        is_method = callable(getattr(protocol, name, None))
        if not hasattr(built, name):
            missing.append(f"the method '{name}'" if is_method else f"the attribute '{name}'")
        elif is_method and not callable(getattr(built, name)):
            missing.append(f"the method '{name}' (found a value of type {type(getattr(built, name)).__name__})")
    return missing
