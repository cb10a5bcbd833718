"""Sampling options replaced for one generation."""

from typing import Any, TypeVar

import attrs

from fluid_core.errors import InvalidRequestError, did_you_mean
from fluid_core.exchange import SamplerSettings

Options = TypeVar("Options", bound=Any)


def with_overrides(options: Options, settings: SamplerSettings, *, adjustable: frozenset[str]) -> Options:
    """`options` with those in `settings.options` replaced, validated as if the head had been built with them.

    Raises `InvalidRequestError` for a name outside `adjustable` and for a value the options refuse.
    """
    for name in settings.options:
        if name not in adjustable:
            raise InvalidRequestError(
                f"'{name}' can not be changed when sampling.{did_you_mean(name, sorted(adjustable))} "
                f"This head takes {', '.join(sorted(adjustable)) or 'no options'}."
            )
    try:
        return attrs.evolve(options, **settings.options)
    except (TypeError, ValueError) as error:
        # Validators of attrs append the attribute, the value and more to their message.
        raise InvalidRequestError(f"The head refused its sampling options: {next(iter(error.args), error)}.") from error
