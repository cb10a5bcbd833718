"""Tokenizer and text encoder of a configuration in outline, without a download."""

from typing import TypeVar

import torch
from torch import nn

from fluid_core.building import component_options
from fluid_core.catalog import ComponentCatalog, InstalledComponent
from fluid_core.components import TextEncoderComponent, TokenizerComponent
from fluid_core.configuration import ComponentChoice
from fluid_core.errors import FluidError, InvalidComponentError
from fluid_core.planning.outlines import PrecomputedTensor, TextEncoderOutline, TokenizerOutline
from fluid_core.protocols import TextEncoder, Tokenizer

Outline = TypeVar("Outline")


def tokenizer_outline(choice: ComponentChoice, catalog: ComponentCatalog) -> TokenizerOutline:
    """What the component says of itself, or else what shows when it is built.

    Raises what the component does where it can not say, such as `CheckpointError` for weights of which neither the
    configuration nor a preset is at hand.
    """
    installed = catalog.find("tokenizer", choice.name)
    assert isinstance(installed.component, TokenizerComponent)
    root = "$.tokenizer.options"
    if installed.component.outline is not None:
        found = installed.component.outline(component_options(installed, choice.options, root=root))
        return _checked(found, TokenizerOutline, installed)
    tokenizer: Tokenizer = catalog.build("tokenizer", choice.name, choice.options, root=root)
    assert isinstance(tokenizer, nn.Module)
    return TokenizerOutline(
        token_space=tokenizer.token_space,
        image_size=tokenizer.image_size,
        precomputed=_precomputed(tokenizer),
        num_parameters=num_parameters(tokenizer),
        bytes_per_parameter=_bytes_per_parameter(tokenizer),
        source="built",
    )


def text_encoder_outline(
    choice: ComponentChoice, catalog: ComponentCatalog
) -> tuple[TextEncoderOutline | None, TextEncoder | None]:
    """The outline of a frozen text encoder; or None, and the encoder itself, if it trains with the model.

    Raises as `tokenizer_outline`.
    """
    installed = catalog.find("text-encoder", choice.name)
    assert isinstance(installed.component, TextEncoderComponent)
    root = "$.text_encoder.options"
    if installed.component.outline is not None:
        found = installed.component.outline(component_options(installed, choice.options, root=root))
        return _checked(found, TextEncoderOutline, installed), None
    encoder: TextEncoder = catalog.build("text-encoder", choice.name, choice.options, root=root)
    if not encoder.frozen:
        return None, encoder
    assert isinstance(encoder, nn.Module)
    outline = TextEncoderOutline(
        width=encoder.width,
        max_length=encoder.max_length,
        num_parameters=num_parameters(encoder),
        bytes_per_parameter=_bytes_per_parameter(encoder),
        source="built",
    )
    return outline, None


def num_parameters(module: nn.Module) -> int:
    """Numbers in all parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def _bytes_per_parameter(module: nn.Module) -> int:
    return max((parameter.dtype.itemsize for parameter in module.parameters()), default=4)


def _precomputed(tokenizer: Tokenizer) -> tuple[PrecomputedTensor, ...]:
    space = tokenizer.token_space
    try:
        with torch.no_grad():
            found = tokenizer.precompute(torch.zeros(1, 3, *tokenizer.image_size))
    except FluidError:
        # A tokenizer that has yet to learn from images: what it will return are its tokens, or nearly so.
        return (PrecomputedTensor(name="tokens", shape=(space.grid.length, *space.token_shape), dtype=space.dtype),)
    return tuple(
        PrecomputedTensor(name=name, shape=tuple(tensor.shape[1:]), dtype=tensor.dtype)
        for name, tensor in sorted(found.items())
    )


def _checked(outline: object, expected: type[Outline], installed: InstalledComponent) -> Outline:
    if not isinstance(outline, expected):
        raise InvalidComponentError(
            f"The {installed} is not valid: expected its outline to return a {expected.__name__}, found a value of "
            f"type {type(outline).__name__}."
        )
    return outline
