"""Pretrained text encoders in outline, for planning: from their configuration alone, without weights or a download."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from fluid_core.errors import CheckpointError
from fluid_core.planning.outlines import TextEncoderOutline
from fluid_core.text.options import DEFAULT_MAX_LENGTH, T5EncoderOptions, TransformersEncoderOptions
from fluid_core.text.pretrained_loading import LoadedEncoder
from fluid_core.text.transformers_encoder import reading_part, text_class, text_width

_T5_SHAPES = {
    "small": (512, 1024, 8, 6),
    "base": (768, 2048, 12, 12),
    "large": (1024, 2816, 24, 16),
    "xl": (2048, 5120, 24, 32),
    "xxl": (4096, 10240, 24, 64),
}
"""Width, MLP width, layers and heads (of width 64) of T5 v1.1 and FLAN-T5, as their configurations say; 32128 words."""

_T5_FAMILIES = ("google/t5-v1_1-", "google/flan-t5-")


def t5_outline(options: T5EncoderOptions) -> TextEncoderOutline:
    """A T5 encoder, from config.json in its folder, in the hub's cache, or by the published shape of its name.

    Raises `CheckpointError` if there is neither.
    """
    from transformers import T5Config, T5EncoderModel

    found = _config_at_hand(options)
    if found is not None:
        config, source = T5Config.from_dict(found), f"config.json of {options.path}"
    else:
        config, source = _published_t5(options.path), f"published shape of {options.path}"
    if config is None:
        raise CheckpointError(_nothing_known(options.path))
    with torch.device("meta"):
        model = T5EncoderModel(config)
    return TextEncoderOutline(
        width=int(config.d_model),
        max_length=options.max_length,
        num_parameters=_num_parameters(model),
        bytes_per_parameter=getattr(torch, options.dtype).itemsize,
        source=source,
    )


def transformers_outline(options: TransformersEncoderOptions) -> TextEncoderOutline:
    """A text model of transformers, from config.json in its folder or in the hub's cache.

    Raises `CheckpointError` if there is none.
    """
    from transformers import AutoConfig

    found = _config_at_hand(options)
    if found is None:
        raise CheckpointError(_nothing_known(options.path))
    try:
        config = AutoConfig.for_model(**found)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"Expected the configuration of a text model at '{options.path}', found one that transformers can not read."
        ) from error
    chosen = text_class(config, options.path)
    with torch.device("meta"):
        model = chosen.from_config(config) if hasattr(chosen, "from_config") else chosen(config)
    loaded = reading_part(LoadedEncoder(model=model, tokenizer=None, path=options.path))
    places = getattr(config.get_text_config(), "max_position_embeddings", None) or DEFAULT_MAX_LENGTH
    return TextEncoderOutline(
        width=text_width(loaded),
        max_length=options.max_length or min(DEFAULT_MAX_LENGTH, places),
        num_parameters=_num_parameters(loaded.model),
        bytes_per_parameter=getattr(torch, options.dtype).itemsize,
        source=f"config.json of {options.path}",
    )


def _config_at_hand(options: T5EncoderOptions | TransformersEncoderOptions) -> dict[str, Any] | None:
    """The content of config.json, if it is in a local folder or in the hub's cache; nothing is downloaded."""
    from transformers import PretrainedConfig

    where: dict[str, Any] = {"revision": options.revision} if options.revision else {}
    path = str(Path(options.path).expanduser())
    if options.path.count("/") > 1 and not Path(path).is_dir():
        # No id of the hub, and no folder either.
        return None
    try:
        found: dict[str, Any] = PretrainedConfig.get_config_dict(path, local_files_only=True, **where)[0]
    except OSError:
        return None
    return found or None


def _published_t5(path: str) -> Any:
    from transformers import T5Config

    for family in _T5_FAMILIES:
        shape = _T5_SHAPES.get(path.removeprefix(family))
        if path.startswith(family) and shape is not None:
            width, mlp_width, num_layers, num_heads = shape
            return T5Config(
                vocab_size=32128,
                d_model=width,
                d_kv=64,
                d_ff=mlp_width,
                num_layers=num_layers,
                num_heads=num_heads,
                feed_forward_proj="gated-gelu",
            )
    return None


def _nothing_known(path: str) -> str:
    return (
        f"Expected config.json of the text encoder '{path}' on this machine, found none, and a plan downloads nothing. "
        "Pass a local folder that holds config.json (its weights are not needed), as in "
        "text_encoder.options.path=folder, or one of the T5 models whose shape is known, such as 'google/t5-v1_1-xxl'."
    )


def _num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
