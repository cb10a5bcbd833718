"""Options of the built-in tokenizers. No torch here: listing components must stay fast."""

from typing import Any

import attrs

from fluid_core.errors import ConfigurationError

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
