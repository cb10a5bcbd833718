"""The whole: what is gathered from models and folders, the program, and its record."""

import json
import shutil

import pytest
import torch

from fluid_core.diagnosis.evidence import token_values
from fluid_core.diagnosis.finding import Verdict
from fluid_core.diagnosis.signatures import SIGNATURES, look_for_all
from fluid_core.diagnosis.token_drift import diagnose_token_drift
from fluid_core.exchange import DatasetContext
from fluid_core.pipeline import FluidPipeline
from fluid_core.pipeline.image_seeds import image_seeds
from fluid_core.testing.tiny import TinyFlags, TinyGaussianHead, TinyMeanColours, TinyRasterOrder, tiny_model

FEW = ("--num-images", 6, "--batch-size", 4, "--device", "cpu")


class StretchingHead(TinyGaussianHead):
    """Draws tokens of unit variance, stretched by the guidance scale."""

    def sampler(self, settings):
        """A sampler that does not look at anything else."""

        def draw(condition, request):
            scale = 1.0 if request.guidance is None else request.guidance.scale[:, None]
            return scale * request.random.normal((3,))

        return draw


@pytest.fixture(scope="module")
def flags():
    """Twenty flags."""
    return TinyFlags(DatasetContext(image_size=(8, 8)))


def test_guidance_that_stretches_what_a_model_draws_is_found(gather, flags):
    """From the model to the finding: none at 1, and tokens three times too wide at 3."""
    tokenizer = TinyMeanColours()
    tokenizer.fit(torch.stack([flags[index].image for index in range(20)]), seed=0)
    model = tiny_model(tokenizer=tokenizer, head=StretchingHead)
    finding = diagnose_token_drift(gather(model, flags, scales=(1.0, 3.0)))
    assert finding.verdict is Verdict.FOUND
    assert finding.where == "at guidance 3"
    first, second = (row["spread_ratio"]["value"] for row in finding.figures["drawn"])
    assert second == pytest.approx(3 * first, rel=0.05)


def test_what_is_gathered_is_what_the_pipeline_draws(gather, flags):
    """The same tokens as a call with the same seeds and captions, the steps they came in, and real tokens beside."""
    model = tiny_model(order=TinyRasterOrder())
    evidence = gather(model, flags, scales=(1.0, 2.0))
    drawn = evidence.drawn[1]
    captions = [flags[index].caption for index in range(16)]
    seeds = image_seeds(16, 0, None)
    expected = FluidPipeline(model)(captions, seed=seeds, guidance_scale=2.0, output_type="tokens")
    assert torch.equal(drawn.tokens, expected.tokens)
    assert len(drawn.tokens) == len(evidence.real.tokens) == 16
    assert drawn.step[0].tolist() == sorted(drawn.step[0].tolist())
    assert drawn.known_before[:, 0].max() == 0.0
    assert drawn.known_before.max() < 1.0
    images = torch.stack([flags[index].image for index in range(16)])
    tokenizer = TinyMeanColours()
    assert torch.equal(evidence.real.tokens, tokenizer.precompute(images)["colours"])
    assert torch.equal(token_values(drawn.pictures, drawn.tokens, evidence.grid), drawn.tokens.double())
    assert evidence.one_after_the_other
    assert len(evidence.caption_losses.right) == 20


def test_every_signature_has_a_finding_for_whatever_there_is(gather, flags):
    """Nothing is looked for without evidence, and all findings can be written."""
    from fluid_core.diagnosis.evidence import Evidence

    nothing = look_for_all(Evidence(why_no_pictures="No model.", why_no_losses="No model."))
    assert {finding.verdict for finding in nothing.values()} == {Verdict.NOT_LOOKED}
    assert all(finding.found for finding in nothing.values())
    assert list(nothing) == [signature.name for signature in SIGNATURES]
    for finding in look_for_all(gather(tiny_model(), flags)).values():
        json.dumps(finding.as_json(), allow_nan=False)


def test_the_program_reports_on_a_saved_model(fluid, saved_model, tmp_path):
    """Words on the screen, exit status 0 although something is found, and the same record every time."""
    code, out, err = fluid("diagnose", saved_model, *FEW, "--json", "one.json")
    assert code == 0, err
    assert "Drawing 6 pictures at guidance 7.5" in err
    for signature in SIGNATURES:
        assert f"{signature.name}: " in out
    assert "training course: not looked for" in out
    fluid("diagnose", saved_model, *FEW, "--json", "two.json")
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert one["values"] == two["values"]
    assert one["what"] == "diagnosis"
    assert one["num_images"] == 6
    assert one["model"]["weights"] == "ema"
    assert one["settings"]["guidance_scales"] == [1.0, 3.0, 7.5]
    assert one["settings"]["data"]["name"] == "shapes"
    assert one["seeds"] == {"drawing": 0, "data": 0}
    assert set(one["values"]) == {signature.name for signature in SIGNATURES}


def test_a_run_is_looked_at_with_its_metrics_and_before_it_is_finished(fluid, saved_model, tmp_path):
    """An unfinished run has its course alone; with a model there is all."""
    run = tmp_path / "run"
    run.mkdir()
    rows = [{"step": step, "loss": 1.0} for step in range(1, 40)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = fluid("diagnose", run, *FEW)
    assert code == 0, err
    assert "training course: FOUND" in out
    assert "The run has not finished" in out
    shutil.copy(saved_model.parent / "config.json", run)
    shutil.copytree(saved_model, run / "model")
    code, out, err = fluid("diagnose", run, *FEW, "--guidance", 1, "--strong-guidance", 2)
    assert code == 0, err
    assert "training course: FOUND" in out
    assert "has not finished" not in out
    assert "guidance 7.5" not in out


def test_a_folder_of_pictures_is_compared_with_data(fluid, saved_model, tmp_path):
    """Without a model by patches of pixels, with one by its tokens; the data must be named by someone."""
    fluid(
        "sample", saved_model, "a red circle", "--images-per-prompt", 6, "--out", "drawn", "--seed", 1, "--guidance", 2
    )
    shapes = ("--data", "shapes", "--data-option", "max_objects=2")
    code, out, err = fluid("diagnose", "drawn", *FEW, *shapes, "--json", "pictures.json")
    assert code == 0, err
    assert "bright spots: not looked for" in out
    record = json.loads((tmp_path / "pictures.json").read_text())
    assert record["settings"]["kind"] == "pictures"
    assert record["model"] is None
    code, out, err = fluid("diagnose", "drawn", *FEW, "--model", saved_model)
    assert code == 0, err
    assert "bright spots: not looked for" not in out
    assert "at guidance 2" in out
    code, _, err = fluid("diagnose", "drawn", *FEW)
    assert code != 0
    assert "--data NAME" in err


def test_what_can_not_be_looked_at_is_refused(fluid, saved_model, tmp_path):
    """An empty folder, no folder, and a model for a model."""
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        code, _, err = fluid("diagnose", folder, *FEW)
        assert code != 0
        assert "Expected a training run" in err
    code, _, err = fluid("diagnose", saved_model, *FEW, "--model", saved_model)
    assert code != 0
    assert "folder of pictures" in err
