"""Keys and values of tokens already committed to a causal sequence."""

import torch
from jaxtyping import Float
from torch import Tensor


class KeyValueCache:
    """Preallocated keys and values of one attention layer, filled from the front.

    `capacity` is the longest sequence it will hold, questions included. Committed rows never change.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        num_heads: int,
        capacity: int,
        head_width: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        shape = (batch_size, num_heads, capacity, head_width)
        self._keys = torch.empty(shape, device=device, dtype=dtype)
        self._values = torch.empty(shape, device=device, dtype=dtype)
        self.length = 0

    def add(
        self,
        keys: Float[Tensor, "batch heads rows head_width"],
        values: Float[Tensor, "batch heads rows head_width"],
        *,
        num_committed: int,
    ) -> tuple[Float[Tensor, "batch heads _ head_width"], Float[Tensor, "batch heads _ head_width"]]:
        """Commit the first `num_committed` rows. Returns keys and values of what was committed before and all rows.

        The other rows stand in the memory behind the committed ones, where the next call overwrites them.
        """
        end = self.length + keys.shape[2]
        assert end <= self._keys.shape[2], f"cache of {self._keys.shape[2]} rows can not take row {end}"
        self._keys[:, :, self.length : end] = keys
        self._values[:, :, self.length : end] = values
        self.length += num_committed
        return self._keys[:, :, :end], self._values[:, :, :end]

    def forget_last(self) -> None:
        """Take back the row that was committed last."""
        assert self.length > 0, "an empty cache has no row to forget"
        self.length -= 1
