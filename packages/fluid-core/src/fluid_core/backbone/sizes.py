"""Named sizes of the backbone.

The paper names its models by their parameter counts and its table of widths and depths is not public, so the shapes
below are OURS: widths follow from the parameters that the six-block diffusion head adds over the tied softmax head,
depths are chosen so that the count comes out. What is counted: token and position embeddings, the transformer blocks
and the diffusion head for 256 tokens of 16 channels. Text encoder, text aligner and tokenizer are not counted.
"""

import attrs

from fluid_core.errors import ConfigurationError, did_you_mean, listing


@attrs.frozen(kw_only=True)
class BackboneShape:
    """Everything that decides the shape of a backbone and its text aligner."""

    width: int = attrs.field(validator=attrs.validators.gt(0))
    """Length of a hidden vector; a multiple of `num_heads`."""

    depth: int = attrs.field(validator=attrs.validators.gt(0))
    """Number of blocks, each of self-attention, cross-attention to the text, and MLP."""

    num_heads: int = attrs.field(validator=attrs.validators.gt(0))
    """Attention heads."""

    mlp_ratio: float = attrs.field(default=4.0, validator=attrs.validators.gt(0))
    """Width of the MLP's hidden layer over `width`."""

    aligner_depth: int = attrs.field(default=6, validator=attrs.validators.ge(0))
    """Blocks of the text aligner; six in the paper."""

    dropout: float = attrs.field(default=0.0, validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)])
    """Share of each residual branch's output that is zeroed while training."""

    def __attrs_post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ConfigurationError(
                f"Expected a backbone width that is a multiple of its attention heads, found width {self.width} and "
                f"{self.num_heads} heads."
            )


SIZES: dict[str, BackboneShape] = {
    # For tests, laptops and ablations.
    "debug": BackboneShape(width=32, depth=2, num_heads=2, aligner_depth=1),
    "tiny": BackboneShape(width=96, depth=4, num_heads=3, aligner_depth=2),
    "mini": BackboneShape(width=160, depth=6, num_heads=5, aligner_depth=2),
    "small": BackboneShape(width=256, depth=8, num_heads=8, aligner_depth=4),
    # The paper's.
    "0.2b": BackboneShape(width=768, depth=15, num_heads=12),
    "0.4b": BackboneShape(width=1152, depth=15, num_heads=18),
    "0.7b": BackboneShape(width=1280, depth=23, num_heads=20),
    "1.1b": BackboneShape(width=1536, depth=27, num_heads=24),
    "3.1b": BackboneShape(width=1920, depth=50, num_heads=30),
    "10.5b": BackboneShape(width=4096, depth=37, num_heads=32),
}


def backbone_shape(size: str) -> BackboneShape:
    """The shape of a named size. Raises `ConfigurationError` for a name that is not in `SIZES`."""
    if size not in SIZES:
        raise ConfigurationError(
            f"Unknown backbone size '{size}'.{did_you_mean(size, SIZES)} Known sizes: {listing(SIZES)}. "
            "Or give width, depth and num_heads instead."
        )
    return SIZES[size]
