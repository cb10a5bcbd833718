"""The training loop: what a run leaves behind, and how it ends when something is wrong."""

import json
import logging

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from fluid_core import FluidPipeline
from fluid_core.configuration import ComponentChoice, config_from_json
from fluid_core.data.batches import BatchLoader, readable_items
from fluid_core.errors import (
    ConfigurationError,
    DataError,
    IncompatibleComponentsError,
    InvalidRequestError,
    NonFiniteLossError,
    OutputError,
    PromptError,
)
from fluid_core.evaluation.validation_loss import validation_loss
from fluid_core.exchange import TokenLoss
from fluid_core.training.sight.metrics import read_metrics

PROMPTS = ("a red circle", "two blue squares")


def contents(folder):
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(run_config, make_trainer, tmp_path_factory):
    """A trainer that ran for six steps, and its result; not to be changed."""
    settings = {"num_steps": 6, "log_every": 2, "checkpoint_every": 3, "sample_every": 3, "num_validation_images": 6}
    folder = tmp_path_factory.mktemp("finished") / "run"
    trainer = make_trainer(run_config(parts={"sample_prompts": PROMPTS}, **settings), folder)
    return trainer, trainer.train()


def test_a_run_leaves_a_model_metrics_samples_and_checkpoints(finished):
    """Everything the documentation promises is there, and no half-written file."""
    trainer, result = finished
    files = set(contents(trainer.folder))
    assert {"config.json", "metrics.jsonl", "samples/step-00000003.png", "samples/step-00000006.png"} <= files
    assert {"model/model_index.json", "model/model.safetensors"} <= files
    assert {"model-raw/model_index.json", "model-raw/model.safetensors"} <= files
    assert {f"checkpoints/step-0000000{step}/state.json" for step in (3, 6)} <= files
    assert not any(part.startswith(".") or part.endswith((".pt", ".pkl", ".bin")) for part in files)
    assert config_from_json((trainer.folder / "config.json").read_text()) == trainer.config
    assert result.model_folder == trainer.folder / "model"
    assert result.num_steps == 6
    assert result.seconds > 0
    assert result.images_per_second == pytest.approx(6 * 4 / result.seconds)


def test_metrics_hold_figures_of_the_steps(finished):
    """A row every two steps with loss, its parts, gradient norm, rate and speed, and the validation losses between."""
    trainer, result = finished
    rows = read_metrics(trainer.folder / "metrics.jsonl")
    trained = [row for row in rows if "loss" in row]
    assert [row["step"] for row in trained] == [2, 4, 6]
    for row in trained:
        assert row["loss"] == pytest.approx(row["mse"] + row["vb"], rel=1e-5)
        assert row["gradient_norm"] > 0
        assert row["images_per_second"] > 0
        assert row["num_skipped_images"] == 0
    assert [row["learning_rate"] for row in trained] == pytest.approx([1e-2] * 3)
    validated = [row for row in rows if "validation_loss" in row]
    assert [row["step"] for row in validated] == [3, 6]
    assert validated[-1]["validation_loss"] == pytest.approx(result.validation["loss"])
    assert result.validation.keys() == {"loss", "mse", "vb"}


def test_the_validation_loss_is_that_of_the_average(finished):
    """What the run reports is what the saved model scores on the validation data."""
    trainer, result = finished
    model = FluidPipeline.from_pretrained(result.model_folder).model
    items = readable_items(trainer.validation_data, 6).items
    measured = validation_loss(model, items)
    assert measured == pytest.approx(result.validation)
    assert measured == validation_loss(model, items)
    assert measured["loss"] != validation_loss(trainer.model, items)["loss"]


def test_the_two_models_say_which_weights_they_hold(finished):
    """`model` is the moving average and `model-raw` the weights themselves, bit for bit, and both can draw."""
    trainer, result = finished
    average = FluidPipeline.from_pretrained(result.model_folder)
    raw = FluidPipeline.from_pretrained(trainer.folder / "model-raw")
    assert (average.weights, raw.weights) == ("ema", "raw")
    for name, weight in trainer.average.weights.items():
        assert torch.equal(average.model.state_dict()[name], weight)
        assert torch.equal(raw.model.state_dict()[name], trainer.model.state_dict()[name])
    assert any(
        not torch.equal(weight, raw.model.state_dict()[name]) for name, weight in average.model.state_dict().items()
    )
    assert torch.equal(raw.model.tokenizer.statistics.mean, average.model.tokenizer.statistics.mean)
    assert average("a red circle", num_inference_steps=1).images[0].size == (24, 24)


def test_sample_sheets_are_pictures_with_every_prompt(finished):
    """A PNG that opens, wide enough for one tile per prompt, that changes while the model learns."""
    trainer, _ = finished
    sheets = [Image.open(trainer.folder / "samples" / f"step-0000000{step}.png") for step in (3, 6)]
    for sheet in sheets:
        sheet.load()
        assert sheet.format == "PNG"
        assert sheet.mode == "RGB"
        assert sheet.width == 2 * 174 + 14
        assert 160 < sheet.height < 320
    assert not np.array_equal(np.asarray(sheets[0]), np.asarray(sheets[1]))


def test_captions_that_are_cut_are_told_in_a_few_lines(run_config, make_trainer, tmp_path, caplog):
    """Every caption of a run is too long: the first is told in full, and at the end how many there were."""
    encoder = ComponentChoice(name="bytes", options={"width": 16, "max_length": 6, "overlong": "truncate"})
    trainer = make_trainer(run_config(parts={"text_encoder": encoder}, num_steps=5), tmp_path / "run")
    with caplog.at_level(logging.WARNING, logger="fluid_core"):
        trainer.train()
        first, last = caplog.messages
        assert first.startswith("Truncated prompt 1 of 4 from ")
        assert first.endswith("was cut from the end. Further texts that are cut are counted.")
        assert last == "Truncated 20 of 20 texts in all."
        caplog.clear()
        trainer.model.encode_text(["a red circle", "a blue square"])
    assert [message[:21] for message in caplog.messages] == ["Truncated prompt 1 of", "Truncated prompt 2 of"]


def test_training_lowers_the_loss(run_config, make_trainer, tmp_path):
    """Thirty steps on shapes bring the validation loss well below that of the fresh model."""
    config = run_config("discrete", "random", num_steps=30, batch_size=8, ema_decay=0.5, num_validation_images=10)
    trainer = make_trainer(config, tmp_path / "run")
    before = validation_loss(trainer.model, readable_items(trainer.validation_data, 10).items)["loss"]
    after = trainer.train().validation["loss"]
    assert after < 0.8 * before


def test_tokenizers_are_fitted_before_the_first_step(run_config, make_trainer, tmp_path):
    """The tokenizer learns from the training data, and its state is saved with the model."""
    trainer = make_trainer(run_config("discrete", "raster"), tmp_path / "run")
    assert trainer.model.tokenizer.fitted
    assert "fitting the tokenizer on 12 images" in trainer.progress.output.getvalue()
    saved = FluidPipeline.from_pretrained(trainer.train().model_folder).model
    assert torch.equal(saved.tokenizer.codebook, trainer.model.tokenizer.codebook)


def test_progress_shows_loss_speed_and_time_left(run_config, make_trainer, tmp_path):
    """Where there is no terminal the last line says what the bar would."""
    trainer = make_trainer(run_config(), tmp_path / "run")
    trainer.train()
    output = trainer.progress.output.getvalue()
    assert "step 4/4  loss " in output
    assert "images/s" in output
    assert "0 s left" in output


def trainer_items(trainer, step):
    """Places in the data set of the images of a step (from 0)."""
    loader = BatchLoader(trainer.train_data, batch_size=trainer.settings.batch_size, seed=trainer.settings.seed)
    loader.close()
    return loader.items(step)


def spoiled(loss, part, factor):
    """A head's loss whose `part` is multiplied by `factor` and everything else left alone."""
    parts = {**loss.parts, part: loss.parts[part] * factor}
    return TokenLoss(total=loss.total * factor, parts=parts)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(run_config, make_trainer, tmp_path, value):
    """The message names step, part and head; weights, averages and every file stay as the last good step left them."""
    trainer = make_trainer(run_config(num_steps=9, checkpoint_every=2), tmp_path / "run")
    head_loss = trainer.model.head.loss
    at_stop = {}

    def loss(condition, target, *, random):
        found = head_loss(condition, target, random=random)
        if trainer.step != 4:
            return found
        at_stop["weights"] = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        at_stop["averages"] = {name: tensor.clone() for name, tensor in trainer.average.weights.items()}
        at_stop["files"] = contents(trainer.folder)
        return spoiled(found, "vb", value)

    trainer.model.head.loss = loss
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.train()
    message = str(caught.value)
    assert message.startswith(f"Step 5: part vb of the loss of DiffusionHead is {value}")
    assert "All weights are finite" in message
    assert message.count("non_finite/step-00000005.json") == 1
    assert "and resume (--resume), which continues from step-00000004." in message
    assert message.endswith("step-00000004 first: the run then continues from step-00000002.")
    assert trainer.step == 4
    assert all(torch.equal(t, at_stop["weights"][name]) for name, t in trainer.model.state_dict().items())
    assert all(torch.equal(t, at_stop["averages"][name]) for name, t in trainer.average.weights.items())
    left = contents(trainer.folder)
    told = json.loads(left.pop("non_finite/step-00000005.json"))
    assert left == at_stop["files"]
    assert told["step"] == 5
    assert told["problem"].startswith("part vb of the loss")
    assert told["items"] == trainer_items(trainer, 4)
    assert told["captions"] == [trainer.train_data[item].caption for item in told["items"]]
    assert [row["step"] for row in read_metrics(trainer.folder / "metrics.jsonl")] == [1, 2, 3, 4]
    resumed = make_trainer(run_config(num_steps=9, checkpoint_every=2), tmp_path / "run", resume=True)
    assert resumed.step == 4
    assert resumed.train().num_steps == 9


def test_weights_that_are_not_finite_are_named(run_config, make_trainer, tmp_path):
    """When a weight is the cause, the message says which."""
    trainer = make_trainer(run_config(), tmp_path / "run")
    with torch.no_grad():
        trainer.model.transformer.blocks[1].feed_forward.hidden.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteLossError, match=r"weights transformer\.blocks\.1\.feed_forward\.hidden\.weight are"):
        trainer.train()


def test_a_gradient_that_is_not_finite_is_named_and_not_applied(run_config, make_trainer, tmp_path):
    """A finite loss with a NaN gradient in one parameter: that parameter is named, and no weight changes."""
    trainer = make_trainer(run_config(), tmp_path / "run")
    head_loss = trainer.model.head.loss
    culprit = trainer.model.head.network.condition_projection.bias

    def loss(condition, target, *, random):
        found = head_loss(condition, target, random=random)
        # The square root of zero is zero; its derivative is not finite.
        return attrs.evolve(found, total=found.total + (culprit * 0.0).sum().sqrt())

    trainer.model.head.loss = loss
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    with pytest.raises(
        NonFiniteLossError, match=r"Step 1: the gradient of head\.network\.condition_projection\.bias is"
    ):
        trainer.train()
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())
    assert trainer.optimizer.state == {}


@pytest.mark.parametrize("limit", [1e-3, None])
def test_gradients_are_clipped_to_the_limit(run_config, make_trainer, tmp_path, limit):
    """The norm reported is that before clipping; after it the gradients have the configured norm, or their own."""
    trainer = make_trainer(run_config(num_steps=1, gradient_clip_norm=limit), tmp_path / "run")
    norms = []
    step = trainer.optimizer.step

    def watching():
        grads = [p.grad for group in trainer.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))
        step()

    trainer.optimizer.step = watching
    trainer.train()
    reported = read_metrics(trainer.folder / "metrics.jsonl")[0]["gradient_norm"]
    assert reported > 0.01
    assert norms[0] == pytest.approx(limit or reported, rel=1e-3)


def image_folder(folder, num_images=12, corrupt=()):
    """Pictures with captions in a folder, some of them cut."""
    folder.mkdir()
    random = np.random.default_rng(0)
    lines = []
    for index in range(num_images):
        path = folder / f"{index}.png"
        Image.fromarray(random.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(path)
        if index in corrupt:
            path.write_bytes(path.read_bytes()[:60])
        lines.append(json.dumps({"file_name": path.name, "text": f"picture {index}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return ComponentChoice(name="image-folder", options={"path": str(folder), "validation_fraction": 0.0})


def test_corrupt_images_are_counted_and_skipped(run_config, make_trainer, tmp_path):
    """A run over a folder with three damaged files finishes; metrics count them, the end reports them with a reason."""
    data = image_folder(tmp_path / "data", corrupt=(0, 4, 9))
    before = contents(tmp_path / "data")
    trainer = make_trainer(run_config(parts={"data": data}, num_steps=6), tmp_path / "run")
    trainer.train()
    counts = [row["num_skipped_images"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert counts == sorted(counts)
    assert counts[-1] == 3
    output = trainer.progress.output.getvalue()
    assert "skipped 3 pictures in training that can not be used, such as: " in output
    assert "Could not read the picture" in output.replace("\n", " ")
    assert contents(tmp_path / "data") == before


def test_pictures_skipped_while_fitting_and_in_validation_are_told(run_config, make_trainer, tmp_path):
    """Both say how many and why; the metrics of each validation count its own."""
    data = image_folder(tmp_path / "data", num_images=40, corrupt=range(0, 40, 2))
    data = attrs.evolve(data, options={**data.options, "validation_fraction": 0.4})
    settings = {"num_fit_images": 1000, "num_validation_images": 1000}
    trainer = make_trainer(run_config(parts={"data": data}, **settings), tmp_path / "run")
    fitting = trainer.progress.output.getvalue().replace("\n", " ")
    trainer.train()
    counts = {}
    for name, dataset in (("train", trainer.train_data), ("validation", trainer.validation_data)):
        counts[name] = len(readable_items(dataset, 1000).skipped)
    assert counts["train"] + counts["validation"] == 20
    assert f"skipped {counts['train']} pictures while fitting the tokenizer that can not be used, such as:" in fitting
    assert f"skipped {counts['validation']} pictures in validation" in trainer.progress.output.getvalue()
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "validation_loss" in row]
    assert [row["validation_num_skipped_images"] for row in rows] == [counts["validation"]]


def test_an_overlong_sample_prompt_is_refused_before_training(run_config, make_trainer, tmp_path):
    """It costs no training time and claims no folder; where no samples are drawn it does no harm."""
    parts = {"sample_prompts": ("a red circle", "x" * 500)}
    with pytest.raises(PromptError, match=r"prompt 2 of 2 to have at most .* found 50"):
        make_trainer(run_config(parts=parts, sample_every=2), tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
    make_trainer(run_config(parts=parts, sample_every=0), tmp_path / "run")


def test_a_folder_of_corrupt_images_is_refused(run_config, make_trainer, tmp_path):
    """When nothing can be read the run ends with a clear error, and the folder is free for another try."""
    data = image_folder(tmp_path / "data", num_images=5, corrupt=range(5))
    with pytest.raises(DataError, match="Not one picture"):
        make_trainer(run_config(parts={"data": data}), tmp_path / "run")
    repaired = image_folder(tmp_path / "repaired")
    make_trainer(run_config(parts={"data": repaired}), tmp_path / "run")


def test_no_validation_data_is_needed_when_none_is_measured(run_config, make_trainer, tmp_path):
    """A folder without a validation split trains as long as no validation loss is asked for."""
    data = image_folder(tmp_path / "data")
    assert make_trainer(run_config(parts={"data": data}), tmp_path / "run").train().validation == {}
    with pytest.raises(ConfigurationError, match="validation"):
        make_trainer(run_config(parts={"data": data}, num_validation_images=4), tmp_path / "other")


def test_a_folder_that_can_not_be_written_is_refused_first(run_config, make_trainer, tmp_path):
    """A file in the way is found before anything is built, and stays."""
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match="can not be written"):
            make_trainer(run_config(), folder)
    assert contents(tmp_path) == {"file": b"mine"}


def test_configurations_that_can_not_train_are_refused(run_config, small_config, make_trainer, tmp_path):
    """Without sections for training, with parts that do not fit, or on a device that is not there."""
    cases = [
        (small_config(), ConfigurationError, r"\[training\] and a \[data\]"),
        (run_config(parts={"head": ComponentChoice(name="softmax")}), IncompatibleComponentsError, "continuous"),
        (run_config(device="cuda:77"), ConfigurationError, "training.device is 'cuda:77'"),
        (run_config(device="abacus"), ConfigurationError, "training.device is 'abacus'"),
    ]
    for config, error, message in cases:
        with pytest.raises(error, match=message):
            make_trainer(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_validation_needs_something_to_measure(finished):
    """No items and empty batches are refused; the model's mode is given back after an error as well."""
    trainer, _ = finished
    items = readable_items(trainer.validation_data, 2).items
    trainer.model.train()
    for arguments in ({"items": ()}, {"items": items, "batch_size": 0}):
        with pytest.raises(InvalidRequestError, match="at least one item and a batch_size of 1 or more"):
            validation_loss(trainer.model, **arguments)
    with pytest.raises(PromptError):
        validation_loss(trainer.model, [attrs.evolve(items[0], caption=" ")])
    assert trainer.model.training


def test_validation_weighs_all_tokens_alike(finished, monkeypatch):
    """Losses of batches of different sizes are summed over tokens and divided once."""
    trainer, _ = finished
    seen = []
    forward = trainer.model.forward
    monkeypatch.setattr(trainer.model, "forward", lambda batch: seen.append(forward(batch)) or seen[-1])
    found = validation_loss(trainer.model, readable_items(trainer.validation_data, 6).items, batch_size=4)
    assert [len(loss.parts) for loss in seen] == [2, 2]
    num_tokens = sum(loss.num_tokens for loss in seen)
    assert found["loss"] == pytest.approx(sum(float(loss.total) for loss in seen) / num_tokens)
    assert found["mse"] == pytest.approx(sum(float(loss.parts["mse"]) for loss in seen) / num_tokens)
