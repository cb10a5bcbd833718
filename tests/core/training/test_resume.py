"""Resuming: a run that was stopped, killed or extended ends bit-equal to one that was not."""

import json
import re
import shutil

import attrs
import pytest
import torch

from fluid_core.atomic_files import read_safetensors, write_safetensors
from fluid_core.configuration import BackboneConfig, ComponentChoice
from fluid_core.errors import CheckpointError, CheckpointMismatchError, ConfigurationError, FluidError
from fluid_core.text import example_transformers_options
from fluid_core.training.checkpoints.file_records import file_records
from fluid_core.training.checkpoints.same_run import check_same_run
from fluid_core.training.checkpoints.whole import Progress, checkpoints, save_checkpoint
from fluid_core.training.sight.metrics import OF_THE_MACHINE, read_metrics


def without_timing(folder):
    """The rows of a run's metrics but for what a clock measured."""
    rows = read_metrics(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key not in OF_THE_MACHINE} for row in rows]


def state(trainer):
    """Every tensor a run ends with, by name."""
    tensors = {f"model|{name}": value for name, value in trainer.model.state_dict().items()}
    tensors |= {f"ema|{name}": value for name, value in trainer.average.weights.items()}
    for name, parameter in trainer.model.named_parameters():
        for key, value in trainer.optimizer.state[parameter].items():
            tensors[f"optimizer|{name}|{key}"] = value
    return tensors


def check_bit_equal(one, other):
    """Weights, averages and optimizer of two runs, and everything they wrote but timing."""
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    assert any(name.startswith("optimizer|") for name in first)
    different = [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]
    assert different == []
    assert without_timing(one.folder) == without_timing(other.folder)
    for file in ("model/model.safetensors", "model-raw/model.safetensors", "samples/step-00000008.png"):
        assert (one.folder / file).read_bytes() == (other.folder / file).read_bytes()


@pytest.fixture
def eight_steps(run_config):
    """A function that makes a configuration with everything random in it: dropout, dropped captions, a cosine."""

    def make(tokens="continuous", order="random", **training):
        parts = {"backbone": BackboneConfig(size="debug", dropout=0.1), "sample_prompts": ("a red circle",)}
        settings = {"num_steps": 8, "schedule": "cosine", "sample_every": 4, "num_validation_images": 6, **training}
        return run_config(tokens, order, parts, **settings)

    return make


@pytest.mark.parametrize(("tokens", "order"), [("continuous", "random"), ("discrete", "raster")])
def test_a_killed_run_continues_bit_equal(eight_steps, make_trainer, tmp_path, tokens, order):
    """Stopped after step 6 with half a checkpoint and half a line left, it goes on from step 4 to the same end."""
    config = eight_steps(tokens, order)
    whole = make_trainer(config, tmp_path / "whole")
    whole.train()

    with pytest.raises(KeyboardInterrupt):
        make_trainer(config, tmp_path / "killed", stop_after=6).train()
    half = tmp_path / "killed" / "checkpoints" / ".step-00000008.x1y2.unfinished"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half a file")
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 6, "loss": 0.')
    resumed = make_trainer(config, tmp_path / "killed", resume=True)
    assert resumed.step == 4
    assert not half.exists()
    result = resumed.train()
    assert result.num_steps == 8
    check_bit_equal(whole, resumed)


def test_a_finished_run_can_be_extended(eight_steps, make_trainer, tmp_path):
    """Four steps, then four more at the same constant rate, are eight steps; what the model sees does not change."""
    config = eight_steps(schedule="constant")
    whole = make_trainer(config, tmp_path / "whole")
    whole.train()
    short = attrs.evolve(config, training=attrs.evolve(config.training, num_steps=4))
    make_trainer(short, tmp_path / "extended").train()
    extended = make_trainer(config, tmp_path / "extended", resume=True)
    assert extended.step == 4
    extended.train()
    check_bit_equal(whole, extended)


def test_a_resumed_run_does_not_depend_on_how_often_it_looks(eight_steps, make_trainer, tmp_path):
    """Drawing samples, measuring and saving take nothing from the randomness of training."""
    often = make_trainer(eight_steps(sample_every=3, checkpoint_every=3), tmp_path / "often")
    rarely = make_trainer(eight_steps(sample_every=0, checkpoint_every=8, num_validation_images=0), tmp_path / "rarely")
    often.train()
    rarely.train()
    first, second = state(often), state(rarely)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_resuming_a_finished_run_changes_no_weight(run_config, make_trainer, tmp_path):
    """There is nothing left to do: the model is written again, the same."""
    first = make_trainer(run_config(), tmp_path / "run")
    first.train()
    before = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    again = make_trainer(run_config(), tmp_path / "run", resume=True)
    assert again.train().num_steps == 4
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == before


def test_resuming_without_a_checkpoint_starts_anew(run_config, make_trainer, tmp_path):
    """Killed before its first checkpoint a run begins again with an empty metrics file, as in a new folder."""
    config = run_config(num_steps=4)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(config, tmp_path / "run", stop_after=2).train()
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 1
    resumed = make_trainer(config, tmp_path / "run", resume=True)
    assert resumed.step == 0
    resumed.train()
    fresh = make_trainer(config, tmp_path / "fresh", resume=True)
    fresh.train()
    assert without_timing(tmp_path / "run") == without_timing(tmp_path / "fresh")


def test_a_folder_with_a_run_is_refused_without_resume(run_config, make_trainer, tmp_path):
    """Nobody loses a run by starting another into its folder, even if its configuration was deleted."""
    make_trainer(run_config(), tmp_path / "run").train()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"run already holds a run\. Continue it with resume"):
        make_trainer(run_config(), tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="already holds a run"):
        make_trainer(run_config(), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "differences"),
    [
        (
            {"head": ComponentChoice(name="diffusion", options={"depth": 2, "num_sampling_steps": 2})},
            ["head.options.depth: 1 -> 2", "head.options.timesteps_per_token: 1 -> not set"],
        ),
        ({"backbone": BackboneConfig(size="debug", mlp_ratio=3.0)}, ["backbone.mlp_ratio: null -> 3.0"]),
        (
            {"data": ComponentChoice(name="shapes", options={"num_examples": 31, "num_validation_examples": 10})},
            ["data.options.num_examples: 30 -> 31"],
        ),
        (
            {"text_encoder": ComponentChoice(name="bytes", options={"width": 8, "overlong": "truncate"})},
            ["text_encoder.options.width: 16 -> 8"],
        ),
    ],
)
def test_another_model_or_data_is_refused_on_resume(run_config, make_trainer, tmp_path, change, differences):
    """A run goes on with what it was started with: the keys that differ are listed, and nothing is written."""
    make_trainer(run_config(), tmp_path / "run").train()
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(CheckpointMismatchError, match="started with another model or data configuration") as caught:
        make_trainer(run_config(parts=change), tmp_path / "run", resume=True)
    assert [line.strip() for line in str(caught.value).splitlines()[1:-1]] == differences
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_what_leaves_the_weights_their_meaning_may_change_on_resume(run_config, make_trainer, tmp_path):
    """A moved data set and another treatment of overlong prompts are no other run; the new values are kept."""
    make_trainer(run_config(), tmp_path / "run").train()
    encoder = ComponentChoice(name="bytes", options={"width": 16, "overlong": "truncate"})
    changed = run_config(parts={"text_encoder": encoder})
    assert make_trainer(changed, tmp_path / "run", resume=True).step == 4
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["config"]["text_encoder"]["options"]["overlong"] == "truncate"

    at = [ComponentChoice(name="image-folder", options={"path": path}) for path in ("old/pictures", "new/pictures")]
    before, after = (run_config(parts={"data": data}) for data in at)
    check_same_run(before, after, tmp_path)
    other = attrs.evolve(after, data=ComponentChoice(name="shapes", options={"path": "new/pictures"}))
    with pytest.raises(CheckpointMismatchError, match=r'data\.name: "image-folder" -> "shapes"'):
        check_same_run(before, other, tmp_path)


def test_a_mistake_does_not_claim_the_folder(run_config, make_trainer, tmp_path):
    """After a configuration that can not be built, the corrected one starts in the same folder."""
    for wrong in (
        {"head": ComponentChoice(name="softmax")},
        {"data": ComponentChoice(name="image-folder", options={"path": str(tmp_path / "nowhere")})},
    ):
        with pytest.raises(FluidError):
            make_trainer(run_config(parts=wrong), tmp_path / "run")
    assert make_trainer(run_config(), tmp_path / "run").step == 0


def test_a_damaged_configuration_is_refused(run_config, make_trainer, tmp_path):
    """A cut config.json is named, not overwritten."""
    make_trainer(run_config(), tmp_path / "run").train()
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ConfigurationError, match=r"config\.json is not valid JSON"):
        make_trainer(run_config(), tmp_path / "run", resume=True)
    assert len(path.read_text()) == 100


@pytest.fixture
def trained(run_config, make_trainer, tmp_path):
    """A trainer that ran, and its newest checkpoint."""
    trainer = make_trainer(run_config(), tmp_path / "run")
    trainer.train()
    return trainer, checkpoints(tmp_path / "run" / "checkpoints")[-1]


@pytest.mark.parametrize("file", ["model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_refused_by_name(trained, run_config, make_trainer, file):
    """Each file of a checkpoint, cut or missing, is named; the other files stay as they are."""
    trainer, checkpoint = trained
    path = checkpoint / file
    path.write_bytes(path.read_bytes()[:20])
    advice = rf"{re.escape(file)}.*delete the folder .*{checkpoint.name} and resume again"
    with pytest.raises(CheckpointError, match=advice):
        make_trainer(run_config(), trainer.folder, resume=True)
    path.unlink()
    before = {other: other.read_bytes() for other in checkpoint.iterdir()}
    with pytest.raises(CheckpointError, match=rf"Expected a file .*{file}"):
        make_trainer(run_config(), trainer.folder, resume=True)
    assert {other: other.read_bytes() for other in checkpoint.iterdir()} == before


def recorded_anew(checkpoint):
    """Make the records of a checkpoint those of its files, as if it had been written like this."""
    path = checkpoint / "state.json"
    state = json.loads(path.read_text())
    state["files"] = file_records(sorted(checkpoint.glob("*.safetensors")))
    del state["checksum"]
    path.write_text(json.dumps(state))


@pytest.mark.parametrize("file", ["ema", "optimizer"])
def test_parts_of_another_models_checkpoint_are_refused(trained, run_config, make_trainer, tmp_path, file):
    """Averages or optimizer state of other shapes would load silently into broadcasting: refused, nothing changed."""
    trainer, checkpoint = trained
    other = run_config(parts={"backbone": BackboneConfig(width=16, depth=2, num_heads=2, aligner_depth=1)})
    make_trainer(other, tmp_path / "other").train()
    foreign = checkpoints(tmp_path / "other" / "checkpoints")[-1] / f"{file}.safetensors"
    shutil.copy(foreign, checkpoint / f"{file}.safetensors")
    recorded_anew(checkpoint)
    with pytest.raises(CheckpointMismatchError, match=rf"{file}\.safetensors does not fit"):
        make_trainer(run_config(), trainer.folder, resume=True)


@pytest.mark.parametrize("lost", ["exp_avg", "step", ""])
def test_missing_moments_are_noticed(trained, run_config, make_trainer, lost):
    """One moment of one parameter, or all of them: the optimizer would silently start from zero."""
    trainer, checkpoint = trained
    path = checkpoint / "optimizer.safetensors"
    tensors = read_safetensors(path)
    name = "aligner.no_text|exp_avg"
    assert name in tensors
    kept = {key: value for key, value in tensors.items() if lost and key != f"aligner.no_text|{lost}"}
    write_safetensors(path, kept)
    recorded_anew(checkpoint)
    with pytest.raises(CheckpointMismatchError, match=r"optimizer\.safetensors does not fit .* is missing, and"):
        make_trainer(run_config(), trainer.folder, resume=True)


def test_a_parameter_without_a_gradient_has_no_moments(trained, run_config, make_trainer):
    """A checkpoint names what had no gradient yet, and loads without moments for it."""
    trainer, checkpoint = trained
    del trainer.optimizer.state[trainer.model.aligner.no_text]
    save_checkpoint(
        checkpoint.parent,
        progress=Progress(step=4, seconds=1.0),
        keep=1,
        model=trainer.model,
        average=trainer.average,
        optimizer=trainer.optimizer,
    )
    assert json.loads((checkpoint / "state.json").read_text())["untouched"] == ["aligner.no_text"]
    resumed = make_trainer(run_config(), trainer.folder, resume=True)
    assert resumed.step == 4
    assert resumed.model.aligner.no_text not in resumed.optimizer.state


def test_a_run_is_not_resumed_with_another_text_encoder(run_config, make_trainer, tmp_path):
    """Other frozen weights in the same folder are refused; a checkpoint that names none, as older ones, is not."""
    options = example_transformers_options(tmp_path / "encoder")
    parts = {"text_encoder": ComponentChoice(name="transformers-encoder", options={"path": options.path})}
    config = run_config(parts=parts)
    trainer = make_trainer(config, tmp_path / "run")
    trainer.train()
    state = checkpoints(tmp_path / "run" / "checkpoints")[-1] / "state.json"
    recorded = json.loads(state.read_text())
    assert recorded["identities"] == {"text_encoder": trainer.model.text_encoder.identity()}
    weights = tmp_path / "encoder" / "model.safetensors"
    tensors = read_safetensors(weights)
    write_safetensors(weights, {name: tensor * 1.01 for name, tensor in tensors.items()})
    with pytest.raises(CheckpointMismatchError, match="run with another text encoder than the one in its place now"):
        make_trainer(config, tmp_path / "run", resume=True)
    del recorded["checksum"]
    state.write_text(json.dumps({**recorded, "identities": ["text_encoder"]}))
    with pytest.raises(CheckpointError, match="expected an identity for each part"):
        make_trainer(config, tmp_path / "run", resume=True)
    state.write_text(json.dumps({key: value for key, value in recorded.items() if key != "identities"}))
    assert make_trainer(config, tmp_path / "run", resume=True).step == 4


def test_parts_that_train_or_are_saved_need_no_identity(trained):
    """Bytes are read by weights of the checkpoint itself, and pixel patches have no other weights."""
    _, checkpoint = trained
    assert "identities" not in json.loads((checkpoint / "state.json").read_text())


def test_a_time_limit_counts_over_resumed_runs(run_config, make_trainer, tmp_path):
    """A run that used up its minutes takes no further step when resumed, and goes on when it is given more."""
    folder = tmp_path / "run"
    config = run_config(num_steps=10_000, max_minutes=0.01, num_validation_images=0)
    first = make_trainer(config, folder).train()
    assert 0 < first.num_steps < 10_000
    assert 0.6 <= first.seconds < 60
    resumed = make_trainer(config, folder, resume=True)
    assert resumed.train().num_steps == first.num_steps
    more = run_config(num_steps=first.num_steps + 2, max_minutes=5.0, num_validation_images=0)
    assert make_trainer(more, folder, resume=True).train().num_steps == first.num_steps + 2


def test_only_the_newest_checkpoints_are_kept(run_config, make_trainer, tmp_path):
    """As many as configured, oldest first; anything that is no finished checkpoint is not among them."""
    trainer = make_trainer(run_config(num_steps=6, checkpoint_every=1, keep_checkpoints=2), tmp_path / "run")
    trainer.train()
    folder = tmp_path / "run" / "checkpoints"
    (folder / ".step-00000099.x.unfinished").mkdir()
    (folder / "step-99").mkdir()
    assert [path.name for path in checkpoints(folder)] == ["step-00000005", "step-00000006"]
    assert sorted(path.name for path in checkpoints(folder)[-1].iterdir()) == [
        "ema.safetensors",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    assert json.loads((checkpoints(folder)[-1] / "state.json").read_text())["step"] == 6


def test_a_checkpoint_that_fails_leaves_the_last_one(trained, monkeypatch):
    """An error while a checkpoint is written removes the half and keeps what was there."""
    trainer, checkpoint = trained
    before = {path: path.read_bytes() for path in checkpoint.iterdir()}
    monkeypatch.setattr(
        "fluid_core.training.checkpoints.whole.write_json", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    arguments = {"model": trainer.model, "average": trainer.average, "optimizer": trainer.optimizer}
    with pytest.raises(OSError, match="full"):
        save_checkpoint(checkpoint.parent, progress=Progress(step=5, seconds=1.0), keep=1, **arguments)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    assert {path: path.read_bytes() for path in checkpoint.iterdir()} == before
