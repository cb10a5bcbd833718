"""A model that no process ever holds whole: laid out on the meta device, divided, then filled in.

The weights are those that one process would have drawn, bit for bit: every process draws all of them, one parameter at
a time, and keeps its share (`deferred_construction`). That takes as long as drawing a whole model does, and the memory
of one parameter beside the shares.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fluid_core.assembly import model_parts
from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.exchange import HeadContext
from fluid_core.model import FluidModel
from fluid_core.training.processes import copy_tensors_from_first
from fluid_core.training.sharding.deferred_construction import DeferredConstruction, loose_meta_tensors, meta_tensors
from fluid_core.training.sharding.divided_tensors import put
from fluid_core.training.sharding.fully_shard import Sharding, shard_model

if TYPE_CHECKING:
    from fluid_core.configuration import FluidConfig


class LaidOutModel:
    """A model whose backbone has shapes and no values yet, and the way to its values.

    A head is laid out with it if it offers `reset_parameters`, and by that says that it can be built on the meta
    device. Any other head is built for real, which is small beside a backbone, and is that of the first process.
    """

    def __init__(self, config: "FluidConfig", catalog: ComponentCatalog | None = None) -> None:
        catalog = catalog or installed_components()
        parts = model_parts(config, catalog)
        self._build_head = parts.pop("head")
        self._construction = DeferredConstruction()
        self._random_state = torch.get_rng_state()
        self._state_after: Tensor | None = None
        self._num_operations: int | None = None
        self._parts_before: dict[str, Tensor] = {}
        with self._construction.recording():
            self.model = FluidModel(**parts, head=self._head)
        self.model.config, self.model.catalog = config.model_part(), catalog

    def fill(self, device: torch.device) -> None:
        """Give every parameter and buffer its values, on `device`; those of a divided parameter for this process.

        Torch's global generator ends where building for real would have left it.
        """
        model = self.model
        before = meta_tensors(model)
        # Shapes are taken from the recording, where nothing is divided yet.
        recorded = self._recorded
        assert before.keys() == recorded.keys(), "sharding keeps all names"
        model._apply(  # type: ignore[no-untyped-call]
            lambda one: torch.empty_like(one, device=device) if one.is_meta else one.to(device)
        )
        now = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        torch.set_rng_state(self._random_state)
        self._construction.replay(recorded, lambda name, full: put(now[name], full), stop=self._num_operations)
        if self._state_after is not None:
            torch.set_rng_state(self._state_after)

    def remember_shapes(self) -> None:
        """Keep the undivided tensors: to be called before the model is sharded."""
        self._recorded = meta_tensors(self.model)

    def _head(self, context: HeadContext) -> Any:
        num_operations = self._construction.num_operations
        try:
            head = self._build_head(context)
        # One that reads values while it is built can not be laid out, whatever it raises then.
        except Exception:
            return self._real_head(context, num_operations)
        if callable(getattr(head, "reset_parameters", None)) and not loose_meta_tensors(head):
            return head
        return self._real_head(context, num_operations)

    def _real_head(self, context: HeadContext, num_operations: int) -> Any:
        # The backbone's draws come first, and are made once more when it is filled in.
        self._num_operations = num_operations
        torch.set_rng_state(self._random_state)
        self._construction.replay({}, lambda _name, _full: None, stop=num_operations)
        with torch.device("cpu"):
            head = self._build_head(context)
        self._state_after = torch.get_rng_state()
        return head


def build_sharded_model(
    config: "FluidConfig", sharding: Sharding, device: torch.device, catalog: ComponentCatalog | None = None
) -> FluidModel:
    """A model with fresh weights that are divided among processes; all must call this. Raises as `build_model` does."""
    laid_out = LaidOutModel(config, catalog)
    model = laid_out.model
    head: nn.Module = model.head  # type: ignore[assignment]
    copy_tensors_from_first(one for one in head.state_dict().values() if not one.is_meta)
    laid_out.remember_shapes()
    shard_model(model, sharding)
    laid_out.fill(device)
    return model
