"""The validation loss as a protocol: what chance depends on, what it adds up to, and that it can be interrupted."""

import json

import pytest
import torch
from safetensors.torch import load_file

from fluid_core import FluidPipeline
from fluid_core.assembly import build_dataset
from fluid_core.configuration import ComponentChoice
from fluid_core.data.numbered_items import NumberedItems
from fluid_core.errors import InvalidRequestError, OutputError
from fluid_core.evaluation.evaluation_data import EvaluationData
from fluid_core.evaluation.keyed_loss import NUM_SHARES, keyed_losses
from fluid_core.evaluation.result_file import read_result
from fluid_core.evaluation.validation_loss import validation_loss
from fluid_core.evaluation.validation_loss_run import ValidationLossRun, measure_validation_loss
from fluid_core.exchange import DatasetContext

SHAPES = ComponentChoice(name="shapes", options={"num_validation_examples": 30})


@pytest.fixture(scope="module")
def items():
    """Seven pictures with captions, by number."""
    dataset = build_dataset(SHAPES, DatasetContext(image_size=(24, 24), split="validation", seed=0))
    return NumberedItems(dataset, 7).read(range(7))


@pytest.fixture
def run(saved_model, tmp_path):
    """A function that makes a run over ten pictures into the folder `out`."""

    def make(out="out", **others):
        data = EvaluationData(data=SHAPES, num_images=others.pop("num_images", 10))
        settings = {"model": saved_model, "data": data, "out": tmp_path / out, "batch_size": 4, "device": "cpu"}
        return ValidationLossRun(**{**settings, **others})

    return make


def test_forward_sums_the_losses_of_tokens(small_model, images, captions):
    """The training loss is, to the bit, the sum of what the parts of the protocol are made from."""
    model = small_model().eval()
    batch = model.prepare(images, captions, generator=torch.Generator().manual_seed(0))
    predicted, summed = model.token_losses(batch), model(batch)
    assert torch.equal(predicted.loss.total.sum(), summed.total)
    assert len(predicted.chosen) == summed.num_tokens
    assert predicted.chosen.tolist() == sorted(set(predicted.chosen.tolist()))


def test_without_chance_it_is_the_loss_of_training(small_model, items):
    """A raster model over ids draws nothing: the mean is that which the trainer logs."""
    model = small_model("discrete", "raster").eval()
    found = keyed_losses(model, items, seed=3)
    expected = validation_loss(model, [one.item for one in items])
    assert float(found.totals["loss"].sum() / found.num_tokens.sum()) == pytest.approx(expected["loss"], rel=1e-5)
    assert (found.num_tokens == 9).all()


def test_a_picture_is_measured_alike_in_any_company(small_model, items):
    """Order, mask, noise and draw belong to the number of a picture, not to its batch."""
    model = small_model().eval()
    together = keyed_losses(model, items, seed=1, num_draws=2)
    for row in (0, 3, 6):
        alone = keyed_losses(model, [items[row]], seed=1, num_draws=2)
        assert torch.equal(alone.num_tokens[0], together.num_tokens[row])
        torch.testing.assert_close(alone.totals["loss"][0], together.totals["loss"][row], rtol=1e-4, atol=1e-5)
    assert together.num_tokens[:, 0].tolist() != together.num_tokens[:, 1].tolist()
    other = keyed_losses(model, items, seed=2, num_draws=2)
    assert not torch.equal(other.totals["loss"], together.totals["loss"])


def test_two_models_see_the_same_draws(small_model, items):
    """Another model predicts the same tokens; the same model finds the same losses."""
    one, other = (keyed_losses(small_model(seed=seed).eval(), items, seed=0) for seed in (0, 1))
    assert torch.equal(one.num_tokens, other.num_tokens)
    assert not torch.equal(one.totals["loss"], other.totals["loss"])
    again = keyed_losses(small_model(seed=0).eval(), items, seed=0)
    assert torch.equal(one.totals["loss"], again.totals["loss"])


@pytest.mark.parametrize(("tokens", "order"), [("continuous", "random"), ("discrete", "raster")])
def test_losses_by_known_share_add_up(tokens, order, small_model, items):
    """Sums over shares are sums over tokens; a causal model predicts one token at every place."""
    found = keyed_losses(small_model(tokens, order).eval(), items, seed=0, num_draws=3)
    assert found.share_totals.shape == (7, NUM_SHARES)
    torch.testing.assert_close(found.share_totals.sum(dim=1), found.totals["loss"].sum(dim=1))
    assert torch.equal(found.share_num_tokens.sum(dim=1), found.num_tokens.sum(dim=1))
    if order == "raster":
        expected = torch.bincount(torch.arange(9) * NUM_SHARES // 9, minlength=NUM_SHARES) * 3
        assert torch.equal(found.share_num_tokens, expected.expand(7, -1))


def test_known_shares_are_those_of_the_order(small_model, items, shuffled_causal_order):
    """Of an order that shuffles, what a token knows is its rank in the order and not its place in the picture."""
    model = small_model(order=shuffled_causal_order()).eval()
    found = keyed_losses(model, items, seed=0)
    batch_view = model.order.training_view(
        1, model.tokenizer.token_space.grid, generator=torch.Generator().manual_seed(0), device="cpu"
    )
    assert batch_view.order[0].tolist() != list(range(9))
    expected = torch.bincount(torch.arange(9) * NUM_SHARES // 9, minlength=NUM_SHARES)
    assert torch.equal(found.share_num_tokens, expected.expand(7, -1))


def test_the_record_says_what_was_measured(run, saved_model):
    """Figures, settings, seeds, the model and the hash of the data are in the file, and in what is returned."""
    record = measure_validation_loss(run(num_draws=3, seed=5))
    found = read_result(run().out / "validation-loss.json")
    assert found.values == json.loads(json.dumps(record.values))
    assert (found.what, found.num_images, found.seeds) == ("validation-loss", 10, {"draws": 5, "data": 0})
    assert (found.model.folder, found.model.weights, found.dtype) == ("tiny", "ema", "float32")
    assert found.settings["data"]["name"] == "shapes"
    assert found.settings["head"]["name"] == "diffusion"
    assert found.settings["num_skipped"] == 0
    kept = load_file(run().out / "per-image.safetensors")
    assert kept["total.loss"].shape == (10, 3)
    assert float(kept["total.loss"].sum() / kept["num_tokens"].sum()) == pytest.approx(found.values["loss"])
    by_draw = (kept["total.loss"].sum(dim=0) / kept["num_tokens"].sum(dim=0)).tolist()
    assert found.values["loss_by_draw"] == pytest.approx(by_draw)
    rows = found.values["loss_by_known_share"]
    assert sum(row["num_tokens"] for row in rows) == found.values["num_tokens"] == int(kept["num_tokens"].sum())


def test_the_standard_error_is_that_of_resampled_pictures(run):
    """Drawing pictures anew with replacement spreads the mean as the record says, within a fifth."""
    record = measure_validation_loss(run(num_images=30))
    kept = load_file(run().out / "per-image.safetensors")
    totals, counts = kept["total.loss"][:, 0], kept["num_tokens"][:, 0]
    picks = torch.randint(30, (4000, 30), generator=torch.Generator().manual_seed(0))
    means = totals[picks].sum(dim=1) / counts[picks].sum(dim=1)
    assert record.values["standard_error"] == pytest.approx(float(means.std()), rel=0.2)


def test_the_data_is_told_from_other_data(run):
    """The hash is the same for another batch size, and another one for other pictures."""
    one = measure_validation_loss(run("a"))
    other_batches = measure_validation_loss(run("b", batch_size=3))
    fewer = measure_validation_loss(run("c", num_images=9))
    hashes = [record.settings["data_sha256"] for record in (one, other_batches, fewer)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert one.values["loss"] == pytest.approx(other_batches.values["loss"], rel=1e-4)


def test_an_interrupted_measurement_goes_on(run):
    """Parts that are missing are computed, and the record is the one of an undisturbed run."""
    whole = measure_validation_loss(run("whole"))
    measure_validation_loss(run())
    (run().out / "parts" / "000001.safetensors").unlink()
    (run().out / "validation-loss.json").unlink()
    told = []
    again = measure_validation_loss(run(), told=lambda done, total: told.append((done, total)))
    assert told == [(1, 1)]
    assert again.values == whole.values
    assert (run("whole").out / "per-image.safetensors").read_bytes() == (
        run().out / "per-image.safetensors"
    ).read_bytes()


def test_another_model_is_not_mixed_in(run, small_model, tmp_path):
    """The folder of one model is refused for another, unless it may be overwritten."""
    before = measure_validation_loss(run())
    FluidPipeline(small_model(seed=7), weights="raw").save_pretrained(tmp_path / "other")
    with pytest.raises(OutputError, match=r"model: .* before"):
        measure_validation_loss(run(model=tmp_path / "other"))
    after = measure_validation_loss(run(model=tmp_path / "other", overwrite=True))
    assert after.values["loss"] != before.values["loss"]
    assert after.model.weights == "raw"


def test_numbers_below_one_are_refused(run):
    """There is no mean over no draws."""
    for name in ("num_draws", "batch_size"):
        with pytest.raises(InvalidRequestError, match=name):
            run(**{name: 0})


def test_the_command_prints_the_loss(fluid, saved_model, tmp_path):
    """`fluid evaluate loss` prints the figure of the record; without a data set it says what is missing."""
    arguments = ("evaluate", "loss", saved_model, "--images", 6, "--out", tmp_path / "loss", "--device", "cpu")
    code, out, err = fluid(*arguments, "--data", "shapes")
    assert code == 0, err
    value = read_result(tmp_path / "loss" / "validation-loss.json").values["loss"]
    assert f"validation loss {value:.4g}" in out
    assert "tiny, ema weights, 6 pictures" in out
    code, _, err = fluid(*arguments)
    assert code == 1
    assert "--data NAME" in err


@pytest.mark.slow
def test_two_processes_find_what_one_does(fluid, fluid_in_processes, saved_model, tmp_path):
    """Sums of each picture are the same to the byte, and one process alone speaks."""
    arguments = ("evaluate", "loss", saved_model, "--data", "shapes", "--images", 10, "--batch-size", 3)
    code, _, err = fluid(*arguments, "--out", tmp_path / "one")
    assert code == 0, err
    done = fluid_in_processes(2, *arguments, "--out", tmp_path / "two", cold=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation loss") == 1
    one, two = (tmp_path / name / "per-image.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
