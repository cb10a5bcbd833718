"""`vq-autoencoder` against diffusers' VQModel with random weights."""

import pytest
import torch

from fluid_core.errors import InvalidRequestError, InvalidTokensError
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import DiscreteTokens, Grid
from fluid_tokenizers import VQAutoencoder, VQAutoencoderOptions


@pytest.fixture
def build(tmp_path):
    """A function that saves a VQModel and builds the tokenizer from its folder."""

    def make(model, **options):
        model.save_pretrained(tmp_path / "weights")
        return VQAutoencoder(VQAutoencoderOptions(**{"path": str(tmp_path / "weights"), "image_size": 16, **options}))

    return make


def test_ids_are_those_of_diffusers(build, tiny_autoencoders, scenes):
    """The nearest codeword of every latent in raster order, for a batch larger than is compared at once."""
    model, images = tiny_autoencoders.vq(), scenes(70, seed=0, size=16)
    tokenizer = build(model)
    assert tokenizer.token_space == DiscreteTokens(grid=Grid(height=8, width=8), vocabulary_size=16)
    with torch.no_grad():
        expected = model.quantize(model.encode(images).latents)[2][2].view(70, 64)
    stored = tokenizer.precompute(images)
    assert torch.equal(stored["ids"], expected)
    assert len(expected.unique()) > 1
    tokens = tokenizer.tokens({"ids": stored["ids"].to(torch.int16)}, random=KeyedRandom(torch.arange(70)))
    tokenizer.token_space.validate(tokens)


SPATIAL = {"norm_type": "spatial", "latent_channels": 3, "block_out_channels": (32, 32), "norm_num_groups": 32}


@pytest.mark.parametrize("config", [{}, {"lookup_from_codebook": True}, SPATIAL], ids=["plain", "lookup", "spatial"])
def test_decoding_equals_diffusers(build, tiny_autoencoders, config):
    """Codewords of the ids, decoded by the model's own decode, whichever way its configuration asks for them."""
    model = tiny_autoencoders.vq(**config)
    ids = torch.randint(16, (3, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        codes = model.quantize.get_codebook_entry(ids.view(3, -1), shape=(3, 8, 8, 3))
        if config.get("lookup_from_codebook"):
            expected = model.decode(ids, force_not_quantize=True, shape=(3, 8, 8, 3)).sample
        else:
            expected = model.decode(codes, force_not_quantize=True).sample
        assert torch.equal(build(model).decode(ids), expected.clamp(-1, 1))


def test_scaling_factors_do_not_touch_ids(build, tiny_autoencoders, scenes):
    """A VQModel's configuration has a scaling factor; ids have no scale."""
    images = scenes(2, seed=0, size=16)
    first = build(tiny_autoencoders.vq()).precompute(images)["ids"]
    assert torch.equal(build(tiny_autoencoders.vq(scaling_factor=3.0)).precompute(images)["ids"], first)


def test_bad_ids_and_images_are_refused(build, tiny_autoencoders, scenes):
    """Ids outside the codebook, and images of another size."""
    tokenizer = build(tiny_autoencoders.vq())
    with pytest.raises(InvalidTokensError, match="from 0 to 15, found ids from 0 to 16"):
        tokenizer.decode(torch.arange(64)[None].clamp(max=16))
    with pytest.raises(InvalidRequestError, match="Expected images of 16 x 16"):
        tokenizer.precompute(scenes(1, seed=0, size=32))


def test_identity_follows_the_codebook(build, tiny_autoencoders):
    """The same for the same weights, another after a codeword changed."""
    tokenizer = build(tiny_autoencoders.vq())
    identity = tokenizer.identity()
    assert build(tiny_autoencoders.vq()).identity() == identity
    with torch.no_grad():
        tokenizer.codebook[3].zero_()
    assert tokenizer.identity() != identity


def test_bfloat16_weights_are_compared_in_single_precision(build, tiny_autoencoders, scenes):
    """Encoding runs in bfloat16, and gives valid ids and float32 images."""
    tokenizer = build(tiny_autoencoders.vq(), dtype="bfloat16")
    ids = tokenizer.precompute(scenes(2, seed=0, size=16))["ids"]
    tokenizer.token_space.validate(ids)
    with torch.no_grad():
        assert tokenizer.decode(ids).dtype == torch.float32
