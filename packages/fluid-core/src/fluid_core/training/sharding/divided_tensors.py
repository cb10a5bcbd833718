"""Tensors of which every process holds a part (`DTensor`) beside tensors that every process holds whole.

PyTorch updates lists of either kind at once, but not lists of both.
"""

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as distributed
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_divided(tensor: object) -> "TypeGuard[DTensor]":
    """Whether every process holds a part of this tensor."""
    # Loading the module takes most of a second, and who has no such tensor has not loaded it.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds: all of one that is not divided. Shares its memory."""
    return tensor.to_local() if is_divided(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, detached; of one that is divided all processes must ask for it together."""
    detached = tensor.detach()
    return detached.full_tensor() if is_divided(detached) else detached


def without_mixtures(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parameter groups of an optimizer in which divided and whole parameters are apart: it updates either together."""
    separate = []
    for group in groups:
        divided = [parameter for parameter in group["params"] if is_divided(parameter)]
        undivided = [parameter for parameter in group["params"] if not is_divided(parameter)]
        if divided and undivided:
            separate += [{**group, "params": divided}, {**group, "params": undivided}]
        else:
            separate.append(group)
    return separate


@torch.no_grad()
def total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together, divided or not; the same in all processes, which must all ask for it."""
    divided = [gradient for gradient in gradients if is_divided(gradient)]
    undivided = [gradient for gradient in gradients if not is_divided(gradient)]
    if not divided:
        return torch.nn.utils.get_total_norm(undivided)
    mesh = divided[0].device_mesh
    parts = [gradient.to_local() for gradient in divided if gradient.to_local().numel()]
    squared = torch.nn.utils.get_total_norm(parts).square() if parts else torch.zeros((), device=divided[0].device)
    squared = squared.to(divided[0].device)
    distributed.all_reduce(squared, group=mesh.get_group(mesh.ndim - 1))
    if undivided:
        squared += torch.nn.utils.get_total_norm(undivided).square()
    return squared.sqrt()


@torch.no_grad()
def clip_gradients(parameters: list[nn.Parameter], max_norm: float, norm: Tensor) -> None:
    """Scale all gradients, divided or not, so that their `norm` is at most `max_norm`."""
    divided = [parameter for parameter in parameters if is_divided(parameter)]
    undivided = [parameter for parameter in parameters if not is_divided(parameter)]
    for group in (divided, undivided):
        if group:
            torch.nn.utils.clip_grads_with_norm_(group, max_norm, norm)


@torch.no_grad()
def put(target: Tensor, full: Tensor) -> None:
    """Copy a whole tensor into `target`, or into the part of it that this process holds."""
    if is_divided(target):
        target.to_local().copy_(full[share_of(target)])
    else:
        target.copy_(full)


def share_of(tensor: "DTensor") -> tuple[slice, ...]:
    """Where in the whole tensor the part is that this process holds."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tuple(slice(first, first + length) for first, length in zip(offset, shape, strict=True))
