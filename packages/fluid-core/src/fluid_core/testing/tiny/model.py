"""A whole model of tiny parts."""

import torch

from fluid_core.backbone.sizes import BackboneShape
from fluid_core.model import FluidModel, HeadBuilder
from fluid_core.protocols import OrderPolicy, TextEncoder, Tokenizer
from fluid_core.testing.tiny.heads import TinyCategoricalHead, TinyGaussianHead
from fluid_core.testing.tiny.orders import TinyRandomOrder
from fluid_core.testing.tiny.text_encoder import TinyTextEncoder
from fluid_core.testing.tiny.tokenizers import TinyMeanColours
from fluid_core.token_space import DiscreteTokens


def tiny_model(
    *,
    tokenizer: Tokenizer | None = None,
    order: OrderPolicy | None = None,
    head: HeadBuilder | None = None,
    text_encoder: TextEncoder | None = None,
    backbone: BackboneShape | str = "debug",
    seed: int = 0,
) -> FluidModel:
    """A model of the parts given, and tiny ones for the others.

    By default images of 8 x 8 pixels are sixteen mean colours in random order with a normal distribution each. The
    head follows the tokenizer: a softmax if its tokens are discrete. Weights depend on `seed` alone; torch's global
    generator is left as it was.
    """
    tokenizer = tokenizer or TinyMeanColours()
    if head is None:
        discrete = isinstance(tokenizer.token_space, DiscreteTokens)
        head = TinyCategoricalHead if discrete else TinyGaussianHead
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FluidModel(
            tokenizer=tokenizer,
            text_encoder=text_encoder or TinyTextEncoder(),
            order=order or TinyRandomOrder(),
            head=head,
            backbone=backbone,
        )
