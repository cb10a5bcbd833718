"""A tokenizer in training, as a checkpoint sees it."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from fluid_core.atomic_files import check_state


class TrainedTokenizer:
    """Gives a checkpoint all parameters and buffers of a tokenizer, also the buffers that no state dict holds.

    Those are what its upkeep remembers between steps, such as which codes were used: needed to go on exactly, and
    nothing to save with a finished tokenizer.
    """

    def __init__(self, tokenizer: nn.Module) -> None:
        self._tokenizer = tokenizer

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter by name."""
        return self._tokenizer.named_parameters()

    def saved_state(self) -> dict[str, Tensor]:
        """Every parameter and buffer by name."""
        return {**dict(self._tokenizer.named_parameters()), **dict(self._tokenizer.named_buffers())}

    @torch.no_grad()
    def load_saved_state(self, state: Mapping[str, Tensor], *, source: str) -> None:
        """Take over such a state. Raises `CheckpointMismatchError`, before anything changes, for another's."""
        own = self.saved_state()
        check_state(state, own, source=source)
        for name, tensor in own.items():
            tensor.copy_(state[name])
