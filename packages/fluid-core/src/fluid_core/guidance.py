"""Classifier-free guidance: its scale as a function of how much of the image a step leaves known."""

import math
from typing import Literal

import attrs

from fluid_core.errors import InvalidRequestError

GuidanceKind = Literal["constant", "linear"]


@attrs.frozen(kw_only=True)
class GuidanceSchedule:
    """How far each step moves from the unconditional prediction towards the conditional one.

    `scale` 1 is the conditional prediction itself, 0 the unconditional one. `linear` grows from 1 to `scale` with the
    share of tokens that are known after the step, as MAR and Muse do: early tokens keep their diversity, late ones
    follow the text, and the last step reaches `scale` itself.
    """

    scale: float = 1.0
    kind: GuidanceKind = "constant"

    def __attrs_post_init__(self) -> None:
        if not math.isfinite(self.scale) or self.scale < 0:
            raise InvalidRequestError(
                f"Expected a guidance scale of 0 or more, found {self.scale}. Use 1 for no guidance."
            )
        if self.kind not in ("constant", "linear"):
            raise InvalidRequestError(f"Expected a guidance schedule 'constant' or 'linear', found {self.kind!r}.")

    @property
    def active(self) -> bool:
        """Whether the unconditional prediction is needed at all."""
        return self.scale != 1.0

    def at(self, share_after: float) -> float:
        """Scale of the step after which the share `share_after` (0 to 1) of the image's tokens is known."""
        if self.kind == "linear":
            return 1.0 + (self.scale - 1.0) * share_after
        return self.scale
