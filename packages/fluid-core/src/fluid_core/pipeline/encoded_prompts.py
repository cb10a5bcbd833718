"""Reading prompts with the text encoder of a saved model before the model itself is loaded.

A pretrained encoder may be larger than the model it serves. Encoding first and loading then needs memory for the larger
of the two, in place of both.
"""

import gc
from collections.abc import Sequence
from pathlib import Path

import attrs
import torch
from torch import nn

from fluid_core.atomic_files import load_state, read_safetensors
from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.configuration import FluidConfig
from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import TextFeatures
from fluid_core.protocols import EncodesEmptyPrompt, TextEncoder
from fluid_core.saved_model import TEXT_ENCODER, WEIGHTS_FILE, read_index
from fluid_core.text.released_encoder import ReleasedTextEncoder


@attrs.frozen(kw_only=True, eq=False)
class EncodedPrompts:
    """What is left of prompts and their text encoder once the encoder is gone: all that drawing needs."""

    embeds: TextFeatures
    """For `prompt_embeds` of a call of the pipeline."""

    negative_embeds: TextFeatures | None
    """For `negative_prompt_embeds`; None if there were no negative prompts."""

    text_encoder: ReleasedTextEncoder
    """Takes the encoder's place in `load_model`."""


class PromptReader:
    """The text encoder of the model in `folder` and nothing else of it, on `device`, until it is released.

    Torch's global generator is left as it was. Raises `CheckpointError` for a missing or damaged folder,
    `CheckpointMismatchError` for weights of another encoder, and `UnknownComponentError` if a plugin is not installed.
    """

    def __init__(
        self, folder: str | Path, *, device: torch.device | str = "cpu", catalog: ComponentCatalog | None = None
    ) -> None:
        folder = Path(folder).expanduser()
        catalog = catalog or installed_components()
        index = read_index(folder, catalog)
        encoder = _text_encoder(folder, index.config, catalog).to(device)
        assert isinstance(encoder, TextEncoder)
        self._encoder: TextEncoder | None = encoder
        self._needs_empty_prompt = index.config.unconditional == "empty-prompt"

    def encode_prompts(self, prompts: str | Sequence[str]) -> TextFeatures:
        """The states that the whole model would have made, for `prompt_embeds` or `negative_prompt_embeds`.

        Raises `PromptError` for an empty prompt, or one that the encoder refuses.
        """
        with torch.no_grad():
            return self._present.encode([prompts] if isinstance(prompts, str) else list(prompts))

    def release(self) -> ReleasedTextEncoder:
        """Let the encoder go; what is returned takes its place in `load_model`. Its memory is free from here on."""
        encoder, empty_prompt = self._present, None
        if self._needs_empty_prompt and isinstance(encoder, EncodesEmptyPrompt):
            with torch.no_grad():
                empty_prompt = encoder.encode_empty()
        left = ReleasedTextEncoder(encoder, empty_prompt)
        self._encoder = None
        del encoder
        # Modules often refer to each other in circles, which are only freed when somebody looks for them.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return left

    @property
    def _present(self) -> TextEncoder:
        if self._encoder is None:
            raise InvalidRequestError("The text encoder was released. Make another PromptReader to encode more.")
        return self._encoder


def encode_prompts(
    folder: str | Path,
    prompts: str | Sequence[str],
    *,
    negative_prompts: str | Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    catalog: ComponentCatalog | None = None,
) -> EncodedPrompts:
    """Encode prompts with the text encoder of the model in `folder`, and let it go, in one call of a `PromptReader`.

    Raises what that raises.
    """
    reader = PromptReader(folder, device=device, catalog=catalog)
    embeds = reader.encode_prompts(prompts)
    negative = None if negative_prompts is None else reader.encode_prompts(negative_prompts)
    return EncodedPrompts(embeds=embeds, negative_embeds=negative, text_encoder=reader.release())


def _text_encoder(folder: Path, config: FluidConfig, catalog: ComponentCatalog) -> nn.Module:
    """The encoder with its own weights, or those in the model's folder if it trained with the model."""
    choice = config.text_encoder
    with torch.random.fork_rng(devices=[]):
        encoder = catalog.build("text-encoder", choice.name, choice.options, root="$.text_encoder.options")
    assert isinstance(encoder, nn.Module)
    if not encoder.frozen:
        source = folder / WEIGHTS_FILE
        tensors = read_safetensors(source, lambda name: name.startswith(TEXT_ENCODER))
        state = {name.removeprefix(TEXT_ENCODER): tensor for name, tensor in tensors.items()}
        load_state(encoder, state, source=str(source), expected=encoder.state_dict())
    return encoder.eval().requires_grad_(False)
