"""Layer norm with modulation and gated residual in one kernel, against eager code."""

import pytest
import torch

from fluid_core.errors import InvalidRequestError
from fluid_heads.kernels.modulated_norm import modulated_norm, modulated_norm_reference

SHAPES = [(1, 24), (3, 32), (5, 100), (2, 1024)]


def inputs(generator, rows, width, *, steps=3, dtype=torch.float32):
    """Rows, an update, and modulations that are slices of one wider tensor."""

    def normal(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    shift, scale, gate = normal(steps, rows, 4 * width).split(width, dim=2)[:3]
    affine = {"weight": normal(width), "bias": normal(width)}
    return normal(rows, width), normal(rows, width), {"shift": shift, "scale": scale}, gate, affine


@pytest.mark.parametrize(("rows", "width"), SHAPES)
@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize("with_update", [True, False])
def test_equals_eager_code(generator, rows, width, with_affine, with_update):
    """Both results agree in float32, for every combination of what can be left out."""
    x, update, modulations, gate, affine = inputs(generator, rows, width)
    chosen = {**modulations, **(affine if with_affine else {})}
    if with_update:
        chosen |= {"update": update, "gate": gate}
    for number in (0, 2, 4):
        step = torch.tensor([number], dtype=torch.int32)
        new_x, y = modulated_norm(x, step=step, **chosen)
        expected_x, expected_y = modulated_norm_reference(x, step=step, **chosen)
        torch.testing.assert_close(new_x, expected_x, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(y, expected_y, atol=2e-5, rtol=1e-5)


def test_rows_are_repeated_for_both_halves(generator):
    """With half as many rows as modulations, both halves start from the same ones, which are not written to."""
    x, update, modulations, gate, affine = inputs(generator, 6, 40)
    half, step = x[:3].contiguous(), torch.zeros(1, dtype=torch.int32)
    before = half.clone()
    same_x, y = modulated_norm(half, step=step, **modulations, **affine)
    assert same_x is half
    torch.testing.assert_close(y, modulated_norm(half.repeat(2, 1), step=step, **modulations, **affine)[1])
    new_x, y = modulated_norm(half, step=step, update=update, gate=gate, **modulations)
    whole_x, whole_y = modulated_norm(half.repeat(2, 1), step=step, update=update, gate=gate, **modulations)
    assert torch.equal(new_x, whole_x)
    assert torch.equal(y, whole_y)
    assert torch.equal(half, before)


def test_half_precision_stays_within_its_rounding(generator):
    """In bfloat16 both results are within two roundings (2^-7) of float32 arithmetic on the same numbers."""
    x, update, modulations, gate, affine = inputs(generator, 4, 100, dtype=torch.bfloat16)
    chosen = {**modulations, **affine, "update": update, "gate": gate}
    step = torch.ones(1, dtype=torch.int32)
    new_x, y = modulated_norm(x, step=step, **chosen)
    assert new_x.dtype == y.dtype == torch.bfloat16
    exact = {name: value.float() for name, value in chosen.items()}
    expected_x, expected_y = modulated_norm_reference(x.float(), step=step, **exact)
    torch.testing.assert_close(new_x.float(), expected_x, atol=1e-5, rtol=2**-7)
    torch.testing.assert_close(y.float(), expected_y, atol=1e-3, rtol=2**-7)


def test_a_large_common_part_does_not_spoil_the_variance(generator):
    """Rows that are a large constant plus little are normalised as exactly as eager code does."""
    x, _, modulations, _, _ = inputs(generator, 2, 64)
    step = torch.zeros(1, dtype=torch.int32)
    _, y = modulated_norm(x + 1000.0, step=step, **modulations)
    torch.testing.assert_close(
        y, modulated_norm_reference(x + 1000.0, step=step, **modulations)[1], atol=1e-3, rtol=1e-3
    )


def test_nothing_to_do(generator):
    """No rows give no rows."""
    empty = torch.zeros(2, 0, 8)
    new_x, y = modulated_norm(torch.zeros(0, 8), shift=empty, scale=empty, step=torch.zeros(1, dtype=torch.int32))
    assert new_x.shape == y.shape == (0, 8)


def test_what_does_not_fit_is_refused(generator):
    """Wrong numbers of rows, halves of a pair, and strides that differ are named."""
    x, update, modulations, _, affine = inputs(generator, 4, 16)
    step = torch.zeros(1, dtype=torch.int32)
    with pytest.raises(InvalidRequestError, match="a fraction"):
        modulated_norm(x[:3].contiguous(), step=step, **modulations)
    with pytest.raises(InvalidRequestError, match="gate"):
        modulated_norm(x, step=step, update=update, **modulations)
    with pytest.raises(InvalidRequestError, match="bias"):
        modulated_norm(x, step=step, weight=affine["weight"], **modulations)
    with pytest.raises(InvalidRequestError, match="strides"):
        modulated_norm(x, step=step, shift=modulations["shift"].contiguous(), scale=modulations["scale"])
    with pytest.raises(InvalidRequestError, match="contiguous"):
        modulated_norm(torch.randn(16, 4).T, step=step, **modulations)
