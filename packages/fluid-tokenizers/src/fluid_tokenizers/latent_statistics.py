"""Mean and standard deviation of each token channel, measured on data and saved beside the weights.

Heads and backbones expect tokens of about zero mean and unit variance. A tokenizer carries the statistics
that bring its own values there, so that swapping tokenizers needs no constants retuned elsewhere.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.channel_moments import ChannelMoments
from fluid_tokenizers.single_precision_buffers import SinglePrecisionBuffers

RELATIVE_STD_FLOOR = 0.01
"""Smallest standard deviation of a channel, as a share of the root mean square over all channels."""


class LatentStatistics(SinglePrecisionBuffers):
    """Per-channel statistics, as buffers; the identity (mean 0, standard deviation 1) until measured or
    loaded.
    """

    mean: Tensor
    std: Tensor
    measured_marker: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        # A buffer rather than an attribute: whether the statistics mean anything travels with them.
        self.register_buffer("measured_marker", torch.zeros((), dtype=torch.bool))

    @property
    def num_channels(self) -> int:
        """Number of channels."""
        return int(self.mean.shape[0])

    @property
    def measured(self) -> bool:
        """True once `measure` was called or measured statistics were loaded."""
        return bool(self.measured_marker)

    @torch.no_grad()
    def measure(self, vectors: Float[Tensor, "count channels"]) -> None:
        """Replace the statistics by those of `vectors`, accumulated in double precision.

        A channel that (almost) never varies gets the floor `RELATIVE_STD_FLOOR` times the typical deviation
        of the channels, and 1 where none of them varies: dividing by its own deviation would blow up rounding
        noise. Raises `InvalidRequestError` for no vectors, or for values that are not finite.
        """
        moments = ChannelMoments(self.num_channels)
        moments.add(vectors)
        self.adopt(moments.mean, moments.variance.sqrt())

    @torch.no_grad()
    def adopt(self, mean: Float[Tensor, "channels"], std: Float[Tensor, "channels"]) -> None:
        """Replace the statistics by these, with the same floor for channels that (almost) never vary."""
        typical = std.double().square().mean().sqrt()
        floor = torch.where(typical > 0, RELATIVE_STD_FLOOR * typical, 1.0)
        self.restore(mean, torch.maximum(std.double(), floor))

    @torch.no_grad()
    def restore(self, mean: Float[Tensor, "channels"], std: Float[Tensor, "channels"]) -> None:
        """Replace the statistics by these exactly, as they were saved."""
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.measured_marker.fill_(True)

    def normalize(self, vectors: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """(vectors - mean) / std, in single precision."""
        return (vectors.float() - self.mean) / self.std

    def denormalize(self, tokens: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """The inverse of `normalize`."""
        return tokens.float() * self.std + self.mean
