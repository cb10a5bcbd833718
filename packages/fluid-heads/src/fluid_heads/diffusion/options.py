"""Options of the diffusion head; loads no torch."""

from typing import Any

import attrs
from attrs.validators import ge, gt, instance_of, le, optional

NUM_TIMESTEPS = 1000
"""Length of the diffusion process that heads are trained on: timesteps run from 0 to 999 (paper, section 3)."""


@attrs.frozen(kw_only=True)
class DiffusionOptions:
    """How the diffusion head is built, trained and sampled.

    Raises `ValueError` or `TypeError` for values out of range or of a wrong type.
    """

    width: int | None = attrs.field(default=None, validator=optional([instance_of(int), ge(1)]))
    """Width of the denoising network; None is the width of the backbone, as in the paper."""

    depth: int = attrs.field(default=6, validator=[instance_of(int), ge(1)])
    """Number of residual blocks (six in the paper)."""

    timesteps_per_token: int = attrs.field(default=4, validator=[instance_of(int), ge(1)])
    """How many timesteps, each with noise of its own, one hidden vector is trained on at a time."""

    num_sampling_steps: int = attrs.field(default=100, validator=[instance_of(int), ge(1), le(NUM_TIMESTEPS)])
    """Steps of the reverse process, unless a request says otherwise."""

    first_timestep: int = attrs.field(default=980, validator=[instance_of(int), ge(0), le(NUM_TIMESTEPS - 1)])
    token_limit: float | None = attrs.field(default=None, validator=optional(gt(0.0)))

    @classmethod
    def predecessor(cls, **others: Any) -> "DiffusionOptions":
        """The predecessor's sampling: from the very last timestep, with no limit. `others` are further options."""
        return cls(**{"first_timestep": NUM_TIMESTEPS - 1, "token_limit": None, **others})
