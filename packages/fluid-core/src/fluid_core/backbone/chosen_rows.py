"""Some rows of a batch of canvases, any number of each."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class ChosenRows(NamedTuple):
    """Which rows of a canvas of `batch_size` times `num_rows` are wanted, by their numbers in the flattened batch.

    Images may want different numbers of rows, so what is computed for those alone stands in one list of rows.
    """

    numbers: Int[Tensor, "chosen"]
    batch_size: int
    num_rows: int

    def take(self, canvas: Float[Tensor, "batch rows width"]) -> Float[Tensor, "chosen width"]:
        """The chosen rows of a canvas."""
        return canvas.flatten(0, 1)[self.numbers]

    def put(self, rows: Float[Tensor, "chosen width"]) -> Float[Tensor, "batch rows width"]:
        """A canvas with those rows in their places and zeros elsewhere."""
        canvas = rows.new_zeros(self.batch_size * self.num_rows, rows.shape[1])
        return canvas.index_copy(0, self.numbers, rows).view(self.batch_size, self.num_rows, -1)
