"""How to sample, and what is told about it on the way."""

import math
from collections.abc import Mapping
from typing import Any

import attrs
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplerBackend, SamplerSettings, sampler_backend
from fluid_core.guidance import GuidanceSchedule
from fluid_core.number_types import is_real_number


@attrs.frozen(kw_only=True)
class GenerationSettings:
    """How to sample. `num_steps` counts order steps, `num_head_steps` the head's evaluations per token; None is the
    default of the order or head. `temperature` is 0 or more. `head_backend` says which implementation of the head's
    sampler runs, and `head_options` replace options of the head for this generation, as `SamplerSettings` has them.
    """

    num_steps: int | None = None
    num_head_steps: int | None = None
    temperature: float = 1.0
    guidance: GuidanceSchedule = attrs.field(factory=GuidanceSchedule)
    head_backend: SamplerBackend = attrs.field(default=SamplerBackend.AUTO, converter=sampler_backend)
    head_options: Mapping[str, Any] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if not is_real_number(self.temperature) or not math.isfinite(self.temperature) or self.temperature < 0:
            raise InvalidRequestError(f"Expected a temperature of 0 or more, found {self.temperature!r}.")

    @property
    def sampler_settings(self) -> SamplerSettings:
        """What of it concerns the head's sampler."""
        return SamplerSettings(num_steps=self.num_head_steps, backend=self.head_backend, options=self.head_options)


@attrs.frozen(kw_only=True)
class GenerationProgress:
    """What a callback is told after each step."""

    step: int
    num_steps: int
    tokens: Shaped[Tensor, "batch length *token"]
    known: Bool[Tensor, "batch length"]
    kept: Int[Tensor, "batch kept"]
    """The positions that became known in this step, in the order in which a causal sequence takes them."""
