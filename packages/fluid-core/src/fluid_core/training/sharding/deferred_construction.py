"""Building on the meta device and filling in afterwards exactly what a real construction would have drawn.

Constructors run on the meta device, where a tensor has a shape and no memory, and everything they do to tensors is
written down. `replay` does it over again with real tensors, one at a time and in the same order, so that torch's global
generator gives every weight the very number it would have got, bit for bit. A finished tensor is handed over and let
go: memory holds one parameter at a time and not the model. What is drawn only to be overwritten, as the defaults of a
linear layer before the model's own initialisation, is drawn into scratch space and dropped at once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

_aten = torch.ops.aten
_OVERWRITING = {
    _aten.normal_.default,
    _aten.uniform_.default,
    _aten.zero_.default,
    _aten.fill_.Scalar,
    _aten.fill_.Tensor,
    _aten.copy_.default,
}
"""Operations after which nothing of the former values of their first argument is left."""


_IS_META = Tensor.is_meta.__get__  # type: ignore[attr-defined]


@attrs.frozen(kw_only=True)
class _Part:
    """A tensor of the recording: which memory it looks at, and how."""

    memory: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    memory_numel: int


@attrs.frozen(kw_only=True)
class _Operation:
    """One call: arguments with `_Part`s in the place of meta tensors, and what came out."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    results: tuple[_Part, ...]
    used: frozenset[int]
    """Every memory that is read or written."""

    overwritten: int | None
    """The memory that has new values afterwards, whatever it held."""


class DeferredConstruction:
    """What constructors did to tensors on the meta device."""

    def __init__(self) -> None:
        self._operations: list[_Operation] = []
        # Without them memory would be given out again under the same address.
        self._alive: list[Tensor] = []
        self._known: set[int] = set()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Within the block new tensors are on the meta device, and what happens to them is written down.

        What needs the values of a tensor raises an error, as ever on that device.
        """
        with torch.device("meta"), _WithoutShortcuts(), _Recorder(self):
            yield

    @property
    def num_operations(self) -> int:
        """How many were written down so far."""
        return len(self._operations)

    @torch.no_grad()
    def replay(
        self, tensors: dict[str, Tensor], keep: Callable[[str, Tensor], None], *, stop: int | None = None
    ) -> None:
        """Do everything again on the CPU, and pass each of `tensors` to `keep` by its name as soon as it is final.

        `tensors` are those the constructors left, on the meta device: parameters and buffers. What `keep` gets is let
        go afterwards. With `stop` only that many operations are done. Draws from torch's global generator.
        """
        names = {_memory(tensor): name for name, tensor in tensors.items()}
        operations = self._operations[:stop]
        upcoming: dict[int, list[int]] = {}
        for index in reversed(range(len(operations))):
            for memory in operations[index].used:
                upcoming.setdefault(memory, []).append(index)
        real: dict[int, Tensor] = {}
        for operation in operations:
            # A recording may still be going on, and with it the meta device.
            with torch.device("cpu"):
                self._run(operation, real)
            for memory in operation.used:
                upcoming[memory].pop()
                following = operations[upcoming[memory][-1]] if upcoming[memory] else None
                if following is None and memory in names and memory in real:
                    keep(names[memory], _seen(real[memory], _part(tensors[names[memory]])))
                if following is None or following.overwritten == memory:
                    real.pop(memory, None)

    def add(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], result: Any) -> None:
        """Write down a call and what it returned."""
        given = [one for one in tree_flatten((arguments, keywords))[0] if isinstance(one, Tensor) and _is_meta(one)]
        results = [one for one in tree_flatten(result)[0] if isinstance(one, Tensor) and _is_meta(one)]
        if not given and not results:
            return
        changes = function._schema.is_mutable
        made = tuple(_part(one) for one in results if _memory(one) not in self._known)
        self._alive += [*given, *results]
        self._known |= {_memory(one) for one in results}
        if not changes and not made:
            # A view: it looks at memory that is known.
            return
        first = arguments[0] if arguments else None
        whole: int | None = None
        if isinstance(first, Tensor) and _is_meta(first) and first.numel() == _part(first).memory_numel:
            whole = _memory(first)
        others = tree_flatten((arguments[1:], keywords))[0]
        read = {_memory(one) for one in others if isinstance(one, Tensor) and _is_meta(one)}
        overwrites = function in _OVERWRITING and whole not in read
        self._operations.append(
            _Operation(
                function=function,
                arguments=tree_map(_recorded, arguments),
                keywords=tree_map(_recorded, keywords),
                results=made,
                used=frozenset(_memory(one) for one in (*given, *results)),
                overwritten=whole if overwrites else None,
            )
        )

    def _run(self, operation: _Operation, real: dict[int, Tensor]) -> None:
        if operation.function in (_aten.empty.memory_format, _aten.empty_strided.default):
            # Memory is taken when something is put there.
            return

        def realised(value: Any) -> Any:
            if isinstance(value, _Part):
                if value.memory not in real:
                    real[value.memory] = torch.empty(value.memory_numel, dtype=value.dtype)
                return _seen(real[value.memory], value)
            return torch.device("cpu") if isinstance(value, torch.device) and value.type == "meta" else value

        result = operation.function(*tree_map(realised, operation.arguments), **tree_map(realised, operation.keywords))
        if operation.results:
            outputs = [one for one in tree_flatten(result)[0] if isinstance(one, Tensor)]
            for part, output in zip(operation.results, outputs, strict=True):
                # Kernels may lay out their results otherwise than the meta device foresees.
                laid_out = torch.empty(part.memory_numel, dtype=part.dtype)
                _seen(laid_out, part).copy_(output)
                real[part.memory] = laid_out


class _WithoutShortcuts(TorchFunctionMode):
    """Tensors deny being on the meta device: some functions of `torch.nn.init` do nothing for those."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == _IS_META:
            return False
        return func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, construction: DeferredConstruction) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._construction = construction

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._construction.add(func, args, kwargs or {}, result)
        return result


def meta_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers on the meta device, by name; those that share memory count once."""
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor for name, tensor in named.items() if _is_meta(tensor)}


def loose_meta_tensors(module: nn.Module) -> list[str]:
    """Names of attributes on the meta device that are neither parameters nor buffers: nobody could fill them in."""
    found = []
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            if any(isinstance(one, Tensor) and _is_meta(one) for one in _within(value)):
                found.append(f"{prefix}.{name}" if prefix else name)
    return found


def _within(value: Any, depth: int = 2) -> Iterator[Any]:
    """`value`, and what it holds as attributes and elements; not what modules hold."""
    yield value
    if depth == 0 or isinstance(value, Tensor | nn.Module | type):
        return
    if isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, list | tuple | set):
        inner = list(value)
    else:
        inner = list(getattr(value, "__dict__", {}).values())
    for one in inner:
        yield from _within(one, depth - 1)


def _is_meta(tensor: Tensor) -> bool:
    return tensor.device.type == "meta"


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _part(tensor: Tensor) -> _Part:
    return _Part(
        memory=_memory(tensor),
        size=tuple(tensor.shape),
        stride=tuple(tensor.stride()),
        offset=int(tensor.storage_offset()),
        dtype=tensor.dtype,
        memory_numel=tensor.untyped_storage().nbytes() // tensor.element_size(),
    )


def _recorded(value: Any) -> Any:
    return _part(value) if isinstance(value, Tensor) and _is_meta(value) else value


def _seen(base: Tensor, part: _Part) -> Tensor:
    return base.as_strided(part.size, part.stride, part.offset)
