"""Bytes that the forward pass keeps for the backward pass, seen while the real model runs without numbers."""

from typing import Any, Literal

import attrs
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from fluid_core.planning.rehearsal import Rehearsal, storage_of
from fluid_core.planning.skeleton import Skeleton
from fluid_core.training.step.activation_checkpointing import ActivationCheckpointing, checkpointed_blocks

Precision = Literal["float32", "bfloat16"]


@attrs.frozen(kw_only=True)
class ActivationBytes:
    """Activations of one micro-batch, under each setting of `training.activation_checkpointing`.

    With it, one block at a time is computed anew in full: its activations are included.
    """

    none: int
    selective: int
    full: int
    weight_casts: int
    """Copies of weights in bfloat16 that wait for the backward pass; not among the above."""

    def under(self, checkpointing: ActivationCheckpointing) -> int:
        """Bytes under that setting."""
        return int(getattr(self, checkpointing))


class _SavedTensors:
    """Memory behind tensors that autograd saves, counted once, with the block that saved it first."""

    def __init__(self, rehearsal: Rehearsal, weights: list[nn.Parameter]) -> None:
        self._rehearsal = rehearsal
        self._weights = {storage_of(weight) for weight in weights}
        self._block: nn.Module | None = None
        self.by_block: dict[nn.Module | None, int] = {None: 0}
        self.weight_casts = 0
        self.inputs_of_block: dict[nn.Module, int] = {}
        self._seen: dict[int, Tensor] = {}
        """Tensors are kept, so that no other takes their number."""

    def pack(self, tensor: Tensor) -> Tensor:
        """Note a tensor that is saved."""
        storage = storage_of(tensor)
        if storage not in self._seen and storage not in self._weights:
            self._seen[storage] = tensor
            num_bytes = tensor.untyped_storage().nbytes()
            if storage in self._rehearsal.casts:
                self.weight_casts += num_bytes
            else:
                self.by_block[self._block] = self.by_block.get(self._block, 0) + num_bytes
        return tensor

    def enter(self, block: nn.Module, inputs: tuple[Any, ...]) -> None:
        """A hook before a block: its inputs are what checkpointing keeps of it."""
        self._block = block
        storages = {storage_of(one): one.untyped_storage().nbytes() for one in _tensors(inputs)}
        self.inputs_of_block[block] = sum(storages.values())

    def leave(self, *_: Any) -> None:
        """A hook after a block."""
        self._block = None


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    return [one for value in values for one in _tensors(value)] if isinstance(values, tuple) else []


def count_activations(
    skeleton: Skeleton, *, num_images: int, text_length: int, precision: Precision
) -> ActivationBytes:
    """What a micro-batch of `num_images`, with captions of `text_length` tokens, keeps for the backward pass."""
    model = skeleton.model
    weights = list(model.parameters())
    rehearsal = Rehearsal(num_chosen=skeleton.num_predicted(num_images))
    rehearsal.watch_weights(weights)  # type: ignore[arg-type]
    saved = _SavedTensors(rehearsal, weights)
    blocks = checkpointed_blocks(model, "full")
    hooks = [
        hook
        for block in blocks
        for hook in (block.register_forward_pre_hook(saved.enter), block.register_forward_hook(saved.leave))
    ]
    try:
        with (
            skeleton.fake,
            rehearsal,
            saved_tensors_hooks(saved.pack, lambda tensor: tensor),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            model(skeleton.batch(num_images, text_length))
    finally:
        for hook in hooks:
            hook.remove()
    everything = sum(saved.by_block.values())

    def with_checkpointing(kind: ActivationCheckpointing) -> int:
        # What a block keeps of its own beside its inputs, which stay.
        inner = [
            max(0, saved.by_block.get(block, 0) - saved.inputs_of_block[block])
            for block in checkpointed_blocks(model, kind)
        ]
        return everything - sum(inner) + max(inner, default=0)

    return ActivationBytes(
        none=everything,
        selective=with_checkpointing("selective"),
        full=with_checkpointing("full"),
        weight_casts=saved.weight_casts,
    )
