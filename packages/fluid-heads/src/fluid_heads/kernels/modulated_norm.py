"""Layer norm with AdaLN modulation, and the gated residual of the block before it, in one pass over memory.

    x_new = x + gate * update
    y     = norm(x_new) * (1 + scale) + shift

Written out in eager code that is a dozen launches, each of which reads and writes all rows. The modulations of several
steps lie in one tensor, and which of them is meant is read from a counter on the device: the same launch serves every
step, so that it can be recorded in a CUDA graph.
"""

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from fluid_core.errors import InvalidRequestError
from fluid_heads.kernels.launching import launch

WIDEST_ROW = 16384
"""A row is held in the registers of one block of threads, which ends here."""


@triton.jit
@no_type_check
def modulated_norm_kernel(
    x_pointer,
    update_pointer,
    gate_pointer,
    weight_pointer,
    bias_pointer,
    shift_pointer,
    scale_pointer,
    step_pointer,
    new_x_pointer,
    y_pointer,
    num_x_rows,
    num_held_steps,
    width,
    step_stride,
    row_stride,
    epsilon,
    HAS_UPDATE: tl.constexpr,
    HAS_AFFINE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row per program; all arithmetic in float32."""
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    held = tl.load(step_pointer) % num_held_steps
    modulation = held.to(tl.int64) * step_stride + row.to(tl.int64) * row_stride + columns
    at = row.to(tl.int64) * width + columns
    x_at = (row % num_x_rows).to(tl.int64) * width + columns

    shift = tl.load(shift_pointer + modulation, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_pointer + modulation, mask=inside, other=0.0).to(tl.float32)
    x = tl.load(x_pointer + x_at, mask=inside, other=0.0).to(tl.float32)
    if HAS_UPDATE:
        gate = tl.load(gate_pointer + modulation, mask=inside, other=0.0).to(tl.float32)
        update = tl.load(update_pointer + at, mask=inside, other=0.0).to(tl.float32)
        x += gate * update
        tl.store(new_x_pointer + at, x.to(new_x_pointer.dtype.element_ty), mask=inside)

    mean = tl.sum(x, axis=0) / width
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / width
    y = centred / tl.sqrt_rn(variance + epsilon)
    if HAS_AFFINE:
        y *= tl.load(weight_pointer + columns, mask=inside, other=0.0).to(tl.float32)
        y += tl.load(bias_pointer + columns, mask=inside, other=0.0).to(tl.float32)
    y = y * (1.0 + scale) + shift
    tl.store(y_pointer + at, y.to(y_pointer.dtype.element_ty), mask=inside)


def modulated_norm(
    x: Float[Tensor, "x_rows width"],
    *,
    shift: Float[Tensor, "steps rows width"],
    scale: Float[Tensor, "steps rows width"],
    step: Int[Tensor, "1"],
    update: Float[Tensor, "rows width"] | None = None,
    gate: Float[Tensor, "steps rows width"] | None = None,
    weight: Float[Tensor, "width"] | None = None,
    bias: Float[Tensor, "width"] | None = None,
    epsilon: float = 1e-6,
) -> tuple[Float[Tensor, "new_rows width"], Float[Tensor, "rows width"]]:
    """`x_new` and `y`, in the type of `x`; without an update `x_new` is `x` itself.

    The modulations are those of step `step % steps`. They may be slices of a wider tensor, all with the same strides.
    `x` has as many rows as the modulations, or a whole fraction of them: it is then repeated, as the two halves of a
    guided batch share their input. Raises `InvalidRequestError` for shapes and strides that do not fit.
    """
    steps, rows, width = shift.shape
    _check(x, shift, scale, update, gate, weight, bias)
    y = x.new_empty(rows, width)
    new_x = x if update is None else x.new_empty(rows, width)
    if rows == 0:
        return new_x, y
    launch(
        modulated_norm_kernel,
        (rows,),
        x,
        x if update is None else update,
        shift if gate is None else gate,
        x if weight is None else weight,
        x if bias is None else bias,
        shift,
        scale,
        step,
        new_x,
        y,
        x.shape[0],
        steps,
        width,
        shift.stride(0),
        shift.stride(1),
        epsilon,
        reads=(x, update, None if gate is None else gate[0], weight, bias, shift[0], scale[0]),
        writes=(None if update is None else new_x, y),
        HAS_UPDATE=update is not None,
        HAS_AFFINE=weight is not None,
        BLOCK=triton.next_power_of_2(width),
        num_warps=num_warps_for(width),
    )
    return new_x, y


def num_warps_for(width: int) -> int:
    """Warps that hold a row of this width, at eight values a thread."""
    return min(16, max(1, int(triton.next_power_of_2(width)) // 256))


def modulated_norm_reference(
    x: Float[Tensor, "x_rows width"],
    *,
    shift: Float[Tensor, "steps rows width"],
    scale: Float[Tensor, "steps rows width"],
    step: Int[Tensor, "1"],
    update: Float[Tensor, "rows width"] | None = None,
    gate: Float[Tensor, "steps rows width"] | None = None,
    weight: Float[Tensor, "width"] | None = None,
    bias: Float[Tensor, "width"] | None = None,
    epsilon: float = 1e-6,
) -> tuple[Float[Tensor, "new_rows width"], Float[Tensor, "rows width"]]:
    """The same in eager code, with every operation in the type of its inputs."""
    steps, rows, width = shift.shape
    held = step % steps
    x = x.repeat(rows // x.shape[0], 1) if update is not None and x.shape[0] > 0 else x
    if update is not None and gate is not None:
        x = x + gate.index_select(0, held)[0] * update
    normalised = functional.layer_norm(x, (width,), weight, bias, eps=epsilon)
    if normalised.shape[0] != rows:
        normalised = normalised.repeat(rows // normalised.shape[0], 1)
    return x, normalised * (1.0 + scale.index_select(0, held)[0]) + shift.index_select(0, held)[0]


def _check(
    x: Tensor,
    shift: Tensor,
    scale: Tensor,
    update: Tensor | None,
    gate: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
) -> None:
    _, rows, width = shift.shape
    if x.shape[1] != width or width > WIDEST_ROW:
        raise InvalidRequestError(
            f"Expected rows as wide as the modulations, {width}, and at most {WIDEST_ROW}; found {x.shape[1]}."
        )
    if rows > 0 and (x.shape[0] == 0 or rows % x.shape[0] != 0):
        raise InvalidRequestError(f"Expected as many rows as modulations, {rows}, or a fraction; found {x.shape[0]}.")
    if (update is None) != (gate is None) or (weight is None) != (bias is None):
        raise InvalidRequestError("An update comes with its gate, and a weight of the norm with its bias.")
    modulations = [shift, scale] if gate is None else [shift, scale, gate]
    if any(one.shape != shift.shape or one.stride() != shift.stride() or one.stride(2) != 1 for one in modulations):
        raise InvalidRequestError(
            "Expected modulations of one shape and with the same strides, contiguous along the width, found shapes "
            f"{[tuple(one.shape) for one in modulations]} and strides {[one.stride() for one in modulations]}."
        )
    for one in (x, update, weight, bias):
        if one is not None and not one.is_contiguous():
            raise InvalidRequestError("Expected contiguous rows and norm parameters; call contiguous() on them.")
    if update is not None and tuple(update.shape) != (rows, width):
        raise InvalidRequestError(f"Expected an update of shape {(rows, width)}, found {tuple(update.shape)}.")
