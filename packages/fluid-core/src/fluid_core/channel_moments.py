"""Mean and variance of each channel over more vectors than fit into memory."""

import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.errors import InvalidRequestError


class ChannelMoments:
    """Running mean and variance of each of `channels`, in double precision, with nothing kept of the vectors.

    Batches are joined by the pairwise update of Chan, Golub and LeVeque, which loses nothing where the mean is far
    from zero.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros(channels, dtype=torch.float64)
        self._squares = torch.zeros(channels, dtype=torch.float64)

    def add(self, vectors: Float[Tensor, "count channels"]) -> None:
        """Take in vectors from any device. Raises `InvalidRequestError` for none, or for values that are not finite."""
        count = int(vectors.shape[0])
        not_finite = int((~torch.isfinite(vectors)).sum())
        if count == 0 or not_finite:
            raise InvalidRequestError(
                f"Expected at least one vector of finite values to measure latent statistics on, found {count} vectors "
                f"with {not_finite} values that are NaN or infinite. Check the images and the tokenizer's weights."
            )
        variance, mean = torch.var_mean(vectors.double().cpu(), dim=0, correction=0)
        total = self.count + count
        difference = mean - self.mean
        self.mean = self.mean + difference * (count / total)
        self._squares = self._squares + variance * count + difference.square() * (self.count * count / total)
        self.count = total

    @property
    def variance(self) -> Float[Tensor, "channels"]:
        """Variance over all vectors so far, not corrected for their number; zero before the first."""
        return self._squares / max(self.count, 1)
