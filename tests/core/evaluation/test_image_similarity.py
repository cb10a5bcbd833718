"""PSNR and SSIM: known values, and torchmetrics."""

import math
from importlib.util import find_spec

import pytest
import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.evaluation.image_similarity import psnr, ssim

with_torchmetrics = pytest.mark.skipif(
    find_spec("torchmetrics") is None, reason="torchmetrics, to compare with, is not installed"
)


@pytest.fixture(scope="module")
def pairs():
    """Pictures of 40 x 33 pixels with structure, and noisy copies of them."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 5, 5, generator=generator) * 2 - 1
    images = torch.nn.functional.interpolate(coarse, size=(40, 33), mode="bilinear")
    noise = torch.randn(4, 3, 40, 33, generator=generator) * torch.tensor([0.0, 0.05, 0.2, 0.8])[:, None, None, None]
    return images, (images + noise).clamp(-1, 1)


def test_psnr_of_a_known_error():
    """A tenth of the range everywhere is 20 dB; no error is infinitely many."""
    images = torch.zeros(2, 3, 8, 8)
    others = images + torch.tensor([0.2, 0.0])[:, None, None, None]
    found = psnr(images, others)
    assert float(found[0]) == pytest.approx(20.0, abs=1e-5)
    assert math.isinf(float(found[1]))


def test_ssim_of_flat_pictures_is_the_luminance_term():
    """Without structure only the means count: (2 m n + c) / (m^2 + n^2 + c), of intensities from 0 to 1."""
    images, others = torch.full((1, 3, 16, 16), -0.5), torch.full((1, 3, 16, 16), 0.5)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert float(ssim(images, others)) == pytest.approx(expected, abs=1e-6)


def test_ssim_falls_with_noise(pairs):
    """Equal pictures have 1, and more noise leaves less; it does not matter which is the copy."""
    found = ssim(*pairs)
    assert float(found[0]) == pytest.approx(1.0, abs=1e-6)
    assert found.tolist() == sorted(found.tolist(), reverse=True)
    assert float(found[3]) < 0.4
    torch.testing.assert_close(ssim(pairs[1], pairs[0]), found)


@with_torchmetrics
def test_psnr_agrees_with_torchmetrics(pairs):
    """Picture by picture."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    images, noisy = pairs[0][1:], pairs[1][1:]
    expected = peak_signal_noise_ratio(noisy, images, data_range=2.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(psnr(images, noisy), expected, rtol=1e-5, atol=1e-4)


@with_torchmetrics
def test_ssim_agrees_with_torchmetrics_inside_the_borders(pairs):
    """Its map of values, of which it averages also those where the window hangs over a padded border."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    shares = [(one + 1) / 2 for one in pairs]
    _, values = structural_similarity_index_measure(*shares, data_range=1.0, reduction="none", return_full_image=True)
    expected = values[:, :, 5:-5, 5:-5].mean(dim=(1, 2, 3))
    torch.testing.assert_close(ssim(*pairs), expected, rtol=1e-4, atol=1e-4)


def test_pictures_smaller_than_the_window_are_refused():
    """There is no place where the window fits."""
    with pytest.raises(InvalidRequestError, match="at least 11 pixels for SSIM, found 10 x 40"):
        ssim(torch.zeros(1, 3, 10, 40), torch.zeros(1, 3, 10, 40))
