"""Weights divided among two and four processes train, sample, save and resume as whole ones do.

Starting processes takes longer than these runs, so each start does several of them.
"""

import json
import shutil

import attrs
import pytest
import torch
from safetensors.torch import load_file

from fluid_core import FluidPipeline
from fluid_core.configuration import BackboneConfig, ComponentChoice, TrainingConfig, config_to_json
from fluid_core.errors import ConfigurationError
from fluid_core.training.processes import Processes
from fluid_core.training.run.model import open_sharding
from fluid_core.training.sight.metrics import OF_THE_MACHINE, read_metrics

RUN_JOBS = """
import json
import sys
from pathlib import Path

import torch

from fluid_core import Trainer
from fluid_core.configuration import config_from_json
from fluid_core.training.sharding.divided_tensors import local, whole

for job in json.loads(Path(sys.argv[1]).read_text()):
    config = config_from_json(Path(job["config"]).read_text(), source="test")
    trainer = Trainer(config, job["folder"], resume=job["resume"])
    fresh = {name: whole(tensor) for name, tensor in trainer.model.state_dict().items()}
    held = {name: local(tensor).numel() for name, tensor in trainer.model.named_parameters()}
    if trainer.processes.is_first:
        torch.manual_seed(0)
        report = {"held": held, "kinds": sorted({type(one).__name__ for one in trainer.model.modules()})}
        Path(job["folder"] + ".report.json").write_text(json.dumps(report))
        from fluid_core.atomic_files import write_safetensors
        write_safetensors(Path(job["folder"] + ".fresh.safetensors"), fresh)
    trainer.train()
trainer.processes.leave()
"""


@pytest.fixture(scope="module")
def run_jobs(torchrun, tmp_path_factory):
    """A function that does (configuration, folder, whether to resume) one after the other in so many processes."""

    def run(jobs, *, num_processes):
        place = tmp_path_factory.mktemp("jobs")
        script, listed = place / "run_jobs.py", []
        script.write_text(RUN_JOBS)
        for index, (config, folder, resume) in enumerate(jobs):
            (place / f"{index}.json").write_text(config_to_json(config))
            listed.append({"config": str(place / f"{index}.json"), "folder": str(folder), "resume": resume})
        (place / "jobs.json").write_text(json.dumps(listed))
        done = torchrun(num_processes, script, place / "jobs.json")
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stderr

    return run


@pytest.fixture(scope="module")
def short(run_config):
    """A function that makes the configuration of four steps on five images, which no number of processes divides."""

    def make(tokens, order, sharding="none", parts=None, **training):
        settings = {
            "batch_size": 5,
            "num_steps": 4,
            "learning_rate": 2e-3,
            "checkpoint_every": 4,
            "num_validation_images": 3,
            "sharding": sharding,
            **training,
        }
        return run_config(tokens, order, parts, **settings)

    return make


PAPER_MODELS = [("continuous", "random"), ("continuous", "raster"), ("discrete", "random"), ("discrete", "raster")]
MIXTURE = {"head": ComponentChoice(name="gaussian-mixture"), "unconditional": "empty-prompt"}
DRAWN = {"sample_prompts": ("a red circle",)}


def check_same_training(one, other):
    """Models, averages and logged figures of two runs agree within what float32 leaves open."""
    for weights in ("model", "model-raw"):
        expected, found = (load_file(run / weights / "model.safetensors") for run in (one, other))
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            # Attention does not depend on the bias of keys: its gradient is rounding, which Adam blows up.
            if name.endswith(("qkv.bias", "keys_values.bias")):
                continue
            torch.testing.assert_close(
                found[name], tensor, atol=3e-5, rtol=3e-4, msg=lambda text, n=name: f"{n} {text}"
            )
    rows = [
        [
            {key: value for key, value in row.items() if key not in OF_THE_MACHINE}
            for row in read_metrics(run / "metrics.jsonl")
        ]
        for run in (one, other)
    ]
    assert len(rows[0]) == len(rows[1])
    for first, second in zip(*rows, strict=True):
        assert first.keys() == second.keys()
        assert first == {key: pytest.approx(value, rel=2e-4, abs=1e-7) for key, value in second.items()}


@pytest.fixture(scope="module")
def alone(short, make_trainer, tmp_path_factory):
    """Runs of one process, by name: of the paper's four models, and of the mixture from the example package."""
    place = tmp_path_factory.mktemp("alone")
    for tokens, order in PAPER_MODELS:
        parts = DRAWN if order == "random" else None
        make_trainer(short(tokens, order, parts=parts, sample_every=4), place / f"{tokens}-{order}").train()
    make_trainer(short("continuous", "random", parts=MIXTURE), place / "mixture").train()
    return place


@pytest.mark.slow
def test_two_processes_with_divided_weights_train_what_one_does(alone, short, run_jobs, make_trainer, tmp_path):
    """The paper's four models and a head of another package: fresh weights to the bit, trained ones within float32.

    The checkpoint they leave is loaded whole by one process, to the bit, which then trains on.
    """
    jobs = []
    for tokens, order in PAPER_MODELS:
        parts = DRAWN if order == "random" else None
        config = short(tokens, order, "full", parts=parts, sample_every=4)
        jobs.append((config, tmp_path / f"{tokens}-{order}", False))
    jobs.append((short("continuous", "random", "full", MIXTURE), tmp_path / "mixture", False))
    started_from = load_file(alone / "discrete-raster" / "model" / "model.safetensors")
    tuned = short(
        "discrete", "raster", "full", init_from=alone / "discrete-raster", num_steps=1, num_validation_images=0
    )
    told = run_jobs([*jobs, (tuned, tmp_path / "tuned", False)], num_processes=2)
    saved = load_file(tmp_path / "tuned.fresh.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in started_from.items())
    assert told.count("validation loss") == 5, "one process alone speaks"
    for config, folder, _ in jobs:
        check_same_training(alone / folder.name, folder)
        # Steps of no size show the weights that a single process starts from.
        still = attrs.evolve(config, training=attrs.evolve(config.training, sharding="none"))
        fresh = make_trainer(still, tmp_path / f"{folder.name}-fresh").model.state_dict()
        saved = load_file(f"{folder}.fresh.safetensors")
        assert all(torch.equal(saved[name], tensor) for name, tensor in fresh.items())
        state = json.loads((folder / "checkpoints" / "step-00000004" / "state.json").read_text())
        assert state["layout"] == "sharded"
        assert len(state["files"]) == 6
        assert not any(path.suffix in (".metadata", ".pt", ".distcp") for path in folder.rglob("*"))
        longer = attrs.evolve(still, training=attrs.evolve(still.training, num_steps=6))
        resumed = make_trainer(longer, folder, resume=True)
        raw = load_file(folder / "model-raw" / "model.safetensors")
        average = load_file(folder / "model" / "model.safetensors")
        assert all(torch.equal(tensor, raw[name]) for name, tensor in resumed.model.saved_state().items())
        assert all(torch.equal(tensor, average[name]) for name, tensor in resumed.average.weights.items())
        resumed.train()
        shutil.copytree(alone / folder.name, tmp_path / "alone" / folder.name)
        make_trainer(longer, tmp_path / "alone" / folder.name, resume=True).train()
        check_same_training(tmp_path / "alone" / folder.name, folder)
    assert (tmp_path / "continuous-random" / "samples" / "step-00000004.png").exists()
    report = json.loads((tmp_path / "discrete-random.report.json").read_text())
    held, whole = report["held"], {n: p.numel() for n, p in resumed.model.named_parameters()}
    assert held["transformer.blocks.0.self_attention.qkv.weight"] == 96 * 32 // 2
    assert held["token_embedding.content.weight"] == 24 * 32 // 2
    assert held["text_encoder.byte_embedding.weight"] == whole["text_encoder.byte_embedding.weight"]
    # Tied weights are in one group with the embedding, that of the model.
    assert "FSDPSoftmaxHead" not in report["kinds"]
    assert "FSDPGaussianMixtureHead" in json.loads((tmp_path / "mixture.report.json").read_text())["kinds"]
    FluidPipeline.from_pretrained(tmp_path / "continuous-random" / "model")("a red circle", seed=0)


@pytest.mark.slow
def test_four_processes_train_what_one_does_and_go_on_with_what_fewer_began(
    alone, short, run_jobs, make_trainer, tmp_path
):
    """The paper's four models, in groups and not; then from two processes to four in groups, and from one to four.

    The end is that of an unbroken run. Activation checkpointing and parts of a batch make no difference either.
    """
    parts = {"backbone": BackboneConfig(width=30, depth=1, num_heads=2, aligner_depth=1), **DRAWN}
    half = {"num_steps": 2, "activation_checkpointing": "full", "num_validation_images": 0}
    whole = {"num_steps": 4, "activation_checkpointing": "selective", "num_validation_images": 0}
    make_trainer(
        short("continuous", "random", parts=parts, **{**whole, "batch_size": 8}), tmp_path / "unbroken"
    ).train()
    first = short("continuous", "random", "full", parts, **{**half, "batch_size": 8, "accumulation_steps": 2})
    run_jobs([(first, tmp_path / "from-two", False)], num_processes=2)
    make_trainer(first, tmp_path / "from-one").train()
    groups = {"sharding": "hybrid", "shards_per_group": 2, "accumulation_steps": 2}
    jobs = [
        (
            short("continuous", "random", parts=parts, **{**whole, "batch_size": 8, **groups}),
            tmp_path / "from-two",
            True,
        ),
        (short("continuous", "random", "full", parts, **{**whole, "batch_size": 8}), tmp_path / "from-one", True),
    ]
    kinds = {"random": {"sharding": "hybrid", "shards_per_group": 2}, "raster": {"sharding": "full"}}
    models = [
        (
            short(tokens, order, parts=DRAWN if order == "random" else None, **kinds[order]),
            tmp_path / f"{tokens}-{order}",
            False,
        )
        for tokens, order in PAPER_MODELS
    ]
    run_jobs([*jobs, *models], num_processes=4)
    for _, folder, _ in models:
        check_same_training(alone / folder.name, folder)
    for _, folder, _ in jobs:
        check_same_training(tmp_path / "unbroken", folder)
        state = json.loads((folder / "checkpoints" / "step-00000004" / "state.json").read_text())
        assert state["num_processes"] == 4
        assert state["layout"] == "sharded"


def test_groups_must_divide_the_processes(monkeypatch, run_config):
    """Six processes are no groups of four."""
    monkeypatch.setattr("torch.distributed.get_backend", lambda: "fake")
    settings = run_config(sharding="hybrid", shards_per_group=4).training
    with pytest.raises(ConfigurationError, match="found 6 processes and groups of 4"):
        open_sharding(Processes(rank=0, count=6), settings)


def test_one_process_divides_nothing(run_config):
    """A configuration for many processes runs in one as it is."""
    assert open_sharding(Processes(), run_config(sharding="full").training) is None
    assert TrainingConfig(num_steps=1, batch_size=1).sharding == "none"
