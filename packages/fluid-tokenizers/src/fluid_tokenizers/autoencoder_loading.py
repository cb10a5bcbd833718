"""Loading an autoencoder with diffusers, or making a new one, or saying plainly why that failed."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from fluid_core.errors import (
    CheckpointError,
    CheckpointMismatchError,
    ConfigurationError,
    PluginError,
    did_you_mean,
)
from fluid_tokenizers.options import AutoencoderOptions

_FAILURES = (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError)
"""What diffusers raises for missing, damaged or unfit files, and for a hub that does not answer."""

_OTHER_TOKENIZERS = {
    "VQModel": "vq-autoencoder",
    "AutoencoderKL": "kl-autoencoder",
    "AutoencoderTiny": "kl-autoencoder",
    "AutoencoderDC": "kl-autoencoder",
}
"""Which tokenizer takes which class."""


def load_autoencoder(options: AutoencoderOptions, classes: Sequence[str]) -> Any:
    """The autoencoder that the options name, in evaluation mode and without gradients; its class is among `classes`.

    Weights are read from safetensors files only; new ones come from torch's global generator. Raises `CheckpointError`
    for a folder that does not exist, a hub that can not be reached, and missing or damaged weights,
    `CheckpointMismatchError` for an autoencoder of another class or of other pictures than RGB, `ConfigurationError`
    for an architecture that can not be built or a float type that the weights do not stand, and `PluginError` where
    diffusers is not installed.
    """
    model = _new(options, classes) if options.location is None else _pretrained(options, *options.location, classes)
    _check_pictures(model)
    _check_dtype(model, options)
    if options.dtype != "float32":
        with _quiet(_diffusers()):
            model = model.to(getattr(torch, options.dtype))
    return model.eval()


def local_folder(options: AutoencoderOptions) -> Path | None:
    """The folder on this machine that holds the weights; None for a hub id and for new weights."""
    if options.location is None:
        return None
    path, subfolder = options.location
    folder = Path(path).expanduser() / (subfolder or "")
    return folder if folder.is_dir() else None


def _diffusers() -> Any:
    try:
        # Imports torch and takes seconds.
        import diffusers
    except ImportError as error:
        raise PluginError(
            f"Autoencoders need diffusers, which can not be imported: {_reason(error)} "
            "Install it: pip install 'diffusers>=0.35'."
        ) from error
    return diffusers


def _new(options: AutoencoderOptions, classes: Sequence[str]) -> nn.Module:
    architecture = dict(options.architecture or {})
    name = str(architecture.pop("class"))
    if name not in classes:
        raise ConfigurationError(f"Expected an architecture of class {_either(classes)}, found '{name}'.{_hint(name)}")
    cls: Any = getattr(_diffusers(), name)
    known = set(inspect.signature(cls.__init__).parameters) - {"self"}
    for key in architecture:
        if key not in known:
            raise ConfigurationError(
                f"Expected arguments of diffusers' {name} in the architecture, found '{key}'.{did_you_mean(key, known)}"
            )
    try:
        model: nn.Module = cls(**architecture)
    except (*_FAILURES, IndexError, AttributeError, AssertionError, ZeroDivisionError) as error:
        raise ConfigurationError(f"diffusers can not build this {name}: {_reason(error)}") from error
    return model


def _pretrained(options: AutoencoderOptions, path: str, subfolder: str | None, classes: Sequence[str]) -> nn.Module:
    _check_folder(path, subfolder)
    if path.startswith("~"):
        path = str(Path(path).expanduser())
    diffusers = _diffusers()
    where: dict[str, Any] = {"subfolder": subfolder} if subfolder else {}
    if options.revision:
        where["revision"] = options.revision
    shown = f"'{path}'" + (f" (subfolder '{subfolder}')" if subfolder else "")
    try:
        config = getattr(diffusers, classes[0]).load_config(path, **where)
    except _FAILURES as error:
        raise CheckpointError(
            f"Expected a diffusers autoencoder at {shown}, found no readable configuration: {_reason(error)} Pass a "
            "folder that holds config.json and diffusion_pytorch_model.safetensors, or the id of a hub model while "
            "online; models downloaded before load without a network, too."
        ) from error
    name = config.get("_class_name")
    if name not in classes:
        raise CheckpointMismatchError(
            f"Expected a diffusers {_either(classes)} at {shown}, found "
            f"{'a configuration without class' if name is None else repr(name)}.{_hint(name)}"
        )
    # Weights are drawn at random before they are read, which must not depend on what else is installed.
    with torch.random.fork_rng(devices=[]), _quiet(diffusers):
        try:
            loaded: Any = getattr(diffusers, name).from_pretrained(
                path, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True, **where
            )
        except _FAILURES as error:
            raise CheckpointError(
                f"Expected the weights of the {name} at {shown} in safetensors files that fit its config.json, found "
                f"none that can be read: {_reason(error)} Download the model again, or convert its weights with "
                "save_pretrained()."
            ) from error
    model, report = loaded
    # diffusers fills what is missing with random numbers, which would be silent nonsense.
    if report["missing_keys"] or report["mismatched_keys"]:
        wrong = sorted(str(key) for key in [*report["missing_keys"], *report["mismatched_keys"]])
        raise CheckpointError(
            f"Expected all weights of the {name} at {shown}, found {len(wrong)} missing or of another shape, such as "
            f"{wrong[0]}. Pass a complete checkpoint."
        )
    found: nn.Module = model
    return found


def _check_folder(path: str, subfolder: str | None) -> None:
    """Refuse a path that is meant as a folder and does not exist, or holds something else, before a hub is asked."""
    folder = Path(path).expanduser()
    looks_local = folder.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1
    if folder.is_file():
        raise CheckpointError(
            f"Expected a folder with a diffusers autoencoder, found the file '{path}'. Single files of weights come in "
            "formats of other programs; convert it with diffusers and save_pretrained()."
        )
    if looks_local and not folder.is_dir():
        raise CheckpointError(
            f"Expected a folder with a diffusers autoencoder at '{path}', found no such folder. Pass the folder that "
            "holds config.json, or a hub id such as 'stabilityai/sd-vae-ft-mse'."
        )
    if not folder.is_dir():
        return
    inside = folder / (subfolder or "")
    if (inside / "config.json").is_file():
        return
    if not inside.is_dir():
        advice = f"there is no folder '{subfolder}' in it. It holds: {_contents(folder)}"
    elif (folder / "vae" / "config.json").is_file():
        advice = 'it is a whole pipeline. Set subfolder = "vae"'
    elif any(inside.glob("*.ckpt")) or any(inside.glob("*.pt")) or any(inside.glob("*.yaml")):
        advice = (
            f"it holds {_contents(inside)}, which looks like the format of the latent diffusion code. Convert the "
            "weights to a diffusers folder first"
        )
    else:
        advice = f"it holds {_contents(inside)}. Pass the folder with config.json"
    raise CheckpointError(f"Expected a diffusers autoencoder in the folder '{inside}', found no config.json: {advice}.")


def _contents(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return (", ".join(names[:5]) + (", ..." if len(names) > 5 else "")) or "nothing"


def _check_pictures(model: Any) -> None:
    for key in ("in_channels", "out_channels"):
        channels = model.config.get(key, 3)
        if channels != 3:
            raise CheckpointMismatchError(
                f"Expected an autoencoder of RGB images, found {key} = {channels} in its configuration. Choose one "
                "with 3 channels."
            )


def _check_dtype(model: Any, options: AutoencoderOptions) -> None:
    if options.dtype == "float16" and model.config.get("force_upcast"):
        raise ConfigurationError(
            'dtype = "float16", but the configuration of the autoencoder says force_upcast: its activations overflow '
            'in float16 and turn to NaN. Choose "bfloat16" or "float32", or weights that were fixed for float16.'
        )


class _quiet:  # noqa: N801 - used as a function
    """diffusers' remarks about how it loads are off for the length of the block: what matters is checked here."""

    def __init__(self, diffusers: Any) -> None:
        self._logging = diffusers.utils.logging

    def __enter__(self) -> None:
        self._before = self._logging.get_verbosity()
        self._logging.set_verbosity_error()

    def __exit__(self, *_: object) -> None:
        self._logging.set_verbosity(self._before)


def _either(classes: Sequence[str]) -> str:
    return classes[0] if len(classes) == 1 else f"{', '.join(classes[:-1])} or {classes[-1]}"


def _hint(name: str | None) -> str:
    tokenizer = _OTHER_TOKENIZERS.get(name or "")
    return f" Choose the tokenizer '{tokenizer}' for it." if tokenizer else ""


def _reason(error: Exception) -> str:
    """First line of an error's text as a sentence, with the second where the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    if line.endswith(":") and len(lines) > 1:
        line = f"{line} {lines[1]}"
    return line if line.endswith(".") else line + "."
