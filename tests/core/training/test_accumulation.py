"""Gradient accumulation: parts of a batch, one after the other, are the batch."""

import pytest
import torch
from safetensors.torch import load_file

from fluid_core.configuration import TrainingConfig
from fluid_core.data import ShapesDataset, ShapesOptions
from fluid_core.data.batches import BatchLoader, ImageBatch
from fluid_core.errors import ConfigurationError
from fluid_core.exchange import BatchShare, EncodedBatch, TextFeatures
from fluid_core.training.processes import Processes
from fluid_core.training.sight.metrics import read_metrics
from fluid_core.training.step.micro_batches import micro_shares, rows_of
from fluid_core.training.step.training_step import TrainingStep

PAPER_MODELS = [(tokens, order) for tokens in ("continuous", "discrete") for order in ("random", "raster")]


def step_of(model, settings, **others):
    """The step of a run of `model`, its optimizer not moving anything."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)
    share = BatchShare(first=0, count=settings.batch_size, total=settings.batch_size)
    return TrainingStep(model, optimizer, settings, **{"processes": Processes(), "share": share, **others})


@pytest.mark.parametrize(("tokens", "order"), PAPER_MODELS)
def test_parts_sum_to_the_gradients_of_the_whole(tokens, order, small_model, run_config, images, captions):
    """Losses, their parts, token counts and all gradients agree, though parts predict unequal numbers of tokens."""
    found = {}
    for num_parts in (1, 3):
        model = small_model(tokens, order)
        settings = run_config(
            tokens, order, accumulation_steps=num_parts, text_drop_probability=0.5, gradient_clip_norm=None
        ).training
        result = step_of(model, settings).take(
            ImageBatch(images=images, captions=tuple(captions)), 7, share_of_time=0.0
        )
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found[num_parts] = result, gradients
    (whole, gradients), (parts, gradients_of_parts) = found[1], found[3]
    assert parts.loss.num_tokens == whole.loss.num_tokens
    torch.testing.assert_close(parts.loss.total, whole.loss.total, rtol=1e-5, atol=1e-5)
    assert parts.loss.parts.keys() == whole.loss.parts.keys()
    for name, value in whole.loss.parts.items():
        torch.testing.assert_close(parts.loss.parts[name], value, rtol=1e-5, atol=1e-5)
    assert parts.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-5)
    assert gradients.keys() == gradients_of_parts.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_of_parts[name], gradient, rtol=1e-4, atol=2e-6, msg=name)


def test_what_is_drawn_does_not_depend_on_the_parts(small_model, run_config, images, captions):
    """Orders, dropped captions, tokens and the noise of heads are those of the whole batch, row by row."""
    model = small_model("continuous", "random")
    batch = ImageBatch(images=images, captions=tuple(captions))
    drawn = {}
    for num_parts in (1, 2, 4):
        step = step_of(model, run_config(accumulation_steps=num_parts, text_drop_probability=0.5).training)
        drawn[num_parts] = [step._drawn(batch, 3, part) for part in step._parts]
    (whole,) = drawn[1]
    assert 0 < int(whole.dropped.sum()) < 4
    for parts in (drawn[2], drawn[4]):
        assert torch.equal(torch.cat([part.tokens for part in parts]), whole.tokens)
        assert torch.equal(torch.cat([part.dropped for part in parts]), whole.dropped)
        assert torch.equal(torch.cat([part.view.order for part in parts]), whole.view.order)
        assert torch.equal(torch.cat([part.view.num_known for part in parts]), whole.view.num_known)
        noise = [part.random.child(5).normal((3,)) for part in parts]
        assert torch.equal(torch.cat(noise), whole.random.child(5).normal((3,)))
        assert {part.num_tokens_in_all for part in parts} == {whole.view.num_predicted}


def test_parts_do_not_drop_the_same(small_model, run_config, images, captions):
    """Dropout draws other numbers in every part of a step, and the same when the step is taken again."""
    model = small_model("continuous", "random")
    batch = ImageBatch(images=images, captions=tuple(captions))
    step = step_of(model, run_config(accumulation_steps=4).training)
    seen = []
    for part in (*step._parts, *step._parts):
        step._drawn(batch, 3, part)
        seen.append(torch.rand(4).tolist())
    assert seen[:4] == seen[4:]
    assert len({tuple(one) for one in seen}) == 4


def test_a_run_in_parts_ends_as_one_in_whole_batches(run_config, make_trainer, tmp_path):
    """Through the trainer, with a batch that does not divide evenly: weights and logged losses agree."""
    for num_parts in (1, 2):
        config = run_config("continuous", "random", batch_size=5, accumulation_steps=num_parts)
        make_trainer(config, tmp_path / str(num_parts)).train()
    whole, parts = (load_file(tmp_path / run / "model-raw" / "model.safetensors") for run in ("1", "2"))
    for name, tensor in whole.items():
        # Attention does not depend on the bias of keys: its gradient is rounding, which Adam blows up.
        if not name.endswith(("qkv.bias", "keys_values.bias")):
            torch.testing.assert_close(parts[name], tensor, atol=2e-5, rtol=2e-4, msg=name)
    rows = zip(*(read_metrics(tmp_path / run / "metrics.jsonl") for run in ("1", "2")), strict=True)
    assert all(one["loss"] == pytest.approx(two["loss"], rel=1e-4) for one, two in rows)


@pytest.mark.slow
def test_two_processes_with_two_parts_each_train_the_model_of_one(
    run_config, make_trainer, train_in_processes, tmp_path
):
    """A share of a share: four parts of 2, 2, 1 and 2 rows in two processes."""
    config = run_config("discrete", "random", batch_size=7)
    make_trainer(config, tmp_path / "one").train()
    train_in_processes(
        run_config("discrete", "random", batch_size=7, accumulation_steps=2), tmp_path / "two", num_processes=2
    )
    expected = load_file(tmp_path / "one" / "model-raw" / "model.safetensors")
    found = load_file(tmp_path / "two" / "model-raw" / "model.safetensors")
    for name, tensor in expected.items():
        if not name.endswith(("qkv.bias", "keys_values.bias")):
            torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=2e-4, msg=name)


def test_parts_cover_a_share():
    """Every row is in one part, no part is empty, and more parts than rows are refused."""
    share = Processes(rank=1, count=2).share(13)
    parts = micro_shares(share, 3)
    assert [row for part in parts for row in range(13)[part.rows]] == list(range(13))[share.rows]
    assert {(part.total, part.process, part.num_processes) for part in parts} == {(13, 1, 2)}
    assert all(part.count > 0 for part in parts)
    assert micro_shares(share, 1) == (share,)
    with pytest.raises(
        ConfigurationError, match=r"8 training\.accumulation_steps, found a share of 7 images of the 13"
    ):
        micro_shares(share, 8)
    with pytest.raises(ConfigurationError, match="found 5 parts for 4 images"):
        TrainingConfig(num_steps=1, batch_size=4, accumulation_steps=5)


def test_rows_of_encoded_batches():
    """Tensors, captions and text states are cut alike; the whole batch is itself."""
    text = TextFeatures(states=torch.arange(12.0).view(3, 2, 2), mask=torch.tensor([[True, False]] * 3))
    batch = EncodedBatch(precomputed={"ids": torch.arange(6).view(3, 2)}, captions=("a", "b", "c"), text=text)
    assert rows_of(batch, slice(0, 3)) is batch
    part = rows_of(batch, slice(1, 3))
    assert part.captions == ("b", "c")
    assert torch.equal(part.precomputed["ids"], torch.tensor([[2, 3], [4, 5]]))
    assert torch.equal(part.text.states, text.states[1:])
    assert rows_of(EncodedBatch(precomputed={}, captions=("a", "b")), slice(1, 2)).text is None


def test_items_of_a_step_are_those_that_were_read():
    """The places that messages name are the places the loader reads, over epochs and shares."""
    options = ShapesOptions(num_examples=7, num_validation_examples=1)
    pictures = ShapesDataset(options, (24, 24), "train", 0)
    loader = BatchLoader(pictures, batch_size=4, seed=3, share=BatchShare(first=1, count=3, total=4))
    for step in range(5):
        places = loader.items(step)
        assert len(set(places)) == 3 or step == 1
        assert [pictures[place].caption for place in places] == list(loader.batch(step).captions)
    loader.close()
