"""Fingerprints of configurations and weights, by which caches and statistics know what they were made with."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def identity_of(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, of plain settings and of tensors by name.

    Tensors of a smaller floating type count as the float32 numbers they stand for, so that weights saved in bfloat16
    and read as float32 keep their identity. Hashing reads every byte once: about two seconds for a gigabyte. Raises
    `TypeError` for settings that JSON can not hold.
    """
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu")
        if tensor.is_floating_point() and tensor.dtype.itemsize < 4:
            tensor = tensor.float()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class RememberedIdentity:
    """The identity of a module, computed on first use and again only after its weights were changed in place.

    A change is told from the version counters that torch keeps, so that asking costs next to nothing.
    """

    def __init__(self) -> None:
        self._known: tuple[tuple[tuple[str, int, int, torch.dtype], ...], str] | None = None

    def of(self, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
        """`identity_of` the same description with these tensors."""
        versions = tuple((name, t.data_ptr(), _version(t), t.dtype) for name, t in tensors.items())
        if self._known is None or self._known[0] != versions:
            self._known = (versions, identity_of(description, tensors))
        return self._known[1]


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place; torch does not count for those of inference mode."""
    return 0 if tensor.is_inference() else tensor._version
