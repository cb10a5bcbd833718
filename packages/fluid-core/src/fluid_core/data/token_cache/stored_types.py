"""In which type the tensors of a tokenizer are kept, and how they come back as they were."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fluid_core.data.token_cache.manifest import CachedTensor
from fluid_core.errors import DataError
from fluid_core.token_space import DiscreteTokens, TokenSpace


def type_name(dtype: torch.dtype) -> str:
    """Such as `float32`."""
    return str(dtype).removeprefix("torch.")


def type_of(name: str) -> torch.dtype:
    """The type of that name. Raises `DataError` for a word that names none."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise DataError(f"Expected the name of a tensor type such as 'float32', found '{name}'. Build the cache anew.")
    return dtype


def cached_tensors(precomputed: Mapping[str, Tensor], space: TokenSpace, *, dtype: str) -> tuple[CachedTensor, ...]:
    """How to store what `precompute` returned for some images.

    Numbers with fractions are stored as `dtype` unless they are smaller already. Ids are stored in the smallest of
    uint8, uint16 and int32 that holds the vocabulary.
    """
    return tuple(
        CachedTensor(
            name=name,
            shape=tuple(tensor.shape[1:]),
            dtype=type_name(tensor.dtype),
            stored_as=type_name(_stored_type(tensor, space, type_of(dtype))),
        )
        for name, tensor in sorted(precomputed.items())
    )


def _stored_type(tensor: Tensor, space: TokenSpace, wanted: torch.dtype) -> torch.dtype:
    if tensor.is_floating_point():
        return wanted if wanted.itemsize < tensor.dtype.itemsize else tensor.dtype
    # Whole numbers beside the ids, if a tokenizer has any, keep their own type.
    if not isinstance(space, DiscreteTokens) or tensor.dtype not in (torch.int64, torch.int32):
        return tensor.dtype
    if tensor.numel() and not 0 <= int(tensor.min()) <= int(tensor.max()) < space.vocabulary_size:
        return tensor.dtype
    if space.vocabulary_size <= 2**8:
        return torch.uint8
    return torch.uint16 if space.vocabulary_size <= 2**16 else torch.int32


def to_stored(precomputed: Mapping[str, Tensor], tensors: tuple[CachedTensor, ...]) -> dict[str, Tensor]:
    """What `precompute` returned, on the CPU and in the types of the cache.

    Raises `DataError` if tensors are missing or of other shapes than the first images had, and for numbers that the
    type can not hold.
    """
    expected = {tensor.name: (tensor.shape, tensor.dtype) for tensor in tensors}
    found = {name: (tuple(tensor.shape[1:]), type_name(tensor.dtype)) for name, tensor in precomputed.items()}
    if found != expected:
        raise DataError(
            f"Expected the tokenizer to return {expected} for every image, as it did for the first ones, found {found}."
        )
    stored = {}
    for tensor in tensors:
        original = precomputed[tensor.name].detach().cpu()
        stored[tensor.name] = original.to(type_of(tensor.stored_as))
        _check_range(tensor, original, stored[tensor.name])
    return stored


def _check_range(tensor: CachedTensor, original: Tensor, stored: Tensor) -> None:
    if original.dtype == stored.dtype:
        return
    if original.is_floating_point():
        fits = bool((stored.isfinite() | ~original.isfinite()).all())
        advice = "Choose --dtype bfloat16 or float32."
    else:
        fits = torch.equal(stored.to(original.dtype), original)
        advice = "Its ids exceed the vocabulary that its token space states."
    if not fits:
        raise DataError(
            f"Expected '{tensor.name}' of the tokenizer to fit the type {tensor.stored_as}, found values up to "
            f"{float(original.abs().max()):.4g}. {advice}"
        )


def from_stored(stored: Tensor, tensor: CachedTensor) -> Tensor:
    """A copy of a stored tensor in the type that the tokenizer returned."""
    return stored.to(type_of(tensor.dtype), copy=True)
