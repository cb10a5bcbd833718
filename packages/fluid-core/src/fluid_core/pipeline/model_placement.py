"""Where a model is and in which numbers it computes, as `.to(...)` of a pipeline has it."""

import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.model import FluidModel
from fluid_core.text.frozen_encoder import FrozenEncoder


def move_model(
    model: FluidModel,
    *args: torch.device | str | int | torch.dtype,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Move `model` to a device, cast its weights, or both: each is named once, by its place or its name.

    Nothing changes if something is refused. Raises `InvalidRequestError` for anything named twice or not at all, for a
    device that is not there, for a
    type that is not floating, and for float16 with a pretrained text encoder.
    """
    devices = [one for one in (*args, device) if one is not None and not isinstance(one, torch.dtype)]
    dtypes = [one for one in (*args, dtype) if isinstance(one, torch.dtype)]
    if len(devices) > 1 or len(dtypes) > 1 or not (devices or dtypes):
        raise InvalidRequestError(
            f"Expected a device, a type or one of both, found {len(devices)} devices and {len(dtypes)} types."
        )
    if dtypes and not dtypes[0].is_floating_point:
        raise InvalidRequestError(f"Expected a floating type such as torch.bfloat16, found {dtypes[0]}.")
    if dtypes and dtypes[0] is torch.float16 and isinstance(model.text_encoder, FrozenEncoder):
        raise InvalidRequestError(
            "Expected float32 or bfloat16 for a model with a pretrained text encoder, found float16, in which encoders "
            "such as T5 overflow. Use torch.bfloat16, or encode all prompts first and let the encoder go with "
            "release_text_encoder()."
        )
    if devices:
        try:
            torch.empty(0, device=devices[0])
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise InvalidRequestError(
                f"Expected a device that can be used here, found {str(devices[0])!r}: {str(error).splitlines()[0]}."
            ) from error
    model.to(device=devices[0] if devices else None, dtype=dtypes[0] if dtypes else None)
