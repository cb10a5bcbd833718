"""Several processes that train one model together, each on its share of every batch.

Started by `torchrun`, which tells each process its place through the environment. All of them draw the same random
numbers for the whole batch and keep their share of it; gradients are summed, so that the weights stay equal and are
those that one process would have reached, up to rounding.
"""

import json
import os
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from fluid_core.errors import ConfigurationError
from fluid_core.exchange import BatchShare
from fluid_core.training.sharding.divided_tensors import is_divided


class Processes:
    """The processes of this run: one, unless `torchrun` started several."""

    def __init__(self, *, rank: int = 0, count: int = 1) -> None:
        self.rank = rank
        self.count = count

    @classmethod
    def join(cls, backend: str | None = None) -> "Processes":
        """Find out from the environment how many processes there are, and meet the others.

        `backend` is one of torch's: by default `nccl` where there is a GPU, and `gloo` elsewhere.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        if torch.cuda.is_available():
            # A GPU for each process of a machine: `cuda` is this one from here on.
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        if not distributed.is_initialized():
            distributed.init_process_group(backend or ("nccl" if torch.cuda.is_available() else "gloo"))
        return cls(rank=distributed.get_rank(), count=distributed.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and talks to people."""
        return self.rank == 0

    def share(self, batch_size: int) -> BatchShare:
        """This process's rows of a batch. Raises `ConfigurationError` if there is no row for some process."""
        if batch_size < self.count:
            raise ConfigurationError(
                f"Expected training.batch_size to be at least the number of processes, found {batch_size} images for "
                f"{self.count} processes. Enlarge it, or start fewer processes (torchrun --nproc-per-node)."
            )
        first = batch_size * self.rank // self.count
        return BatchShare(
            first=first,
            count=batch_size * (self.rank + 1) // self.count - first,
            total=batch_size,
            process=self.rank,
            num_processes=self.count,
        )

    def wait(self) -> None:
        """Go on once all have come here."""
        if self.count > 1:
            distributed.barrier()

    def leave(self) -> None:
        """Part from the others once all have come here: nothing can be shared any more.

        A process that ends while still connected may be aborted by a thread that waits for the others.
        """
        if self.count > 1:
            distributed.barrier()
            distributed.destroy_process_group()

    def from_first(self, value: float) -> float:
        """The value that the first process passes, in all of them."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=_device())
        distributed.broadcast(shared, src=0)
        return float(shared)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes of tensors of equal shape; the argument stays as it is."""
        if self.count == 1:
            return values
        total = values.clone()
        distributed.all_reduce(total)
        return total

    def gather_json(self, value: Any) -> list[Any]:
        """What every process passes, in their order, in all of them: small values that JSON can hold."""
        if self.count == 1:
            return [value]
        own = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=_device())
        sizes = [torch.zeros(1, dtype=torch.int64, device=_device()) for _ in range(self.count)]
        distributed.all_gather(sizes, torch.tensor([len(own)], device=_device()))
        # Collectives need equal shapes.
        padded = own.new_zeros(max(int(size) for size in sizes))
        padded[: len(own)] = own
        texts = [torch.empty_like(padded) for _ in range(self.count)]
        distributed.all_gather(texts, padded)
        return [json.loads(bytes(text[: int(size)].tolist()).decode()) for text, size in zip(texts, sizes, strict=True)]

    def copy_from_first(self, module: nn.Module) -> None:
        """Make all parameters and buffers those of the first process; those divided among processes stay."""
        if self.count > 1:
            copy_tensors_from_first(one for one in module.state_dict().values() if not is_divided(one))

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace all gradients by their sums. A parameter without one in some processes counts as zero there.

        Gradients of parameters that are divided among processes are summed already.
        """
        if self.count == 1:
            return
        trained = [parameter for parameter in parameters if not is_divided(parameter)]
        if not trained:
            return
        device = trained[0].device
        # Which parameters have a gradient travels with them: one without any must stay so, or weight decay moves it.
        present = torch.tensor([float(p.grad is not None) for p in trained], device=device)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        flat = torch.cat([present, *(gradient.flatten().float() for gradient in gradients)])
        distributed.all_reduce(flat)
        parts = torch.split(flat[len(trained) :], [p.numel() for p in trained])
        for parameter, is_present, part in zip(trained, flat[: len(trained)].tolist(), parts, strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype) if is_present else None


def rows_of_all(rows: Tensor) -> Tensor:
    """The rows that every process passes, in the order of the processes, in all of them."""
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    # Collectives need equal shapes.
    padded = rows.new_zeros(max(int(count) for count in counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    found = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(found, padded)
    return torch.cat([part[: int(count)] for part, count in zip(found, counts, strict=True)])


def copy_tensors_from_first(tensors: Iterable[Tensor]) -> None:
    """Make tensors, in place, those of the first process."""
    for tensor in tensors:
        distributed.broadcast(tensor, src=0)


def _device() -> torch.device:
    backend = cast(str, distributed.get_backend())
    return torch.device("cuda" if backend == "nccl" else "cpu")
