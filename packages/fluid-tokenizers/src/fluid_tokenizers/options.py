"""Options of the built-in tokenizers. No torch here: listing components must stay fast."""

from typing import Any, Literal

import attrs

from fluid_core.errors import ConfigurationError
from fluid_tokenizers.presets import find_preset
from fluid_tokenizers.training_options import KLTrainingOptions, VQTrainingOptions

_POSITIVE = (attrs.validators.instance_of(int), attrs.validators.gt(0))


def _divides_image_size(instance: Any, attribute: "attrs.Attribute[int]", value: int) -> None:
    if instance.image_size % value:
        raise ConfigurationError(
            f"Expected {attribute.name} to divide image_size, so that whole patches cover the image, found "
            f"{attribute.name} = {value} for image_size = {instance.image_size}. Choose one of "
            f"{[size for size in range(1, instance.image_size + 1) if instance.image_size % size == 0]}."
        )


@attrs.frozen(kw_only=True)
class PixelPatchesOptions:
    """Options of `pixel-patches`: square images of `image_size` pixels, cut into squares of `patch_size`
    pixels.

    Raises `ConfigurationError` if the patches do not cover the image exactly.
    """

    image_size: int = attrs.field(default=32, validator=_POSITIVE)
    patch_size: int = attrs.field(default=4, validator=[*_POSITIVE, _divides_image_size])


@attrs.frozen(kw_only=True)
class PatchCodebookOptions:
    """Options of `patch-codebook`: the same patches, each replaced by one of `vocabulary_size` codewords.

    Raises `ConfigurationError` if the patches do not cover the image exactly.
    """

    image_size: int = attrs.field(default=32, validator=_POSITIVE)
    patch_size: int = attrs.field(default=4, validator=[*_POSITIVE, _divides_image_size])
    vocabulary_size: int = attrs.field(
        default=512, validator=[attrs.validators.instance_of(int), attrs.validators.ge(2)]
    )


@attrs.frozen(kw_only=True)
class AutoencoderOptions:
    """What the tokenizers made of a diffusers autoencoder have in common.

    Raises `ConfigurationError` unless exactly one of `path` and `architecture` is given.
    """

    path: str | None = None
    """A folder written by diffusers' save_pretrained, or the id of a hub model."""

    subfolder: str | None = None
    """Folder within `path`, such as `vae` for that of a whole pipeline."""

    revision: str | None = None
    """Branch, tag or commit of a hub model."""

    architecture: dict[str, Any] | None = None
    """For new weights to train: `class`, such as `AutoencoderKL`, and the arguments of that diffusers class."""

    image_size: int = attrs.field(default=256, validator=_POSITIVE)
    """Height and width in pixels."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """In what numbers the autoencoder computes. What it returns is float32 in any case."""

    def __attrs_post_init__(self) -> None:
        if (self.location is None) == (self.architecture is None):
            found = "neither" if self.architecture is None else "both"
            raise ConfigurationError(
                "Expected exactly one of path (a folder or hub id with weights) and architecture (a table, for new "
                f"weights), found {found}."
            )
        if self.architecture is not None and not isinstance(self.architecture.get("class"), str):
            raise ConfigurationError(
                'Expected the architecture to name a diffusers class, as in class = "AutoencoderKL", found none.'
            )
        if self.path is None and (self.subfolder is not None or self.revision is not None):
            raise ConfigurationError(
                "subfolder and revision say where in path the weights are, but there is no path. Leave them out."
            )

    @property
    def location(self) -> tuple[str, str | None] | None:
        """Folder or hub id with the weights, and the folder within it; None for new weights."""
        return None if self.path is None else (self.path, self.subfolder)


@attrs.frozen(kw_only=True)
class KLAutoencoderOptions(AutoencoderOptions):
    """Options of `kl-autoencoder`: a diffusers AutoencoderKL, AutoencoderTiny or AutoencoderDC.

    `preset` alone takes the weights from the preset's hub repository. Raises `ConfigurationError` for options that
    contradict each other.
    """

    preset: str | None = None
    """Name of a published autoencoder (`fluid_tokenizers.presets`): its constants must be those of the weights."""

    patch_size: int | None = attrs.field(default=None, validator=attrs.validators.optional(_POSITIVE))
    """Latents along one side of a token: 2 makes 256 tokens of 16 channels from a Stable Diffusion latent at
    256 x 256. None takes the preset's, or 1."""

    latents: Literal["measured", "scaled"] = "measured"
    """`measured` normalises each token channel by statistics of a data set, on top of the autoencoder's own scaling;
    `scaled` leaves it at that scaling, as MAR does, whatever statistics there are."""

    statistics: str | None = None
    """A file written by `fluid tokenizer measure`; None takes `latent_statistics.json` beside the weights if there is
    one, else training measures."""

    sample_posterior: bool = True
    """Draw latents from the posterior, as MAR does; false takes its mode."""

    training: KLTrainingOptions = attrs.field(factory=KLTrainingOptions)
    """The loss of `fluid tokenizer train`."""

    def __attrs_post_init__(self) -> None:
        if self.preset is not None:
            preset = find_preset(self.preset)
            if preset.repository is None and self.path is None and self.architecture is None:
                raise ConfigurationError(f"The preset '{self.preset}' has no weights to load: {preset.how_to_get}.")
        AutoencoderOptions.__attrs_post_init__(self)

    @property
    def location(self) -> tuple[str, str | None] | None:
        """Folder or hub id with the weights, and the folder within it; None for new weights."""
        if self.path is None and self.architecture is None and self.preset is not None:
            preset = find_preset(self.preset)
            return None if preset.repository is None else (preset.repository, preset.subfolder)
        return None if self.path is None else (self.path, self.subfolder)

    @property
    def grouping(self) -> int:
        """`patch_size`, or the preset's, or 1."""
        if self.patch_size is not None:
            return self.patch_size
        return 1 if self.preset is None else find_preset(self.preset).patch_size


@attrs.frozen(kw_only=True)
class VQAutoencoderOptions(AutoencoderOptions):
    """Options of `vq-autoencoder`: a diffusers VQModel. Raises `ConfigurationError` as its base does."""

    training: VQTrainingOptions = attrs.field(factory=VQTrainingOptions)
    """The loss of `fluid tokenizer train`, and the upkeep of the codebook meanwhile."""
