"""Loads the weights of the predecessor's diffusion head (MAR, arXiv 2406.11838), which has the same network."""

import re
from collections.abc import Mapping
from pathlib import Path

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fluid_core.errors import CheckpointError, CheckpointMismatchError
from fluid_core.token_space import ContinuousTokens, Grid
from fluid_heads.diffusion.head import DiffusionHead
from fluid_heads.diffusion.options import DiffusionOptions

_PREFIXES = ("diffloss.net.", "net.")
_BLOCK = re.compile(r"res_blocks\.(\d+)\.")

# Ours on the left, the predecessor's on the right; {i} is the number of a block.
_LAYERS = {
    "time_embedding.0": "time_embed.mlp.0",
    "time_embedding.2": "time_embed.mlp.2",
    "condition_projection": "cond_embed",
    "input_projection": "input_proj",
    "blocks.{i}.norm": "res_blocks.{i}.in_ln",
    "blocks.{i}.mlp.0": "res_blocks.{i}.mlp.0",
    "blocks.{i}.mlp.2": "res_blocks.{i}.mlp.2",
    "blocks.{i}.modulation": "res_blocks.{i}.adaLN_modulation.1",
    "output_projection": "final_layer.linear",
    "output_modulation": "final_layer.adaLN_modulation.1",
}


def predecessor_names(depth: int) -> dict[str, str]:
    """For every parameter of a `DenoisingNetwork` with `depth` blocks, its name in the predecessor's head."""
    names = {}
    for ours, theirs in _LAYERS.items():
        for block in range(depth) if "{i}" in ours else range(1):
            for parameter in ("weight", "bias"):
                names[f"{ours.format(i=block)}.{parameter}"] = f"{theirs.format(i=block)}.{parameter}"
    return names


def load_predecessor_head(
    weights: Mapping[str, Tensor] | str | Path, *, grid: Grid, options: DiffusionOptions | None = None
) -> DiffusionHead:
    """A diffusion head with the predecessor's weights.

    `weights` are tensors by name, or the path of a safetensors file with them. The names may be those of the
    head's network alone (`input_proj.weight`), or carry the prefix `net.` of the head or `diffloss.net.` of
    the whole model, whose other tensors are then left alone. Channels, widths and depth are read from the
    shapes; `grid` says how the tokens of an image are arranged. Tensors are copied, as float32.

    `options` default to the predecessor's sampling; their width and depth are replaced by those of the
    weights. Weights published as pickles must be converted to safetensors first: Fluid opens no pickle.

    Raises `CheckpointError` for a file that is missing or damaged, and `CheckpointMismatchError`, naming
    every tensor that is missing, unexpected or of a wrong shape, for weights of something else.
    """
    if isinstance(weights, str | Path):
        weights = _read(Path(weights))
    found = _without_prefix(weights)
    head = _head_of_their_size(found, grid, options or DiffusionOptions.predecessor())
    names = predecessor_names(head.options.depth)
    expected = {names[name]: tuple(value.shape) for name, value in head.network.state_dict().items()}
    _check(found, expected)
    state = {ours: found[theirs].to(torch.float32, copy=True) for ours, theirs in names.items()}
    head.network.load_state_dict(state, assign=True)
    return head


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"Expected a safetensors file with the weights of a diffusion head at {path}, found: {error}. "
            "Check the path; convert files of another format to safetensors first."
        ) from error


def _without_prefix(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        chosen = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        if chosen:
            return chosen
    return dict(weights)


def _head_of_their_size(found: Mapping[str, Tensor], grid: Grid, options: DiffusionOptions) -> DiffusionHead:
    """A head on the meta device: laid out, but without values and without drawing any."""
    sizes = {}
    for name in ("input_proj.weight", "cond_embed.weight"):
        if name not in found or found[name].ndim != 2:
            what = f"of shape {tuple(found[name].shape)}" if name in found else "missing"
            raise CheckpointMismatchError(
                f"Expected the weights of the predecessor's diffusion head, whose sizes are read from {name!r}, a "
                f"matrix; it is {what}. Found {len(found)} tensors: {_some(sorted(found))}."
            )
        sizes[name] = found[name].shape
    blocks = {int(match.group(1)) for name in found if (match := _BLOCK.match(name))}
    width, channels = sizes["input_proj.weight"]
    options = attrs.evolve(options, width=width, depth=max(blocks, default=0) + 1)
    with torch.device("meta"):
        return DiffusionHead(ContinuousTokens(grid=grid, channels=channels), sizes["cond_embed.weight"][1], options)


def _check(found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    problems = []
    if missing := sorted(expected.keys() - found.keys()):
        problems.append(f"missing: {', '.join(missing)}")
    if unexpected := sorted(found.keys() - expected.keys()):
        problems.append(f"unexpected: {', '.join(unexpected)}")
    wrong = [
        f"{name} is {tuple(found[name].shape)} instead of {shape}"
        for name, shape in sorted(expected.items())
        if name in found and tuple(found[name].shape) != shape
    ]
    if wrong:
        problems.append(f"of another shape: {', '.join(wrong)}")
    if problems:
        raise CheckpointMismatchError(
            "The weights are not those of a diffusion head as the predecessor's. " + "; ".join(problems) + ". "
            "Check that the file holds the diffusion head of MAR with learned variance."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "none"
