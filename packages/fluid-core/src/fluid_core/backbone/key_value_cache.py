"""Keys and values of tokens already committed to a causal sequence."""

import torch
from jaxtyping import Float
from torch import Tensor


class KeyValueCache:
    """Preallocated keys and values of one attention layer, filled from the front.

    `capacity` is the longest sequence it will hold. Rows are appended once and never change.
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

    def append(
        self,
        keys: Float[Tensor, "batch heads rows head_width"],
        values: Float[Tensor, "batch heads rows head_width"],
    ) -> None:
        """Commit the keys and values of the next rows."""
        end = self.length + keys.shape[2]
        assert end <= self._keys.shape[2], f"cache of {self._keys.shape[2]} rows can not take row {end}"
        self._keys[:, :, self.length : end] = keys
        self._values[:, :, self.length : end] = values
        self.length = end

    @property
    def keys(self) -> Float[Tensor, "batch heads rows head_width"]:
        """Keys of all committed rows."""
        return self._keys[:, :, : self.length]

    @property
    def values(self) -> Float[Tensor, "batch heads rows head_width"]:
        """Values of all committed rows."""
        return self._values[:, :, : self.length]
