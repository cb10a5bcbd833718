"""A text encoder that sees letters."""

from collections.abc import Sequence

import torch
from torch import nn

from fluid_core.errors import PromptError
from fluid_core.exchange import TextFeatures

_NUM_CODES = 128


class TinyTextEncoder(nn.Module):
    """One state per character: the embedding of its code point (modulo 128), and of its place.

    Raises `PromptError` for an empty prompt, or one of more than `max_length` characters.
    """

    frozen = False

    def __init__(self, *, width: int = 8, max_length: int = 64) -> None:
        super().__init__()
        self.width, self.max_length = width, max_length
        self.letters = nn.Embedding(_NUM_CODES, width)
        self.places = nn.Embedding(max_length, width)

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """States `batch text_length width`, zero where `mask` is False."""
        if not prompts or any(not prompt.strip() for prompt in prompts):
            raise PromptError("Expected prompts that say something, found an empty one.")
        longest = max(len(prompt) for prompt in prompts)
        if longest > self.max_length:
            raise PromptError(
                f"Expected prompts of at most {self.max_length} characters, found {longest}. Shorten the prompt."
            )
        device = self.letters.weight.device
        codes = [[ord(letter) % _NUM_CODES for letter in prompt] for prompt in prompts]
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in codes], device=device)
        lengths = torch.tensor([len(row) for row in codes], device=device)
        mask = torch.arange(longest, device=device) < lengths[:, None]
        states = (self.letters(ids) + self.places.weight[:longest]) * mask[:, :, None]
        return TextFeatures(states=states, mask=mask)
