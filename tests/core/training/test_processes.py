"""Several processes train the model that one would have trained."""

import pytest
import torch
from safetensors.torch import load_file

from fluid_core.errors import ConfigurationError
from fluid_core.exchange import BatchShare
from fluid_core.training.processes import Processes
from fluid_core.training.sight.metrics import read_metrics


@pytest.mark.slow
@pytest.mark.parametrize(("tokens", "order"), [("continuous", "random"), ("discrete", "raster")])
def test_two_processes_train_the_model_of_one(tokens, order, run_config, make_trainer, train_in_processes, tmp_path):
    """Weights, averages and logged losses agree, for a batch that does not divide evenly; then one process goes on."""
    config = run_config(tokens, order, batch_size=5, num_validation_images=4, checkpoint_every=2)
    make_trainer(config, tmp_path / "one").train()
    told = train_in_processes(config, tmp_path / "two", num_processes=2)
    assert told.count("validation loss") == 2, "one process alone speaks"
    for weights in ("model", "model-raw"):
        expected = load_file(tmp_path / "one" / weights / "model.safetensors")
        found = load_file(tmp_path / "two" / weights / "model.safetensors")
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            # Attention does not depend on the bias of keys: its gradient is rounding, which Adam blows up.
            if name.endswith(("qkv.bias", "keys_values.bias")):
                continue
            torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=2e-4, msg=name)
    rows = zip(*(read_metrics(tmp_path / run / "metrics.jsonl") for run in ("one", "two")), strict=True)
    for one, two in rows:
        assert one.keys() == two.keys()
        assert one.get("loss", 0.0) == pytest.approx(two.get("loss", 0.0), rel=1e-4)


def test_shares_cover_a_batch():
    """Every row belongs to one process, and none is without."""
    for count in (1, 2, 3, 7):
        shares = [Processes(rank=rank, count=count).share(7) for rank in range(count)]
        assert [row for share in shares for row in range(7)[share.rows]] == list(range(7))
        assert all(share.count > 0 and share.total == 7 for share in shares)
    assert Processes().share(4) == BatchShare(first=0, count=4, total=4)
    with pytest.raises(ConfigurationError, match="found 2 images for 3 processes"):
        Processes(rank=0, count=3).share(2)


def test_every_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch):
    """The second process of a machine takes the second GPU; a third one on two GPUs the first again."""
    taken = []
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 3)
    for local_rank in ("0", "1", "2"):
        monkeypatch.setenv("LOCAL_RANK", local_rank)
        assert Processes.join().count == 3
    assert taken == [0, 1, 0]


def test_one_process_changes_nothing():
    """Without others there is nothing to wait for, to copy or to add."""
    alone = Processes.join()
    assert alone.count == 1
    assert alone.is_first
    values = torch.randn(3)
    assert torch.equal(alone.sum(values), values)
    assert alone.from_first(0.1) == 0.1
    module = torch.nn.Linear(2, 2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.weight.grad = torch.ones(2, 2)
    alone.copy_from_first(module)
    alone.sum_gradients(module.parameters())
    alone.wait()
    alone.leave()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert module.bias.grad is None
