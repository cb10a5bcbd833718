"""Autoencoders in outline, for planning: from their configuration or a preset, without weights or a download."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from fluid_core.errors import CheckpointError, CheckpointMismatchError
from fluid_core.planning.outlines import PrecomputedTensor, TokenizerOutline
from fluid_core.token_space import ContinuousTokens, DiscreteTokens, Grid
from fluid_tokenizers.autoencoder_grid import down_factor, latent_grid
from fluid_tokenizers.autoencoder_loading import load_autoencoder
from fluid_tokenizers.options import AutoencoderOptions, KLAutoencoderOptions, VQAutoencoderOptions
from fluid_tokenizers.presets import AutoencoderPreset, check_preset, find_preset

_KL_CLASSES = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")
_VQ_CLASSES = ("VQModel",)


def kl_outline(options: KLAutoencoderOptions) -> TokenizerOutline:
    """Latents of an autoencoder whose configuration, or at least whose preset, is at hand.

    Raises `CheckpointError` if neither is, `CheckpointMismatchError` for another class or for constants that differ
    from the preset's, and `ConfigurationError` for an image size that tokens do not cover.
    """
    model = _without_weights(options, _KL_CLASSES)
    if model is None:
        if options.preset is None:
            raise CheckpointError(_nothing_known(options, "a preset, "))
        return _of_preset(options, find_preset(options.preset))
    if options.preset is not None:
        check_preset(options.preset, model.config, type(model).__name__, down_factor(model))
    return _kl_outline(
        options,
        channels=int(model.config["latent_channels"]),
        grid=latent_grid(model, options.image_size),
        variational=type(model).__name__ == "AutoencoderKL",
        num_parameters=_num_parameters(model),
        source="its configuration",
    )


def vq_outline(options: VQAutoencoderOptions) -> TokenizerOutline:
    """Ids of an autoencoder whose configuration is at hand. Raises as `kl_outline`."""
    model = _without_weights(options, _VQ_CLASSES)
    if model is None:
        raise CheckpointError(_nothing_known(options, ""))
    grid = latent_grid(model, options.image_size)
    return TokenizerOutline(
        token_space=DiscreteTokens(grid=grid, vocabulary_size=int(model.config["num_vq_embeddings"])),
        image_size=(options.image_size, options.image_size),
        precomputed=(PrecomputedTensor(name="ids", shape=(grid.length,), dtype=torch.int64),),
        num_parameters=_num_parameters(model),
        bytes_per_parameter=getattr(torch, options.dtype).itemsize,
        source="its configuration",
    )


def _of_preset(options: KLAutoencoderOptions, preset: AutoencoderPreset) -> TokenizerOutline:
    side = options.image_size // preset.down_factor
    return _kl_outline(
        options,
        channels=preset.latent_channels,
        grid=Grid(height=side, width=side),
        variational=preset.class_name == "AutoencoderKL",
        num_parameters=preset.num_parameters,
        source=f"constants of the preset '{options.preset}'; no configuration at hand",
    )


def _kl_outline(
    options: KLAutoencoderOptions,
    *,
    channels: int,
    grid: Grid,
    variational: bool,
    num_parameters: int | None,
    source: str,
) -> TokenizerOutline:
    shape = (channels, grid.height, grid.width)
    names = ("log_variance", "mean") if variational else ("latent",)
    side = grid.height // options.grouping
    return TokenizerOutline(
        token_space=ContinuousTokens(grid=Grid(height=side, width=side), channels=channels * options.grouping**2),
        image_size=(options.image_size, options.image_size),
        precomputed=tuple(PrecomputedTensor(name=name, shape=shape, dtype=torch.float32) for name in names),
        num_parameters=num_parameters,
        bytes_per_parameter=getattr(torch, options.dtype).itemsize,
        source=source,
    )


def _without_weights(options: AutoencoderOptions, classes: Sequence[str]) -> Any:
    """The autoencoder on the meta device; None if its configuration is not on this machine."""
    if options.location is None:
        with torch.device("meta"):
            return load_autoencoder(attrs.evolve(options, dtype="float32"), classes)
    import diffusers

    path, subfolder = options.location
    where: dict[str, Any] = {"subfolder": subfolder} if subfolder else {}
    if options.revision:
        where["revision"] = options.revision
    cls = getattr(diffusers, classes[0])
    with warnings.catch_warnings():
        # diffusers passes on an argument that its hub client no longer has.
        warnings.simplefilter("ignore", UserWarning)
        try:
            config = cls.load_config(str(Path(path).expanduser()), local_files_only=True, **where)
        except (OSError, ValueError):
            # Neither a folder that holds it nor a model that was downloaded before.
            return None
    name = config.get("_class_name")
    if name not in classes:
        raise CheckpointMismatchError(f"Expected a diffusers {' or '.join(classes)} at '{path}', found {name!r}.")
    with torch.device("meta"):
        return getattr(diffusers, name).from_config(config)


def _nothing_known(options: AutoencoderOptions, others: str) -> str:
    assert options.location is not None
    return (
        f"Expected config.json of the autoencoder '{options.location[0]}' on this machine, found none, and a plan "
        f"downloads nothing. Pass {others}a local folder that holds config.json (its weights are not needed), as in "
        "tokenizer.options.path=folder, or the architecture."
    )


def _num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
