"""The 10.5 B model of the paper among 256 processes, laid out on the meta device: nothing of it is ever real."""

import pytest
import torch
import torch.distributed as distributed
from torch.distributed.checkpoint.default_planner import create_default_local_save_plan
from torch.testing._internal.distributed.fake_pg import FakeStore

from fluid_core.backbone.sizes import SIZES
from fluid_core.configuration import BackboneConfig, ComponentChoice, TrainingConfig
from fluid_core.training.checkpoints.sharded import state_to_save
from fluid_core.training.processes import Processes
from fluid_core.training.sharding.building import LaidOutModel
from fluid_core.training.sharding.divided_tensors import local
from fluid_core.training.sharding.fully_shard import Sharding, shard_model
from fluid_core.training.step.moving_average import MovingAverage
from fluid_core.training.step.optimizer import build_optimizer

NUM_PROCESSES = 256
NUM_REPLICAS = 8


@pytest.fixture
def processes(request):
    """A process group that only pretends to be one of 256; the parameter is this process's number."""
    # Here, since it loads Triton, of which other tests want the interpreter.
    from torch.distributed.tensor import debug

    # What PyTorch remembers of tensors on an equal mesh is that of the place another test has played.
    debug._clear_sharding_prop_cache()
    distributed.init_process_group("fake", rank=request.param, world_size=NUM_PROCESSES, store=FakeStore())
    yield Processes(rank=request.param, count=NUM_PROCESSES)
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def largest(small_config):
    """The configuration of the paper's largest model, for 256 tokens of 16 channels, with a small text encoder."""
    return small_config(
        tokenizer=ComponentChoice(name="pixel-patches", options={"image_size": 32, "patch_size": 2}),
        head=ComponentChoice(name="diffusion"),
        backbone=BackboneConfig(size="10.5b"),
    )


def laid_out(config, processes, **kind):
    """The model, divided, and the shapes it had before by name."""
    model = LaidOutModel(config).model
    shapes = {name: p.shape for name, p in model.named_parameters() if p.is_meta}
    shard_model(model, Sharding.among(processes, device=torch.device("cpu"), **kind))
    return model, shapes


def rows_of(rank, num_rows, num_shards):
    """First row and number of rows of a shard: even parts, rounded up, the last ones shorter or empty."""
    size = -(-num_rows // num_shards)
    first = min(rank * size, num_rows)
    return first, min(size, num_rows - first)


@pytest.mark.parametrize("processes", [37], indirect=True)
def test_every_process_holds_its_256th(largest, processes):
    """Parameters, gradients, averages and moments of one process: their bytes, and that nothing took memory."""
    model, shapes = laid_out(largest, processes, kind="full")
    parameters = {name: p for name, p in model.named_parameters() if name in shapes}
    assert all(p.is_meta for p in parameters.values())
    num_whole = sum(shape.numel() for shape in shapes.values())
    assert num_whole > 10.5e9
    num_held = 0
    for name, p in parameters.items():
        assert p.shape == shapes[name]
        _, count = rows_of(processes.rank, shapes[name][0], NUM_PROCESSES)
        assert local(p).shape == (count, *shapes[name][1:])
        num_held += local(p).numel()
    # Rounding up to whole rows costs next to nothing: no process holds a tenth more than its even part.
    assert num_held < 1.1 * num_whole / NUM_PROCESSES
    assert 4 * num_held < 200 * 2**20


@pytest.mark.parametrize("processes", [0, 255], indirect=True)
def test_the_checkpoint_of_every_process_is_its_part(largest, processes):
    """Names, shapes and places of what a process would write, planned by PyTorch without a byte of it."""
    model, shapes = laid_out(largest, processes, kind="full")
    average = MovingAverage(model, 0.9999)
    optimizer = build_optimizer(model, TrainingConfig(num_steps=1, batch_size=1))
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            moments = {key: torch.empty_like(parameter.detach()) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.tensor(7.0), **moments}
    tensors, numbers = state_to_save(model, average, optimizer)
    assert numbers["transformer.output_norm.weight|step"] == 7.0
    plan = create_default_local_save_plan(tensors, is_coordinator=processes.is_first)
    written = {item.index.fqn: item.tensor_data for item in plan.items if item.tensor_data is not None}
    num_bytes = 0
    for name, shape in shapes.items():
        first, count = rows_of(processes.rank, shape[0], NUM_PROCESSES)
        for kept in (f"model.{name}", f"ema.{name}", f"optimizer.{name}|exp_avg", f"optimizer.{name}|exp_avg_sq"):
            assert written[kept].size == shape
            assert written[kept].chunk.sizes[0] == count
            assert tuple(written[kept].chunk.sizes[1:]) == tuple(shape[1:])
            assert count == 0 or written[kept].chunk.offsets[0] == first
            num_bytes += 4 * written[kept].chunk.sizes.numel()
    covered = sum(rows_of(rank, 4096, NUM_PROCESSES)[1] for rank in range(NUM_PROCESSES))
    assert covered == 4096, "the parts of all processes are the whole"
    num_whole = sum(shape.numel() for shape in shapes.values())
    assert num_bytes < 1.1 * 16 * num_whole / NUM_PROCESSES


@pytest.mark.parametrize("processes", [255], indirect=True)
def test_groups_hold_the_model_each(largest, processes):
    """Eight groups of 32: every process holds a 32nd, and its place is that within its group."""
    size = NUM_PROCESSES // NUM_REPLICAS
    model, shapes = laid_out(largest, processes, kind="hybrid", shards_per_group=size)
    name = "transformer.blocks.36.self_attention.qkv.weight"
    parameter = dict(model.named_parameters())[name]
    assert parameter.device_mesh.shape == (NUM_REPLICAS, size)
    assert local(parameter).shape == (3 * 4096 // size, 4096)
    assert len(model.transformer.blocks) == SIZES["10.5b"].depth
    held = sum(local(p).numel() for n, p in model.named_parameters() if n in shapes)
    assert held < 1.02 * sum(shape.numel() for shape in shapes.values()) / size
