"""`FluidPipeline`: prompts in, images out; saved to a folder and loaded from one.

Arguments follow the habits of diffusers pipelines. `num_inference_steps` counts order steps, `num_head_steps` the
evaluations of an iterative head per token. `head_backend` and `head_options` choose the implementation of the head's
sampler and change its options, for one call.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor

from fluid_core.errors import InvalidRequestError, PromptError
from fluid_core.exchange import SamplerBackend, TextFeatures
from fluid_core.generation import GenerationProgress, GenerationSettings, check_order, generate
from fluid_core.given_text import GivenText
from fluid_core.guidance import GuidanceKind, GuidanceSchedule
from fluid_core.keyed_random import KeyedRandom
from fluid_core.model import FluidModel
from fluid_core.protocols import OrderPolicy
from fluid_core.sampler_choice import build_sampler
from fluid_core.text.text_aligner import AlignedText

if TYPE_CHECKING:
    from fluid_core.catalog import ComponentCatalog

OutputType = Literal["pil", "np", "pt", "tokens"]


@attrs.frozen(kw_only=True)
class PipelineOutput:
    """What a call returns.

    `images` are PIL images, an array `images height width 3` or a tensor `images 3 height width` with values in [0, 1],
    or None where only tokens were asked for. `tokens` are always there.
    """

    images: Any
    tokens: Shaped[Tensor, "images length *token"]
    seeds: tuple[int, ...]
    """Seed of each image: the same seed, prompt and settings give the same image, whatever else is in the batch."""

    head_backend: SamplerBackend
    """Which implementation of the head's sampler ran: `reference` or `fused`."""


class FluidPipeline:
    """A model ready to draw pictures for prompts."""

    def __init__(self, model: FluidModel, *, weights: str = "raw") -> None:
        self.model = model.eval()
        self.weights = weights
        """Which weights these are: `ema` (the moving average of training) or `raw`."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def to(self, device: torch.device | str) -> "FluidPipeline":
        """Move the model."""
        self.model.to(device)
        return self

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        prompt_embeds: TextFeatures | None = None,
        negative_prompt_embeds: TextFeatures | None = None,
        num_inference_steps: int | None = None,
        num_head_steps: int | None = None,
        head_backend: str | SamplerBackend = SamplerBackend.AUTO,
        head_options: Mapping[str, Any] | None = None,
        guidance_scale: float = 1.0,
        guidance_schedule: GuidanceKind = "constant",
        guidance_interval: tuple[float, float] | None = None,
        temperature: float = 1.0,
        num_images_per_prompt: int = 1,
        seed: int | Sequence[int] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        order: OrderPolicy | None = None,
        output_type: OutputType = "pil",
        callback_on_step_end: Callable[[GenerationProgress], None] | None = None,
    ) -> PipelineOutput:
        """Images for each prompt, `num_images_per_prompt` in a row.

        In place of prompts come `prompt_embeds`, and of negative prompts `negative_prompt_embeds`: what
        `encode_prompts` made of them, with the same result.

        Randomness: `seed` is one integer, from which every image gets a seed of its own by its place in the result, or
        a list with one seed per image; `generator` (one or a list) draws them instead; with neither they differ from
        call to call and are reported in `seeds`. `guidance_scale` 1 means no guidance; `guidance_schedule` and
        `guidance_interval` say where in the course of an image it acts (`GuidanceSchedule`).

        `head_backend` is `auto` (a fused sampler of the head where there is one), `reference` or `fused`; what ran is
        reported. `head_options` replace, for this call, options the head was built with: those it names in
        `sampling_options`, such as `{"top_k": 50}` of a softmax head.

        Raises `PromptError` for an empty prompt, an overlong one if the text encoder refuses those, and a prompt after
        `release_text_encoder`; `InvalidRequestError` for settings that have no meaning,
        and `IncompatibleComponentsError` for an `order` that the model was not trained for or the head does not fit.
        """
        wanted = GivenText.of(prompt, prompt_embeds, name="prompt", width=self.model.text_encoder.width)
        unwanted = GivenText.of(
            negative_prompt,
            negative_prompt_embeds,
            name="negative_prompt",
            width=self.model.text_encoder.width,
            num_prompts=None if wanted is None else wanted.num_prompts,
        )
        if wanted is None:
            raise PromptError("Expected a prompt, or prompt_embeds, found neither.")
        if num_images_per_prompt < 1:
            raise InvalidRequestError(f"Expected num_images_per_prompt of 1 or more, found {num_images_per_prompt}.")
        if output_type not in ("pil", "np", "pt", "tokens"):
            raise InvalidRequestError(f"Expected output_type 'pil', 'np', 'pt' or 'tokens', found {output_type!r}.")
        settings = GenerationSettings(
            num_steps=num_inference_steps,
            num_head_steps=num_head_steps,
            head_backend=head_backend,
            head_options=head_options or {},
            temperature=temperature,
            guidance=GuidanceSchedule(scale=guidance_scale, kind=guidance_schedule, interval=guidance_interval),
        )
        seeds = _seeds(wanted.num_prompts * num_images_per_prompt, seed, generator)
        check_order(self.model, order or self.model.order)
        with torch.no_grad():
            # Before the text, which may take seconds to encode: what the head refuses is refused at once.
            sampler = build_sampler(
                self.model.head,  # type: ignore[arg-type]
                settings.sampler_settings,
                order=order or self.model.order,
            )
            text = self._aligned(wanted, len(seeds))
            negative = self._aligned(unwanted, len(seeds)) if unwanted and settings.guidance.active else None
            tokens = generate(
                self.model,
                text,
                negative=negative,
                random=KeyedRandom(torch.tensor(seeds, device=self.device)),
                settings=settings,
                order=order,
                sampler=sampler,
                callback=callback_on_step_end,
            )
            images = None if output_type == "tokens" else self.decode(tokens)
        return PipelineOutput(
            images=_as(images, output_type), tokens=tokens, seeds=tuple(seeds), head_backend=sampler.backend
        )

    def _aligned(self, given: GivenText, count: int) -> AlignedText:
        """Text as the backbone sees it, each row repeated in place for `count` images: it is encoded once."""
        features = given.features(self.model)
        aligned: AlignedText = self.model.aligner(features)
        times = count // given.num_prompts
        return AlignedText(
            states=aligned.states.repeat_interleave(times, 0), mask=aligned.mask.repeat_interleave(times, 0)
        )

    def encode_prompts(self, prompts: str | Sequence[str]) -> TextFeatures:
        """The text encoder's states of prompts, to hand to a call as `prompt_embeds` or `negative_prompt_embeds`.

        Raises `PromptError` for an empty prompt, or one that the encoder refuses.
        """
        with torch.no_grad():
            return self.model.encode_text([prompts] if isinstance(prompts, str) else list(prompts))

    def release_text_encoder(self) -> "FluidPipeline":
        """Let the text encoder go where memory is short: it is needed no more once all prompts are encoded.

        From then on calls take `prompt_embeds` alone, and refuse prompts with a `PromptError`. A model whose text
        encoder was frozen can still be saved, since a saved model only names it.
        """
        self.model.release_text_encoder()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self

    def decode(self, tokens: Shaped[Tensor, "images length *token"]) -> Float[Tensor, "images 3 height width"]:
        """Images in [0, 1] of tokens."""
        with torch.no_grad():
            decoded: Tensor = self.model.tokenizer.decode(tokens)
        return ((decoded.float() + 1.0) / 2.0).clamp(0.0, 1.0)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model to a folder of safetensors and JSON: whole, or not at all.

        Raises `CheckpointError` for a folder that holds anything but a saved model, and for a model put together from
        objects, since a folder can only name components.
        """
        from fluid_core.saved_model import save_model

        save_model(self.model, Path(folder), weights=self.weights)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, catalog: "ComponentCatalog | None" = None) -> "FluidPipeline":
        """Load what `save_pretrained`, or a training run, wrote.

        Raises `CheckpointError` for a missing or damaged folder, and `UnknownComponentError` if a component's plugin is
        not installed, naming the distribution that provided it.
        """
        from fluid_core.saved_model import load_model

        model, weights = load_model(Path(folder), catalog)
        return cls(model, weights=weights)


def _seeds(
    count: int,
    seed: int | Sequence[int] | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> list[int]:
    if seed is not None and generator is not None:
        raise InvalidRequestError("Expected seed or generator, found both. Leave one of them out.")
    if isinstance(seed, Sequence):
        seeds = [int(value) for value in seed]
        if len(seeds) != count:
            raise InvalidRequestError(f"Expected one seed per image ({count}), found {len(seeds)}.")
        if any(not 0 <= value < 2**63 for value in seeds):
            raise InvalidRequestError("Expected seeds from 0 to 2^63 - 1.")
        return seeds
    if isinstance(generator, Sequence):
        if len(generator) != count:
            raise InvalidRequestError(f"Expected one generator per image ({count}), found {len(generator)}.")
        return [_draw_seed(one) for one in generator]
    if seed is not None and not 0 <= seed < 2**63:
        raise InvalidRequestError(f"Expected a seed from 0 to 2^63 - 1, found {seed}.")
    if generator is None:
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
    return [_draw_seed(generator) for _ in range(count)]


def _draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))


def to_pil(images: Float[Tensor, "images 3 height width"]) -> list[Image.Image]:
    """PIL images of pictures with values in [0, 1]."""
    array = images.permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(pixels) for pixels in (array * 255.0).round().astype(np.uint8)]


def _as(images: Tensor | None, output_type: OutputType) -> Any:
    if images is None or output_type == "pt":
        return images
    return to_pil(images) if output_type == "pil" else images.permute(0, 2, 3, 1).cpu().numpy()
