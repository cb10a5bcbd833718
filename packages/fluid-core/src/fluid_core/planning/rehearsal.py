"""A training step of the real model without any numbers: shapes alone, in no memory to speak of.

Tensors are torch's fake tensors, so that a model of ten billion parameters runs its true forward and backward pass,
with its true types under autocast, in seconds. Meanwhile matrix products are counted, and copies of weights are noted.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten


def _attention_flops(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Scores and the weighted sum of values; causal attention counts as the whole square, as is usual."""
    batch_size, num_heads, num_queries, width = query.shape
    return 2 * batch_size * num_heads * num_queries * key.shape[2] * (width + value.shape[3])


_ATTENTION: Mapping[Any, Callable[..., int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: _attention_flops(q, k, v),
    # Gradients of both products towards both factors. What a kernel computes anew counts for no work of the model.
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda _, q, k, v, *__, **___: (
        2 * _attention_flops(q, k, v)
    ),
}
"""Fused attention on a CPU, which torch's own table leaves out."""


class Rehearsal(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts matrix FLOPs of the operations inside, of fake tensors or of real ones.

    Fake tensors have no values. Whoever asks one for a number is told 1, which passes the usual checks that values are
    finite or in range; who asks where it is true is told `num_chosen` places.
    """

    def __init__(self, *, num_chosen: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Loads Triton where it is installed: late, since whoever wants its interpreter must say so before.
        from torch.utils.flop_counter import flop_registry

        self._flops_of = flop_registry
        self._num_chosen = num_chosen
        self.flops = 0
        """So far."""

        self._weight_storages: set[int] = set()
        self.casts: dict[int, int] = {}
        """Bytes of copies of weights in another type, by their storage."""

    def watch_weights(self, weights: list[Tensor]) -> None:
        """Note casts of these from now on."""
        self._weight_storages = {storage_of(weight) for weight in weights}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """One operation: done, and counted."""
        if func is _aten._local_scalar_dense.default:
            return 1
        if func is _aten.nonzero.default:
            return args[0].new_zeros((self._num_chosen, args[0].ndim), dtype=torch.int64)
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in _ATTENTION:
            self.flops += _ATTENTION[packet](*args, **(kwargs or {}))
        elif packet in self._flops_of:
            self.flops += self._flops_of[packet](*args, **(kwargs or {}), out_val=result)
        if func is _aten._to_copy.default and storage_of(args[0]) in self._weight_storages:
            self.casts[storage_of(result)] = result.nbytes
        return result


def storage_of(tensor: Tensor) -> int:
    """A number for the memory that a tensor is a view of; good while the tensor lives."""
    return int(tensor.untyped_storage()._cdata)
