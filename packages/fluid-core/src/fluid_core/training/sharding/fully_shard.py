"""Weights, gradients, averages and moments divided among processes, with FSDP2 (`fully_shard`) of PyTorch.

Every block of the transformer and of the text aligner is gathered when it runs and let go afterwards, and so is the
head. What is left (embeddings, norms, the projection of the text) belongs to the model as a whole. The projections
that turn text into keys and values run for all blocks before the first block does, so that each is gathered alone. A
head with tied softmax weights shares the matrix of the token embedding and is in one group with it.

The tokenizer and the text encoder stay whole in every process: the first is frozen, the second is called before the
model is. Gradients of a text encoder that trains are summed, as those of all weights are without sharding.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import attrs
import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from fluid_core.errors import ConfigurationError
from fluid_core.exchange import TokenLoss
from fluid_core.model import BatchLoss, FluidModel

if TYPE_CHECKING:
    from fluid_core.training.processes import Processes

ShardingKind = Literal["none", "full", "hybrid"]

_REPLICATE, _SHARD = "replicate", "shard"


@attrs.frozen(kw_only=True, eq=False)
class Sharding:
    """Among which processes weights are divided: all of them, or with a mesh of two dimensions those of a group."""

    mesh: DeviceMesh
    """`shard`, or `replicate` times `shard`: groups of processes of which each holds all the weights together."""

    background: distributed.ProcessGroup | None = None
    """A group of its own for what threads say to each other while training goes on."""

    @classmethod
    def among(
        cls,
        processes: "Processes",
        *,
        kind: ShardingKind,
        device: torch.device,
        shards_per_group: int | None = None,
    ) -> "Sharding | None":
        """The division of `kind` among processes; None without one, and for a single process.

        `hybrid` divides weights among `shards_per_group` processes, by default those of one machine. Raises
        `ConfigurationError` if the processes do not divide evenly into such groups.
        """
        if kind == "none" or processes.count == 1:
            return None
        background = distributed.new_group(backend="gloo") if distributed.get_backend() != "fake" else None
        if kind == "full":
            mesh = init_device_mesh(device.type, (processes.count,), mesh_dim_names=(_SHARD,))
            return cls(mesh=mesh, background=background)
        size = shards_per_group or int(os.environ.get("LOCAL_WORLD_SIZE", processes.count))
        if processes.count % size:
            raise ConfigurationError(
                f"Expected the number of processes to be a multiple of training.shards_per_group, found "
                f"{processes.count} processes and groups of {size}. Start as many processes on every machine, or set "
                "training.shards_per_group to a number that divides them."
            )
        shape = (processes.count // size, size)
        mesh = init_device_mesh(device.type, shape, mesh_dim_names=(_REPLICATE, _SHARD))
        return cls(mesh=mesh, background=background)

    @property
    def num_shards(self) -> int:
        """Into how many parts a weight is divided."""
        return int(self.mesh.size(self.mesh.ndim - 1))


def shard_model(model: FluidModel, sharding: Sharding) -> None:
    """Divide the trained weights of a model, which may still be on the meta device, among processes.

    The model is called as before; it must be called by all processes together, and for any use besides training
    inside of `gathered`.
    """
    # Keys and values are a view of what their projection returns, which nobody changes in place.
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
    apart = {*model.tokenizer.parameters(), *model.text_encoder.parameters()}  # type: ignore[attr-defined]
    blocks: list[nn.Module] = [*model.transformer.blocks, *model.aligner.blocks]
    for block in model.transformer.blocks:
        _divide(block.cross_attention.keys_values, sharding)  # type: ignore[union-attr,arg-type]
    for block in blocks:
        _divide(block, sharding)
    head: nn.Module = model.head  # type: ignore[assignment]
    own = {id(parameter) for parameter in head.parameters()}
    shared = own & {id(parameter) for parameter in model.token_embedding.parameters()}
    if own and not shared and not _refers_to(head, model.token_embedding.content):
        _divide(head, sharding)
        _gather_for_loss(head)
    _divide(model, sharding, ignored={p for p in apart if isinstance(p, nn.Parameter)})
    # FSDP sees the fields and hooks their gradients; the hook after its own makes the loss of them.
    _return_fields(model, "forward", BatchLoss)
    model.register_forward_hook(lambda _module, _inputs, fields: BatchLoss(**fields))


def _divide(module: nn.Module, sharding: Sharding, ignored: set[nn.Parameter] | None = None) -> None:
    # Also the model as a whole is let go after its forward pass: whoever looks at parameters sees shards at any time.
    fully_shard(module, mesh=sharding.mesh, reshard_after_forward=True, ignored_params=ignored)
    assert isinstance(module, FSDPModule)
    # A process brings its part of the mean over all: the parts are summed. Not every backend scales on the way.
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)


def _gather_for_loss(head: nn.Module) -> None:
    """Let FSDP gather the weights of any head, whoever wrote it, for its loss and for the gradients of that."""
    _return_fields(head, "loss", TokenLoss)
    register_fsdp_forward_method(head, "loss")
    fields_of_loss = head.loss

    def loss(*arguments: Any, **keywords: Any) -> TokenLoss:
        return TokenLoss(**fields_of_loss(*arguments, **keywords))  # type: ignore[operator]

    head.loss = loss  # type: ignore[assignment]


def _return_fields(module: nn.Module, method: str, kind: type) -> None:
    """Make a method of one module return the fields of what it returns, by name: FSDP looks for tensors that need
    gradients in dictionaries, and not in classes of ours.
    """
    original = getattr(module, method)

    def fields(*arguments: Any, **keywords: Any) -> dict[str, Any]:
        returned = original(*arguments, **keywords)
        return {field.name: getattr(returned, field.name) for field in attrs.fields(kind)}

    setattr(module, method, fields)


def _refers_to(head: nn.Module, embedding: nn.Module) -> bool:
    """Whether a head holds the token embedding outside of its registry, as for tied weights."""
    for part in head.modules():
        for value in vars(part).values():
            held = value if isinstance(value, list | tuple) else (value,)
            if any(one is embedding or (isinstance(one, Tensor) and _is_of(one, embedding)) for one in held):
                return True
    return False


def _is_of(tensor: Tensor, module: nn.Module) -> bool:
    return any(tensor is parameter for parameter in module.parameters())


@contextmanager
def gathered(model: FluidModel) -> Iterator[None]:
    """Hold what is outside of the blocks whole while a block of code runs, as sampling needs it.

    Blocks are gathered one at a time as ever. All processes must enter, and make the same calls. Without sharding
    nothing happens.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    inner = {id(part) for block in (*model.transformer.blocks, *model.aligner.blocks) for part in block.modules()}
    parts = [part for part in model.modules() if isinstance(part, FSDPModule) and id(part) not in inner]
    # FSDP takes the first module that runs for the outermost one: that must be the model.
    model._get_fsdp_state()._lazy_init()
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
