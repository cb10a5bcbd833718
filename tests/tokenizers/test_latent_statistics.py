"""Per-channel mean and standard deviation."""

import pytest
import torch

from fluid_core.errors import InvalidRequestError
from fluid_tokenizers import LatentStatistics


def _vectors() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scale, shift = torch.tensor([0.5, 2.0, 30.0]), torch.tensor([-1.0, 0.0, 1000.0])
    return torch.randn(5000, 3, generator=generator) * scale + shift


def test_they_are_the_identity_until_measured():
    """New statistics change nothing, and say so."""
    statistics = LatentStatistics(3)
    assert not statistics.measured
    assert torch.equal(statistics.normalize(_vectors()), _vectors())
    assert torch.equal(statistics.denormalize(_vectors()), _vectors())


def test_measured_vectors_have_zero_mean_and_unit_variance():
    """Each channel of what was measured is normalised, also far from zero, and comes back."""
    statistics = LatentStatistics(3)
    statistics.measure(_vectors())
    assert statistics.measured
    normal = statistics.normalize(_vectors())
    torch.testing.assert_close(normal.double().mean(dim=0), torch.zeros(3).double(), rtol=0, atol=2e-5)
    torch.testing.assert_close(normal.double().std(dim=0), torch.ones(3).double(), rtol=2e-4, atol=0)
    torch.testing.assert_close(statistics.denormalize(normal), _vectors(), rtol=1e-6, atol=1e-4)


def test_channels_that_do_not_vary_are_not_blown_up():
    """A constant channel, or one of rounding noise, is divided by a share of what the others vary."""
    vectors = torch.cat([_vectors(), torch.full((5000, 1), 0.3)], dim=1)
    vectors[::2, 3] += 1e-7
    statistics = LatentStatistics(4)
    statistics.measure(vectors)
    typical = vectors.double().var(dim=0, correction=0).mean().sqrt()
    assert float(statistics.std[3]) == pytest.approx(0.01 * float(typical), rel=1e-5)
    assert statistics.normalize(vectors)[:, 3].abs().max() < 1e-5
    torch.testing.assert_close(
        statistics.denormalize(statistics.normalize(vectors))[:, 3], vectors[:, 3], rtol=0, atol=1e-6
    )


def test_data_that_does_not_vary_at_all_keeps_its_scale():
    """One vector, or many equal ones, are only moved to zero."""
    statistics = LatentStatistics(2)
    statistics.measure(torch.tensor([[0.25, -3.0]]))
    assert statistics.std.tolist() == [1.0, 1.0]
    assert statistics.normalize(torch.tensor([[0.25, -3.0]])).tolist() == [[0.0, 0.0]]


def test_nothing_and_nan_are_refused():
    """Statistics of no vectors or of broken ones would poison every token."""
    statistics = LatentStatistics(2)
    with pytest.raises(InvalidRequestError, match="found 0 vectors"):
        statistics.measure(torch.empty(0, 2))
    with pytest.raises(InvalidRequestError, match="1 values that are NaN"):
        statistics.measure(torch.tensor([[0.0, float("nan")]]))
    assert not statistics.measured


def test_they_are_saved_with_the_module():
    """A state dict brings mean, deviation and the mark that they were measured."""
    statistics, loaded = LatentStatistics(3), LatentStatistics(3)
    statistics.measure(_vectors())
    loaded.load_state_dict(statistics.state_dict())
    assert loaded.measured
    assert torch.equal(loaded.normalize(_vectors()), statistics.normalize(_vectors()))


def test_casting_the_model_does_not_round_them():
    """They stay in single precision inside a model cast to bfloat16, while other parts are cast."""
    model = torch.nn.ModuleDict({"statistics": LatentStatistics(3), "layer": torch.nn.Linear(3, 3)})
    model["statistics"].measure(_vectors())
    mean = model["statistics"].mean.clone()
    model.to(torch.bfloat16)
    assert model["layer"].weight.dtype == torch.bfloat16
    assert model["statistics"].mean.dtype == torch.float32
    assert torch.equal(model["statistics"].mean, mean)
    assert model.to("meta")["statistics"].std.device.type == "meta"
