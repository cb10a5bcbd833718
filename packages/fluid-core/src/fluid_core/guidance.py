"""Classifier-free guidance: its scale as a function of how much of the image a step leaves known."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import attrs

from fluid_core.errors import InvalidRequestError
from fluid_core.number_types import is_real_number

GuidanceKind = Literal["constant", "linear", "cosine", "interval"]


@attrs.frozen(kw_only=True)
class GuidanceSchedule:
    """How far each step moves from the unconditional prediction towards the conditional one.

    `scale` 1 is the conditional prediction itself, 0 the unconditional one. With t the share of tokens that are known
    after a step, from 0 to 1:

    - `constant`: `scale` at every step;
    - `linear`: grows from 1 to `scale` with t, as MAR and Muse do: early tokens keep their diversity, late ones follow
      the text, and the last step reaches `scale` itself;
    - `cosine`: the same, along (1 - cos(pi * t)) / 2: slowly at first and at the end, fast in the middle;
    - `interval`: `scale` where `interval[0]` < t <= `interval[1]`, and no guidance elsewhere (the idea of
      Kynkaanniemi et al., arXiv 2404.07724, over tokens instead of noise levels). The unconditional prediction is not
      computed where it is not needed, except that a causal cache is kept current.

    Raises `InvalidRequestError` for a scale below 0, an unknown schedule, an interval that is none, and one that the
    schedule does not use.
    """

    scale: float = 1.0
    kind: GuidanceKind = "constant"
    interval: tuple[float, float] | None = None
    """Two shares of progress, 0 <= first < second <= 1: needed by `interval`, and by nothing else."""

    def __attrs_post_init__(self) -> None:
        if not is_real_number(self.scale) or not math.isfinite(self.scale) or self.scale < 0:
            raise InvalidRequestError(
                f"Expected a guidance scale of 0 or more, found {self.scale!r}. Use 1 for no guidance."
            )
        if self.kind not in get_args(GuidanceKind):
            *others, last = (repr(kind) for kind in get_args(GuidanceKind))
            raise InvalidRequestError(
                f"Expected a guidance schedule {', '.join(others)} or {last}, found {self.kind!r}."
            )
        if self.kind != "interval" and self.interval is not None:
            raise InvalidRequestError(
                f"A guidance interval has no meaning in the schedule {self.kind!r}, found {self.interval}. Leave it "
                "out, or choose the schedule 'interval'."
            )
        if self.kind == "interval" and not _is_interval(self.interval):
            raise InvalidRequestError(
                "The guidance schedule 'interval' needs an interval of two shares of progress, from 0 to 1 and "
                f"increasing, such as (0.2, 0.8); found {self.interval}."
            )

    @property
    def active(self) -> bool:
        """Whether the unconditional prediction is needed at all."""
        return self.scale != 1.0

    def on(self, share_after: float) -> bool:
        """Whether the step after which the share `share_after` of the tokens is known needs it."""
        return self.active and (self.interval is None or self.interval[0] < share_after <= self.interval[1])

    def at(self, share_after: float) -> float:
        """Scale of the step after which the share `share_after` (0 to 1) of the image's tokens is known."""
        if self.kind == "linear":
            return 1.0 + (self.scale - 1.0) * share_after
        if self.kind == "cosine":
            return 1.0 + (self.scale - 1.0) * (1.0 - math.cos(math.pi * share_after)) / 2.0
        return self.scale if self.interval is None or self.on(share_after) else 1.0


def _is_interval(value: Any) -> bool:
    whole = isinstance(value, Sequence) and len(value) == 2 and all(is_real_number(share) for share in value)
    return whole and 0.0 <= value[0] < value[1] <= 1.0
