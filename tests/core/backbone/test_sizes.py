"""Named sizes: the parameter counts they are named after."""

import attrs
import pytest
import torch

from fluid_core import AttentionPattern, ContinuousTokens, Grid, TrainedPermutations
from fluid_core.backbone.sizes import SIZES, BackboneShape, backbone_shape
from fluid_core.backbone.token_embedding import TokenEmbedding
from fluid_core.backbone.transformer import Transformer
from fluid_core.catalog import installed_components
from fluid_core.errors import ConfigurationError
from fluid_core.exchange import HeadContext

PAPER = {"0.2b": 166e6, "0.4b": 369e6, "0.7b": 665e6, "1.1b": 1.1e9, "3.1b": 3.1e9, "10.5b": 10.5e9}


@pytest.mark.parametrize("size", PAPER)
def test_parameter_counts_are_those_of_the_paper(size):
    """Token embedding, transformer and six-block diffusion head together are within 3% of the paper's figure."""
    shape = backbone_shape(size)
    space = ContinuousTokens(grid=Grid(height=16, width=16), channels=16)
    with torch.device("meta"):
        embedding = TokenEmbedding(space, shape.width, AttentionPattern.BIDIRECTIONAL, TrainedPermutations.ANY)
        transformer = Transformer(shape)
        context = HeadContext(token_space=space, width=shape.width, token_embedding=embedding.content)
        head = installed_components().build("head", "diffusion", {"depth": 6}, context)
    count = sum(p.numel() for part in (embedding, transformer, head) for p in part.parameters())
    assert abs(count / PAPER[size] - 1) < 0.03


def test_sizes_grow():
    """Every named size has more parameters than the one before."""
    volumes = [shape.depth * shape.width**2 for shape in SIZES.values()]
    assert volumes == sorted(volumes)
    assert all(shape.width % shape.num_heads == 0 for shape in SIZES.values())


def test_the_paper_sizes_have_six_aligner_blocks():
    """The paper puts six transformer blocks behind the text encoder."""
    assert {SIZES[size].aligner_depth for size in PAPER} == {6}


def test_an_unknown_size_is_refused_with_a_hint():
    """A misspelt size names the one that was meant, and all there are."""
    with pytest.raises(ConfigurationError, match=r"'1\.1B'\. Did you mean '1\.1b'\?.*'debug'"):
        backbone_shape("1.1B")


def test_heads_must_divide_the_width():
    """A width that the heads can not share is refused with both numbers."""
    with pytest.raises(ConfigurationError, match="width 30 and 4 heads"):
        BackboneShape(width=30, depth=1, num_heads=4)
    with pytest.raises(ValueError, match="dropout"):
        attrs.evolve(SIZES["tiny"], dropout=1.0)
