"""Published autoencoders whose constants are known, so that a wrong file or a wrong constant is noticed. No torch."""

from collections.abc import Mapping
from typing import Any

import attrs

from fluid_core.errors import CheckpointMismatchError, ConfigurationError, did_you_mean


@attrs.frozen(kw_only=True)
class AutoencoderPreset:
    """What is known of a published autoencoder, and from where."""

    title: str
    repository: str | None
    """Id of a hub repository in diffusers layout; None if there is none."""

    subfolder: str | None = None
    class_name: str = "AutoencoderKL"
    latent_channels: int
    down_factor: int
    """Pixels along one side of a latent."""

    scaling_factor: float
    shift_factor: float | None = None
    patch_size: int
    """Recommended grouping: latents along one side of a token."""

    num_parameters: int | None = None
    """Of encoder and decoder; None if not known."""

    source: str
    """Where the constants come from, in words."""

    how_to_get: str = ""
    """For weights that no diffusers folder holds: what to do, in one or two sentences."""


PRESETS = {
    "sd-1.5": AutoencoderPreset(
        title="Stable Diffusion 1.5",
        repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
        subfolder="vae",
        latent_channels=4,
        down_factor=8,
        scaling_factor=0.18215,
        patch_size=2,
        num_parameters=83_653_863,
        source="the diffusers configuration of Stable Diffusion 1.x and 2.x, where it is also the default of "
        "AutoencoderKL; one over the standard deviation of the latents in one training batch (latent diffusion, arXiv "
        "2112.10752, sections 4.3.2 and D.1)",
    ),
    "sdxl": AutoencoderPreset(
        title="Stable Diffusion XL",
        repository="stabilityai/stable-diffusion-xl-base-1.0",
        subfolder="vae",
        latent_channels=4,
        down_factor=8,
        scaling_factor=0.13025,
        patch_size=2,
        num_parameters=83_653_863,
        source="the configuration published with the weights; they overflow in float16 (force_upcast)",
    ),
    "sd3": AutoencoderPreset(
        title="Stable Diffusion 3",
        repository="stabilityai/stable-diffusion-3-medium-diffusers",
        subfolder="vae",
        latent_channels=16,
        down_factor=8,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        patch_size=2,
        num_parameters=83_819_683,
        source="the configuration published with the weights, the same in the authors' reference code",
    ),
    "flux.1": AutoencoderPreset(
        title="FLUX.1",
        repository="black-forest-labs/FLUX.1-schnell",
        subfolder="vae",
        latent_channels=16,
        down_factor=8,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        patch_size=2,
        num_parameters=83_819_683,
        source="the configuration published with the weights, the same in the authors' reference code",
    ),
    "ldm-kl-16": AutoencoderPreset(
        title="LDM KL-16, as used by MAR",
        repository=None,
        latent_channels=16,
        down_factor=16,
        scaling_factor=0.2325,
        patch_size=1,
        source="MAR's training code (arXiv 2406.11838), which multiplies latents by it without subtracting a mean; "
        "a user who measured other latents reported another value, so measure",
        how_to_get="its weights are published in the format of the latent diffusion code, which is not a diffusers "
        "folder and can not be read here: convert them to an AutoencoderKL with block_out_channels "
        "(128, 128, 256, 256, 512), 2 layers per block and 16 latent channels, put scaling_factor 0.2325 into its "
        "config.json, and give its folder as `path`",
    ),
}
"""By the name that the option `preset` takes."""


def find_preset(name: str) -> AutoencoderPreset:
    """The preset of that name. Raises `ConfigurationError` that lists the names there are."""
    try:
        return PRESETS[name]
    except KeyError:
        raise ConfigurationError(
            f"Expected a preset among {', '.join(PRESETS)}, found '{name}'.{did_you_mean(name, PRESETS)}"
        ) from None


def check_preset(name: str, config: Mapping[str, Any], class_name: str, down_factor: int) -> None:
    """Raise `CheckpointMismatchError`, naming both sides, unless an autoencoder has the constants of the preset."""
    preset = find_preset(name)
    facts = {
        "class": (preset.class_name, class_name),
        "latent_channels": (preset.latent_channels, config.get("latent_channels")),
        "pixels along one side of a latent": (preset.down_factor, down_factor),
        "scaling_factor": (preset.scaling_factor, config.get("scaling_factor")),
        "shift_factor": (preset.shift_factor or 0.0, config.get("shift_factor") or 0.0),
    }
    wrong = [f"{fact} {found} instead of {expected}" for fact, (expected, found) in facts.items() if found != expected]
    if wrong:
        raise CheckpointMismatchError(
            f"Expected the autoencoder of {preset.title} (preset '{name}'), found {'; '.join(wrong)}. The preset's "
            f"constants come from {preset.source}. If the weights are the preset's, correct their config.json; if they "
            "are others, leave the preset out."
        )
