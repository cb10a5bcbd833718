"""Memory of a plan is what the trainer allocates."""

import attrs
import pytest

from fluid_core import Trainer
from fluid_core.configuration import ComponentChoice, TrainingConfig
from fluid_core.planning.activations import ActivationBytes, count_activations
from fluid_core.planning.fitting import fitting_settings
from fluid_core.planning.gpus import GPUS, find_gpu
from fluid_core.planning.memory import MemoryModel, memory_model
from fluid_core.planning.parameter_counts import count_parameters
from fluid_core.planning.plan import PlanRequest, make_plan
from fluid_core.planning.skeleton import build_skeleton
from fluid_core.training.sight.progress import TrainingProgress


def test_weights_gradients_moments_and_averages_are_those_of_a_real_run(small_config, tokens_and_order, tmp_path):
    """Counted in the tensors of a trainer after its steps; Adam's counters of steps aside."""
    training = TrainingConfig(
        num_steps=2, batch_size=4, device="cpu", sample_every=0, num_validation_images=0, num_fit_images=12
    )
    data = ComponentChoice(name="shapes", options={"num_examples": 30, "num_validation_examples": 10})
    config = small_config(*tokens_and_order, training=training, data=data)
    (use,) = make_plan(config, PlanRequest()).memory
    trainer = Trainer(config, tmp_path / "run", progress=TrainingProgress(silent=True))
    trainer.train()
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    assert use.weights == sum(parameter.nbytes for parameter in trained)
    assert use.gradients == sum(parameter.grad.nbytes for parameter in trained)
    moments = [state[name] for state in trainer.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert use.optimizer == sum(moment.nbytes for moment in moments)
    assert use.average == sum(average.nbytes for average in trainer.average.weights.values())
    assert use.frozen == sum(parameter.nbytes for parameter in trainer.model.tokenizer.parameters())


@pytest.fixture
def large_model() -> MemoryModel:
    """A made-up model of a billion weights."""
    gigabyte = 10**9
    return MemoryModel(
        num_trained=gigabyte,
        frozen=2 * gigabyte,
        largest_block=gigabyte // 50,
        micro_batch=8,
        activations=ActivationBytes(
            none=40 * gigabyte, selective=24 * gigabyte, full=8 * gigabyte, weight_casts=2 * gigabyte
        ),
    )


def test_sharding_divides_what_belongs_to_weights_and_nothing_else(large_model):
    """Over all GPUs, or over those of a group."""
    none, hybrid, full = (
        large_model.use(kind, "none", num_gpus=64, shards_per_group=8) for kind in ("none", "hybrid", "full")
    )
    assert (none.num_shards, hybrid.num_shards, full.num_shards) == (1, 8, 64)
    assert none.weights == 4 * 10**9
    assert none.optimizer == 2 * none.weights
    for use in (hybrid, full):
        assert use.weights * use.num_shards == none.weights
        assert use.average == use.gradients == use.weights
        assert use.frozen == none.frozen
        assert use.activations == none.activations
    assert none.total == 20 * 10**9 + 2 * 10**9 + 4 * 10**9 + 40 * 10**9


def test_settings_that_fit_are_the_nearest(large_model):
    """Sharding first, then smaller micro-batches, then activation checkpointing; each no further than needed."""

    def found(gigabytes, **changes):
        gpu = attrs.evolve(GPUS["h100"], memory_bytes=gigabytes * 1e9 / 0.9)
        settings = {
            "num_gpus": 16,
            "shards_per_group": 8,
            "images_per_gpu": 8,
            "accumulation_steps": 1,
            "sharding": "none",
            "checkpointing": "none",
            **changes,
        }
        remedy = fitting_settings(large_model, gpu, **settings)
        assert remedy is None or remedy.memory.total <= gigabytes * 1e9
        return remedy and (remedy.sharding, remedy.activation_checkpointing, remedy.accumulation_steps)

    assert found(70) == ("none", "none", 1)
    assert found(48) == ("hybrid", "none", 1)
    assert found(46) == ("full", "none", 1)
    assert found(30) == ("hybrid", "none", 2)
    assert found(12) == ("hybrid", "none", 8)
    assert found(9) == ("full", "selective", 8)
    assert found(5) is None
    # A single GPU has nobody to share with.
    assert found(40, num_gpus=1) == ("none", "none", 4)


def test_frozen_parts_count_in_their_own_type(medium_config, example_choice, tmp_path):
    """T5 in bfloat16 takes half of what it takes in float32, and is whole on every GPU."""
    choice = example_choice("text-encoder", "t5", tmp_path / "t5")
    half = attrs.evolve(choice, options={**choice.options, "dtype": "bfloat16"})
    frozen = []
    for one in (choice, half):
        skeleton = build_skeleton(medium_config(text_encoder=one))
        activations = count_activations(skeleton, num_images=2, text_length=8, precision="float32")
        model = memory_model(skeleton, count_parameters(skeleton), activations, micro_batch=2)
        frozen.append(model.use("full", "none", num_gpus=8, shards_per_group=8).frozen)
    assert frozen[0] == 2 * frozen[1] > 0


def test_gpus_are_found_by_name():
    """In any case of letters; every figure is that of a GPU and not of a slip in its units."""
    assert find_gpu("H100") is GPUS["h100"]
    for gpu in GPUS.values():
        assert 5e13 < gpu.bfloat16_flops < 5e15
        assert gpu.float32_flops <= gpu.tensorfloat32_flops <= gpu.bfloat16_flops
        assert 2e10 < gpu.memory_bytes < 3e11
        assert 2e11 < gpu.bandwidth < 1e13
