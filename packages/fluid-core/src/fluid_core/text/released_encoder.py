"""What stands in a model's place for a text encoder that was let go to save memory."""

from collections.abc import Sequence

from torch import nn

from fluid_core.errors import PromptError
from fluid_core.exchange import TextFeatures
from fluid_core.protocols import TextEncoder


class ReleasedTextEncoder(nn.Module):
    """Knows the shapes of the encoder that was there and the states of the empty prompt, and refuses prompts."""

    def __init__(self, encoder: TextEncoder, empty_prompt: TextFeatures | None) -> None:
        super().__init__()
        self.width, self.max_length, self.frozen = encoder.width, encoder.max_length, encoder.frozen
        self._empty_prompt = empty_prompt

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """Raises `PromptError`: there is nothing left to encode with."""
        raise PromptError(
            f"The text encoder was let go, so that {len(prompts)} prompts given as text can not be read. Pass "
            "prompt_embeds (and negative_prompt_embeds) made by encode_prompts before, or load the model anew."
        )

    def encode_empty(self) -> TextFeatures:
        """The states of the empty prompt that were kept. Raises `PromptError` if none were."""
        if self._empty_prompt is None:
            raise PromptError(
                "The text encoder was let go, and with it the empty prompt. Load the model anew to encode it."
            )
        return self._empty_prompt
