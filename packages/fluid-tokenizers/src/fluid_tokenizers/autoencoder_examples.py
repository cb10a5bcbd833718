"""Tiny autoencoders with random weights, for tests of everything that takes a tokenizer."""

from pathlib import Path
from typing import Any

import torch

from fluid_tokenizers.options import KLAutoencoderOptions, VQAutoencoderOptions

_SHAPE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "mid_block_add_attention": False,
}


def example_kl_options(folder: Path) -> KLAutoencoderOptions:
    """Options of a tiny AutoencoderKL, which is written below `folder`: 16 tokens of 16 channels."""
    import diffusers

    path = folder / "autoencoder-kl"
    # diffusers initialises from the global generator; fork it, so that nobody else's numbers change.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = diffusers.AutoencoderKL(latent_channels=4, sample_size=16, **_SHAPE)  # type: ignore[no-untyped-call]
        model.save_pretrained(path)
    return KLAutoencoderOptions(path=str(path), image_size=16, patch_size=2)


def example_vq_options(folder: Path) -> VQAutoencoderOptions:
    """Options of a tiny VQModel with 32 codewords, which is written below `folder`: 64 tokens."""
    import diffusers

    path = folder / "vq-model"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = diffusers.VQModel(  # type: ignore[no-untyped-call]
            latent_channels=4, num_vq_embeddings=32, vq_embed_dim=4, sample_size=16, **_SHAPE
        )
        # Fresh codewords lie so close to zero that all latents are nearest to the same few: take latents instead.
        colours = torch.rand(32, 3, 1, 1) * 2 - 1
        with torch.no_grad():
            latents = model.encode(colours.expand(-1, -1, 16, 16)).latents
            model.quantize.embedding.weight.copy_(latents[:, :, 4, 4])
        model.save_pretrained(path)
    return VQAutoencoderOptions(path=str(path), image_size=16)
