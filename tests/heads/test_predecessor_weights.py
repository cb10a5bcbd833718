"""Loading the predecessor's head weights, and what is said about weights of something else."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fluid_core.errors import CheckpointError, CheckpointMismatchError
from fluid_core.token_space import Grid
from fluid_heads.diffusion.options import DiffusionOptions
from fluid_heads.diffusion.predecessor import load_predecessor_head, predecessor_names

STATE = Path(__file__).parents[1] / "golden" / "data" / "diffloss_d3_state.safetensors"
GRID = Grid(height=16, width=16)


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """Weights of a head with 3 blocks."""
    return load_file(STATE)


def test_sizes_come_from_the_weights_and_sampling_from_the_predecessor(weights: dict[str, Tensor]) -> None:
    """Channels, widths and depth are read; the options are the predecessor's unless given."""
    head = load_predecessor_head(weights, grid=GRID)
    assert head.token_space.channels == 16
    assert head.condition_width == 32
    assert (head.options.width, head.options.depth) == (64, 3)
    assert (head.options.first_timestep, head.options.token_limit) == (999, None)
    safe = load_predecessor_head(weights, grid=GRID, options=DiffusionOptions(num_sampling_steps=25))
    assert (safe.options.first_timestep, safe.options.depth, safe.options.num_sampling_steps) == (980, 3, 25)


@pytest.mark.parametrize("prefix", ["", "net.", "diffloss.net."])
def test_prefixes(weights: dict[str, Tensor], prefix: str, tmp_path: Path) -> None:
    """The head alone, its module, or a file of the whole model, whose other tensors are left alone."""
    prefixed = {prefix + name: value for name, value in weights.items()}
    if prefix == "diffloss.net.":
        prefixed["encoder_blocks.0.mlp.fc1.weight"] = torch.zeros(3)
    save_file(prefixed, tmp_path / "model.safetensors")
    head = load_predecessor_head(tmp_path / "model.safetensors", grid=GRID)
    state = head.network.state_dict()
    for ours, theirs in predecessor_names(3).items():
        assert torch.equal(state[ours], weights[theirs])


def test_tensors_are_copied_and_train(weights: dict[str, Tensor]) -> None:
    """The head does not share memory with what it was loaded from, and takes gradients."""
    head = load_predecessor_head(weights, grid=GRID)
    before = weights["cond_embed.bias"].clone()
    with torch.no_grad():
        head.network.condition_projection.bias.add_(1.0)
    assert torch.equal(weights["cond_embed.bias"], before)
    assert all(parameter.requires_grad for parameter in head.parameters())


def test_every_problem_is_named(weights: dict[str, Tensor]) -> None:
    """Missing, unexpected and misshapen tensors in one message."""
    del weights["res_blocks.1.mlp.2.bias"]
    weights["res_blocks.0.extra"] = torch.zeros(1)
    weights["final_layer.linear.weight"] = torch.zeros(16, 64)
    with pytest.raises(CheckpointMismatchError) as caught:
        load_predecessor_head(weights, grid=GRID)
    message = str(caught.value)
    assert "missing: res_blocks.1.mlp.2.bias" in message
    assert "unexpected: res_blocks.0.extra" in message
    assert "final_layer.linear.weight is (16, 64) instead of (32, 64)" in message


def test_weights_of_something_else(tmp_path: Path) -> None:
    """The message says which tensor was looked for and what there is."""
    with pytest.raises(CheckpointMismatchError, match=r"'input_proj\.weight'.*missing.*conv\.weight"):
        load_predecessor_head({"conv.weight": torch.zeros(3, 3)}, grid=GRID)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_missing_or_damaged_files(content: bytes | None, tmp_path: Path) -> None:
    """A clear error, whether the file is absent, empty or of another format."""
    path = tmp_path / "head.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"safetensors file.*head\.safetensors"):
        load_predecessor_head(path, grid=GRID)


def test_a_truncated_file(tmp_path: Path) -> None:
    """A download that broke off."""
    path = tmp_path / "head.safetensors"
    path.write_bytes(STATE.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="safetensors file"):
        load_predecessor_head(path, grid=GRID)
