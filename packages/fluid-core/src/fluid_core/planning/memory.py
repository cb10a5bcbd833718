"""Memory of one GPU in training, by kind, without sharding and with."""

from typing import Literal

import attrs

from fluid_core.planning.activations import ActivationBytes
from fluid_core.planning.frozen_parts import num_parameters
from fluid_core.planning.gpus import GpuModel
from fluid_core.planning.parameter_counts import ParameterCounts
from fluid_core.planning.skeleton import Skeleton
from fluid_core.training.step.activation_checkpointing import ActivationCheckpointing

Sharding = Literal["none", "hybrid", "full"]

BYTES_PER_WEIGHT = 4
"""Weights, gradients, averages and each of Adam's two moments are float32."""

_NUM_GATHERED = 2
"""Blocks whose whole weights are in memory at once where they are sharded: the one at work and the next."""

USABLE_SHARE = 0.9
"""Of a GPU's memory. The rest is for temporary tensors, gaps between tensors, and what CUDA and NCCL keep."""


@attrs.frozen(kw_only=True)
class MemoryUse:
    """Bytes on one GPU."""

    sharding: Sharding
    num_shards: int
    """Over how many GPUs weights, gradients, moments and averages are divided."""

    weights: int
    """Trained ones in float32: the master weights of autocast."""

    gradients: int
    optimizer: int
    average: int
    frozen: int
    """Tokenizer and text encoder, whole on every GPU."""

    working_copies: int
    """Weights in bfloat16 that autocast makes; whole blocks gathered from their shards; gradients on their way."""

    activations: int

    @property
    def total(self) -> int:
        """All of it together."""
        state = self.weights + self.gradients + self.optimizer + self.average
        return state + self.frozen + self.working_copies + self.activations

    def fits(self, gpu: GpuModel) -> bool:
        """Whether it is within the usable share of a GPU's memory."""
        return self.total <= USABLE_SHARE * gpu.memory_bytes


@attrs.frozen(kw_only=True)
class MemoryModel:
    """What memory depends on, beside how the work is divided."""

    num_trained: int
    frozen: int
    largest_block: int
    """Parameters of the largest piece that is gathered at once: a block, or the head."""

    micro_batch: int
    """Images of one GPU between two gradients, for which activations were counted."""

    activations: ActivationBytes

    def use(
        self,
        sharding: Sharding,
        checkpointing: ActivationCheckpointing,
        *,
        num_gpus: int,
        shards_per_group: int,
        micro_batch: int | None = None,
    ) -> MemoryUse:
        """Bytes on one GPU. Activations grow in proportion to the micro-batch."""
        num_shards = {"none": 1, "hybrid": min(shards_per_group, num_gpus), "full": num_gpus}[sharding]
        share = -(-self.num_trained // num_shards)
        state = share * BYTES_PER_WEIGHT
        scale = (micro_batch or self.micro_batch) / self.micro_batch
        return MemoryUse(
            sharding=sharding,
            num_shards=num_shards,
            weights=state,
            gradients=state,
            optimizer=2 * state,
            average=state,
            frozen=self.frozen,
            working_copies=self._working_copies(num_shards, num_gpus),
            activations=round(scale * self.activations.under(checkpointing)),
        )

    def _working_copies(self, num_shards: int, num_gpus: int) -> int:
        # Casts of all weights live from the forward to the backward pass, with sharding, too, and whatever is computed
        # twice: autocast remembers them.
        casts = self.activations.weight_casts
        if num_shards == 1:
            # Afterwards gradients are summed over the GPUs in one flat tensor.
            return max(casts, self.num_trained * BYTES_PER_WEIGHT if num_gpus > 1 else 0)
        # Blocks are gathered in float32, and the gradient of one of them is whole before it is divided.
        return casts + (_NUM_GATHERED + 1) * self.largest_block * BYTES_PER_WEIGHT


def memory_model(
    skeleton: Skeleton, counts: ParameterCounts, activations: ActivationBytes, *, micro_batch: int
) -> MemoryModel:
    """Everything that memory depends on, for a model that `build_skeleton` made."""
    model, text, tokenizer = skeleton.model, skeleton.text, skeleton.tokenizer
    pieces = [*model.transformer.blocks, *model.aligner.blocks, model.head]
    return MemoryModel(
        num_trained=counts.trained,
        frozen=(
            (tokenizer.num_parameters or 0) * tokenizer.bytes_per_parameter
            + (0 if text is None else (text.num_parameters or 0) * text.bytes_per_parameter)
        ),
        largest_block=max(num_parameters(piece) for piece in pieces),
        micro_batch=micro_batch,
        activations=activations,
    )
