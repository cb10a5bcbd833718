"""Preparing a head's sampler for one generation: settings it can not honour are refused, and what runs is known."""

import attrs

from fluid_core.errors import (
    IncompatibleComponentsError,
    InvalidComponentError,
    InvalidRequestError,
    did_you_mean,
    listing,
)
from fluid_core.exchange import SamplerBackend, SamplerSettings
from fluid_core.protocols import (
    AdjustableSampling,
    ConfidentHead,
    Head,
    OrderPolicy,
    ReportsBackend,
    Sampler,
    UsesConfidence,
)


@attrs.frozen(kw_only=True)
class ChosenSampler:
    """A sampler, and which implementation it is: `reference` or `fused`."""

    sampler: Sampler
    backend: SamplerBackend


def build_sampler(head: Head, settings: SamplerSettings, *, order: OrderPolicy | None = None) -> ChosenSampler:
    """The head's sampler for `settings`: one that tells its confidence where `order` uses it and the head can.

    Raises `InvalidRequestError` for options that the head does not name as adjustable, for settings that the head
    refuses, and where `fused` is asked for and the head has no fused sampler. Raises `InvalidComponentError` for a
    sampler that reports a backend other than the two, or another than was asked for.
    """
    _check_options(head, settings)
    confident = _confident_head(head, order)
    sampler = head.sampler(settings) if confident is None else confident.confident_sampler(settings)
    backend = _backend_of(sampler, head)
    if settings.backend is SamplerBackend.FUSED and backend is not SamplerBackend.FUSED:
        raise InvalidRequestError(
            f"{type(head).__name__} has no fused sampler for this request. Ask for the backend 'auto', which takes a "
            "fused sampler where there is one."
        )
    if settings.backend is SamplerBackend.REFERENCE and backend is not SamplerBackend.REFERENCE:
        raise InvalidComponentError(
            f"{type(head).__name__} was asked for its reference sampler and gave one that reports '{backend}'. "
            "Report this to the authors of the head."
        )
    return ChosenSampler(sampler=sampler, backend=backend)


def check_confidence(order: OrderPolicy, head: Head) -> None:
    """Raise `IncompatibleComponentsError` for an order that needs to know how sure a head is which can not tell."""
    if isinstance(order, UsesConfidence) and order.needs_confidence and not isinstance(head, ConfidentHead):
        raise IncompatibleComponentsError(
            f"The order {type(order).__name__} needs a head that can tell how sure it is of each token, and "
            f"{type(head).__name__} can not: choose another order, or a head such as a softmax over ids."
        )


def _confident_head(head: object, order: object) -> ConfidentHead | None:
    """The head, if it can tell how sure it is and the order uses that."""
    return head if isinstance(order, UsesConfidence) and isinstance(head, ConfidentHead) else None


def _check_options(head: Head, settings: SamplerSettings) -> None:
    """Raise `InvalidRequestError` for options that `head` does not take when sampling."""
    known = head.sampling_options if isinstance(head, AdjustableSampling) else frozenset()
    unknown = sorted(map(str, set(settings.options) - known))
    if not unknown:
        return
    if not known:
        raise InvalidRequestError(
            f"{type(head).__name__} has no options that can be changed when sampling, found {listing(unknown)}. Leave "
            "out the options of the head."
        )
    raise InvalidRequestError(
        f"{type(head).__name__} can not change '{unknown[0]}' when sampling.{did_you_mean(unknown[0], known)} It takes "
        f"{listing(known)}."
    )


def _backend_of(sampler: Sampler, head: Head) -> SamplerBackend:
    """What `sampler` says that it runs: its reference if it says nothing."""
    if not isinstance(sampler, ReportsBackend):
        return SamplerBackend.REFERENCE
    if sampler.backend not in (SamplerBackend.REFERENCE, SamplerBackend.FUSED):
        raise InvalidComponentError(
            f"The sampler of {type(head).__name__} reports the backend {sampler.backend!r}, expected 'reference' or "
            "'fused'. Report this to the authors of the head."
        )
    return SamplerBackend(sampler.backend)
