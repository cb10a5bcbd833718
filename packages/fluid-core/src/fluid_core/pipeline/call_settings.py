"""What every call of a pipeline takes besides what it is to draw: the same for new pictures and for changed ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import attrs
import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplerBackend, TextFeatures
from fluid_core.generation import GenerationProgress, GenerationSettings
from fluid_core.guidance import GuidanceKind, GuidanceSchedule
from fluid_core.number_types import is_whole_number
from fluid_core.pipeline.image_seeds import GivenSeed
from fluid_core.protocols import OrderPolicy

OutputType = Literal["pil", "np", "pt", "tokens"]
"""PIL images, an array `images height width 3`, a tensor `images 3 height width`, or nothing but tokens."""


class CallArguments(TypedDict, total=False):
    """The keyword arguments that all calls share; `CallSettings` says what each of them means."""

    negative_prompt: str | Sequence[str] | None
    prompt_embeds: TextFeatures | None
    negative_prompt_embeds: TextFeatures | None
    num_inference_steps: int | None
    num_head_steps: int | None
    head_backend: str | SamplerBackend
    head_options: Mapping[str, Any] | None
    guidance_scale: float
    guidance_schedule: GuidanceKind
    guidance_interval: tuple[float, float] | None
    temperature: float
    num_images_per_prompt: int
    seed: GivenSeed | None
    generator: torch.Generator | Sequence[torch.Generator] | None
    order: OrderPolicy | None
    output_type: OutputType
    callback_on_step_end: Callable[[GenerationProgress], None] | None


@attrs.frozen(kw_only=True)
class CallSettings:
    """How to draw. Raises `InvalidRequestError` for settings that have no meaning whatever the model."""

    negative_prompt: str | Sequence[str] | None = None
    """One for all prompts, or one for each; used where guidance is. An empty one is as good as none."""

    prompt_embeds: TextFeatures | None = None
    """What `encode_prompts` made of prompts, in their place."""

    negative_prompt_embeds: TextFeatures | None = None
    """The same for negative prompts."""

    num_inference_steps: int | None = None
    """Steps of the order; None for its own default."""

    num_head_steps: int | None = None
    """Steps of an iterative head for each token; None for its own default."""

    head_backend: str | SamplerBackend = SamplerBackend.AUTO
    """`auto` (a fused sampler of the head where there is one), `reference` or `fused`."""

    head_options: Mapping[str, Any] | None = None
    """Options of the head that are replaced for this call."""

    guidance_scale: float = 1.0
    """1 means no guidance."""

    guidance_schedule: GuidanceKind = "constant"
    """Where in the course of an image guidance acts (`GuidanceSchedule`)."""

    guidance_interval: tuple[float, float] | None = None
    """Shares of progress, for the schedule `interval`."""

    temperature: float = 1.0
    """0 or more; 1 samples what was learned."""

    num_images_per_prompt: int = 1
    """Images of each prompt, which stand in a row in the result."""

    seed: GivenSeed | None = None
    """One integer, from which every image gets a seed of its own by its place, or one seed for each image."""

    generator: torch.Generator | Sequence[torch.Generator] | None = None
    """One that draws the seeds, or one for each image."""

    order: OrderPolicy | None = None
    """In place of the model's own."""

    output_type: OutputType = "pil"
    """What `images` of the result are."""

    callback_on_step_end: Callable[[GenerationProgress], None] | None = None
    """Told the state after each step."""

    def __attrs_post_init__(self) -> None:
        _check_count("num_inference_steps", self.num_inference_steps)
        _check_count("num_head_steps", self.num_head_steps)
        _check_count("num_images_per_prompt", self.num_images_per_prompt, may_be_none=False)
        if self.order is not None and (isinstance(self.order, type) or not isinstance(self.order, OrderPolicy)):
            raise InvalidRequestError(f"Expected an order as an object, such as HaltonOrder(), found {self.order!r}.")
        if self.callback_on_step_end is not None and not callable(self.callback_on_step_end):
            raise InvalidRequestError(
                f"Expected callback_on_step_end as a function, found {self.callback_on_step_end!r}."
            )
        if self.output_type not in ("pil", "np", "pt", "tokens"):
            raise InvalidRequestError(
                f"Expected output_type 'pil', 'np', 'pt' or 'tokens', found {self.output_type!r}."
            )

    def generation(self) -> GenerationSettings:
        """What of it the sampling loop takes. Raises `InvalidRequestError` for values out of range."""
        return GenerationSettings(
            num_steps=self.num_inference_steps,
            num_head_steps=self.num_head_steps,
            head_backend=self.head_backend,
            head_options=self.head_options or {},
            temperature=self.temperature,
            guidance=GuidanceSchedule(
                scale=self.guidance_scale, kind=self.guidance_schedule, interval=self.guidance_interval
            ),
        )


def _check_count(name: str, value: Any, *, may_be_none: bool = True) -> None:
    if (value is not None or not may_be_none) and (not is_whole_number(value) or value < 1):
        raise InvalidRequestError(f"Expected {name} as a whole number of 1 or more, found {value!r}.")
