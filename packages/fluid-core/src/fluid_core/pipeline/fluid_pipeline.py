"""`FluidPipeline`: prompts in, images out; saved to a folder and loaded from one.

Arguments follow the habits of diffusers pipelines. `num_inference_steps` counts order steps, `num_head_steps` the
evaluations of an iterative head per token. `head_backend` and `head_options` choose the implementation of the head's
sampler and change its options, for one call.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fluid_core.editing.canvas import Canvases, ImageBox, inpainting_canvases, outpainting_canvases, whole_canvases
from fluid_core.editing.edit import check_editable, draw_edit, draw_variation
from fluid_core.editing.given_pictures import GivenMask, GivenPicture
from fluid_core.editing.kept_pixels import check_blend, with_kept_pixels
from fluid_core.editing.kept_tokens import KeptTokens
from fluid_core.editing.picture_fitting import Fit, check_fit
from fluid_core.editing.token_areas import pixels_of_tokens
from fluid_core.evaluation_mode import evaluation_mode
from fluid_core.exchange import SamplerBackend, TextFeatures
from fluid_core.generation import GenerationProgress
from fluid_core.guidance import GuidanceKind
from fluid_core.model import FluidModel
from fluid_core.model_folder import model_folder
from fluid_core.pipeline.call_settings import CallArguments, CallSettings, OutputType
from fluid_core.pipeline.drawing import prepare_drawing
from fluid_core.pipeline.image_seeds import GivenSeed
from fluid_core.pipeline.model_placement import move_model
from fluid_core.pipeline.output import PipelineOutput, pipeline_output
from fluid_core.protocols import OrderPolicy

if TYPE_CHECKING:
    from fluid_core.catalog import ComponentCatalog

UNKNOWN_GREY = 0.5
"""What a preview shows where nothing is known yet."""


class FluidPipeline:
    """A model ready to draw pictures for prompts.

    The model evaluates from then on. If it is put back to training, calls of the pipeline evaluate all the same, and
    leave it as they found it.
    """

    def __init__(self, model: FluidModel, *, weights: str = "raw") -> None:
        self.model = model.eval()
        self.weights = weights
        """Which weights these are: `ema` (the moving average of training) or `raw`."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights; statistics of a tokenizer stay in single precision whatever it is."""
        return self.model.token_embedding.placeholder.dtype

    def to(
        self,
        *args: torch.device | str | int | torch.dtype,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> "FluidPipeline":
        """Move the model to a device, or cast its weights, or both, in any order: `to("cuda", torch.bfloat16)`.

        Raises `InvalidRequestError` for a type that is not floating, and for float16 with a pretrained text encoder,
        which overflows in it.
        """
        move_model(self.model, *args, device=device, dtype=dtype)
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
        seed: GivenSeed | None = None,
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
        settings = CallSettings(
            negative_prompt=negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            num_inference_steps=num_inference_steps,
            num_head_steps=num_head_steps,
            head_backend=head_backend,
            head_options=head_options,
            guidance_scale=guidance_scale,
            guidance_schedule=guidance_schedule,
            guidance_interval=guidance_interval,
            temperature=temperature,
            num_images_per_prompt=num_images_per_prompt,
            seed=seed,
            generator=generator,
            order=order,
            output_type=output_type,
            callback_on_step_end=callback_on_step_end,
        )
        drawing = prepare_drawing(self.model, prompt, settings)
        tokens = drawing.tokens()
        images = None if output_type == "tokens" else self.decode(tokens)
        return pipeline_output(drawing, tokens, images, output_type)

    def inpaint(
        self,
        prompt: str | Sequence[str] | None,
        image: GivenPicture | list[GivenPicture],
        mask: GivenMask | list[GivenMask],
        *,
        fit: Fit = "exact",
        blend: int = 0,
        **settings: Unpack[CallArguments],
    ) -> PipelineOutput:
        """Pictures drawn anew where `mask` is white, True or 1, and kept to the pixel elsewhere.

        Every token with a white pixel in its area is drawn; all others are the tokenizer's own of the picture, in which
        what lies under the mask was painted over before. Pictures of another size than the model's are resized with
        their masks; of other proportions they are refused unless `fit` is `crop` or `stretch`. `blend` eases the seam
        over so many pixels of its drawn side. Several pictures, masks and prompts go together one by one. Without a
        prompt the model follows the picture alone. All of the mask white is the same as a call without a picture.

        `settings` are the arguments of a call, `num_inference_steps` being at most the number of tokens to draw.

        Raises what a call does, `InvalidRequestError` for pictures and masks that can not be used, with a mask that
        leaves nothing to draw among them, and `IncompatibleComponentsError` for a model over one fixed order.
        """
        wanted = CallSettings(**settings)
        check_editable(self.model, wanted.order)
        check_fit(fit)
        canvases = inpainting_canvases(image, mask, image_size=self.model.tokenizer.image_size, fit=fit)
        return self._edited(prompt, canvases, blend, wanted)

    def outpaint(
        self,
        prompt: str | Sequence[str] | None,
        image: GivenPicture | list[GivenPicture],
        box: ImageBox,
        *,
        fit: Fit = "exact",
        blend: int = 0,
        **settings: Unpack[CallArguments],
    ) -> PipelineOutput:
        """Pictures continued beyond their edges: `image` is resized into `box`, and all around it is drawn.

        `box` is (left, top, right, bottom) in pixels of the result. Everything else is as for `inpaint`; `fit` is about
        the proportions of the box.
        """
        wanted = CallSettings(**settings)
        check_editable(self.model, wanted.order)
        check_fit(fit)
        canvases = outpainting_canvases(image, box, image_size=self.model.tokenizer.image_size, fit=fit)
        return self._edited(prompt, canvases, blend, wanted)

    def variation(
        self,
        image: GivenPicture | list[GivenPicture],
        prompt: str | Sequence[str] | None = None,
        *,
        keep: KeptTokens = 0.3,
        fit: Fit = "exact",
        **settings: Unpack[CallArguments],
    ) -> PipelineOutput:
        """Pictures that share some tokens with `image`: a share `keep` of them, spread by chance, or those named.

        `keep` is from 0 to less than 1, and which tokens that are depends on the seed; or it says True or False for
        each token, `rows columns` or `pictures rows columns`. The picture is encoded as a whole and decoded as a whole.
        Everything else is as for `inpaint`.
        """
        wanted = CallSettings(**settings)
        check_editable(self.model, wanted.order)
        check_fit(fit)
        pictures = whole_canvases(image, image_size=self.model.tokenizer.image_size, fit=fit)
        edited = draw_variation(self.model, prompt, pictures, keep, wanted)
        images = None if wanted.output_type == "tokens" else self.decode(edited.tokens)
        return pipeline_output(edited.drawing, edited.tokens, images, wanted.output_type)

    def _edited(
        self, prompt: str | Sequence[str] | None, canvases: Canvases, blend: int, settings: CallSettings
    ) -> PipelineOutput:
        check_blend(blend)
        edited = draw_edit(self.model, prompt, canvases, settings)
        if settings.output_type == "tokens":
            return pipeline_output(edited.drawing, edited.tokens, None, "tokens")
        times = len(edited.tokens) // len(canvases.pictures)
        kept = canvases.pictures.repeat_interleave(times, 0).to(self.device)
        drawn = canvases.drawn.repeat_interleave(times, 0).to(self.device)
        images = with_kept_pixels(self.decode(edited.tokens), kept, drawn, blend=blend)
        return pipeline_output(edited.drawing, edited.tokens, images, settings.output_type)

    def encode_prompts(self, prompts: str | Sequence[str]) -> TextFeatures:
        """The text encoder's states of prompts, to hand to a call as `prompt_embeds` or `negative_prompt_embeds`.

        Raises `PromptError` for an empty prompt, or one that the encoder refuses.
        """
        with torch.no_grad(), evaluation_mode(self.model):
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

    def preview(self, progress: GenerationProgress) -> Float[Tensor, "images 3 height width"]:
        """What is there after a step, as a callback is told: images in [0, 1], grey where tokens are still unknown."""
        tokenizer = self.model.tokenizer
        unknown = pixels_of_tokens(~progress.known, tokenizer.token_space.grid, tokenizer.image_size)
        return torch.where(unknown[:, None], UNKNOWN_GREY, self.decode(progress.tokens))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model to a folder of safetensors and JSON: whole, or not at all.

        Raises `CheckpointError` for a folder that holds anything but a saved model, and for a model put together from
        objects, since a folder can only name components.
        """
        from fluid_core.saved_model import save_model

        save_model(self.model, Path(folder), weights=self.weights)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        catalog: "ComponentCatalog | None" = None,
    ) -> "FluidPipeline":
        """Load what `save_pretrained`, or a training run, wrote, in float32 on the CPU unless said otherwise.

        Raises `InvalidRequestError` as `to` does, `CheckpointError` for a missing or damaged folder and for a run that
        has not finished, and `UnknownComponentError` if a component's plugin is not installed, naming the distribution
        that provided it.
        """
        from fluid_core.saved_model import load_model

        model, weights = load_model(model_folder(Path(folder).expanduser()), catalog)
        pipeline = cls(model, weights=weights)
        return pipeline if device is None and dtype is None else pipeline.to(device=device, dtype=dtype)
