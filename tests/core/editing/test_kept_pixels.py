"""The seam between what is kept and what is drawn."""

import numpy as np
import pytest
import torch

from fluid_core.editing.kept_pixels import check_blend, with_kept_pixels
from fluid_core.errors import InvalidRequestError


def edge():
    """A picture kept on the left half, brighter by 0.4 than what was decoded."""
    drawn = (torch.arange(12) >= 6).expand(1, 5, 12).clone()
    kept = torch.full((1, 3, 5, 12), 0.6)
    kept[:, :, drawn[0]] = float("nan")
    return torch.full((1, 3, 5, 12), 0.2), kept, drawn


def test_without_blending_each_side_is_its_own():
    """Exactly."""
    images, kept, drawn = edge()
    result = with_kept_pixels(images, kept, drawn, blend=0)
    assert bool((result[0][:, ~drawn[0]] == 0.6).all())
    assert bool((result[0][:, drawn[0]] == 0.2).all())


def test_a_seam_fades_on_the_drawn_side_alone():
    """The difference at the seam shrinks evenly over the pixels asked for, and nothing under the mask is read."""
    images, kept, drawn = edge()
    result = with_kept_pixels(images, kept, drawn, blend=3)
    expected = torch.tensor([0.6] * 6 + [0.2 + 0.4 * share for share in (0.75, 0.5, 0.25)] + [0.2] * 3)
    torch.testing.assert_close(result, expected.expand(1, 3, 5, 12))
    assert bool((result[0][:, ~drawn[0]] == 0.6).all())


def test_blending_a_picture_that_keeps_nothing_changes_nothing():
    """There is no seam."""
    images = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    drawn = torch.ones(1, 4, 4, dtype=torch.bool)
    assert torch.equal(with_kept_pixels(images, torch.zeros_like(images), drawn, blend=9), images)


def test_a_seam_is_a_whole_number_of_pixels_wide():
    """NumPy's count, fractions and what is no number do not."""
    unchecked = getattr(check_blend, "__wrapped__", check_blend)
    for width in (0, 3, np.int64(3)):
        unchecked(width)
    for width in (-1, 2.0, float("nan"), "3", True):
        with pytest.raises(InvalidRequestError, match="blend as a whole number of pixels, 0 or more, found"):
            unchecked(width)
