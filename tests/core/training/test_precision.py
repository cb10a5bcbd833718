"""Training in bfloat16: where it is used, and what stays in single precision."""

import pytest
import torch
from torch import nn

from fluid_core.configuration import TrainingConfig
from fluid_core.errors import ConfigurationError
from fluid_core.exchange import TokenLoss
from fluid_core.training.sight.metrics import read_metrics
from fluid_core.training.step.precision import compute_type, computing_in


@pytest.mark.parametrize(("tokens", "order"), [("continuous", "random"), ("discrete", "raster")])
def test_bfloat16_is_close_to_float32(tokens, order, run_config, make_trainer, tmp_path):
    """Losses differ, by little; weights, averages and moments are float32 all the while."""
    losses = {}
    for precision in ("float32", "bfloat16"):
        trainer = make_trainer(run_config(tokens, order, precision=precision), tmp_path / precision)
        trainer.train()
        losses[precision] = [row["loss"] for row in read_metrics(trainer.folder / "metrics.jsonl")]
        tensors = [*trainer.model.parameters(), *trainer.average.weights.values()]
        tensors += [value for state in trainer.optimizer.state.values() for value in state.values()]
        assert {tensor.dtype for tensor in tensors} == {torch.float32}
        assert all(bool(tensor.isfinite().all()) for tensor in tensors)
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"] != losses["float32"]


def test_the_backbone_multiplies_in_bfloat16_and_the_head_in_float32(small_model, images, captions):
    """Linear layers of the blocks give bfloat16; any head is called with float32 and no autocast, as are its losses."""
    model = small_model("continuous", "random")
    seen = {}
    block = model.transformer.blocks[0]
    block.feed_forward.hidden.register_forward_hook(lambda _, __, output: seen.update(hidden=output.dtype))

    def loss(condition, target, *, random):
        seen["condition"] = condition.dtype
        # A head that knows nothing of autocast.
        seen["product"] = nn.functional.linear(condition, torch.ones(2, condition.shape[1])).dtype
        return TokenLoss(total=condition.sum(dim=1))

    model.head.loss = loss
    with computing_in(torch.bfloat16, torch.device("cpu")):
        found = model.loss(images, captions, generator=torch.Generator().manual_seed(0))
    assert seen == {"hidden": torch.bfloat16, "condition": torch.float32, "product": torch.float32}
    assert found.total.dtype == torch.float32
    found.total.backward()
    assert block.feed_forward.hidden.weight.grad.dtype == torch.float32


def test_a_model_cast_to_bfloat16_is_left_alone(small_model, images, captions):
    """Without autocast the head gets hidden vectors in the type of the weights, whatever that is."""
    model = small_model("discrete", "random").to(torch.bfloat16)
    seen = []
    head_loss = model.head.loss

    def loss(condition, target, *, random):
        seen.append(condition.dtype)
        return head_loss(condition, target, random=random)

    model.head.loss = loss
    model.loss(images, captions, generator=torch.Generator().manual_seed(0))
    assert seen == [torch.bfloat16]


def test_auto_is_bfloat16_on_gpus_alone(monkeypatch):
    """By default a CPU computes in float32, a GPU in bfloat16 if it can; one that can not is refused by name."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert TrainingConfig(num_steps=1, batch_size=1).precision == "auto"
    assert compute_type("auto", cpu) == torch.float32
    assert compute_type("bfloat16", cpu) == torch.bfloat16
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    assert compute_type("auto", gpu) == torch.bfloat16
    assert compute_type("float32", gpu) == torch.float32
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: False)
    assert compute_type("auto", gpu) == torch.float32
    with pytest.raises(ConfigurationError, match=r"training\.precision is 'bfloat16', which cuda can not"):
        compute_type("bfloat16", gpu)
