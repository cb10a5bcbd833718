"""Tiny autoencoders of diffusers with random weights, shaped like the published ones."""

from typing import Any

import diffusers
import torch

_BLOCKS: dict[str, Any] = {"layers_per_block": 1, "norm_num_groups": 2, "mid_block_add_attention": False}


def stages(count: int) -> dict[str, Any]:
    """Arguments of an encoder and a decoder of `count` stages."""
    return {
        **_BLOCKS,
        "down_block_types": ("DownEncoderBlock2D",) * count,
        "up_block_types": ("UpDecoderBlock2D",) * count,
        "block_out_channels": (4,) * count,
    }


def seeded(build) -> Any:
    """What `build` makes with seed 0, in evaluation mode, the global generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def kl(num_stages: int = 2, **arguments: Any) -> Any:
    """An AutoencoderKL with four latent channels; two stages halve each side once."""
    return seeded(lambda: diffusers.AutoencoderKL(**{**stages(num_stages), **arguments}))


def vq(**arguments: Any) -> Any:
    """A VQModel with 16 codewords that are used: normal instead of almost zero."""

    def build() -> Any:
        settings = {"latent_channels": 4, "num_vq_embeddings": 16, "vq_embed_dim": 3, **stages(2), **arguments}
        model = diffusers.VQModel(**settings)
        torch.nn.init.normal_(model.quantize.embedding.weight)
        return model

    return seeded(build)


def tiny(**arguments: Any) -> Any:
    """An AutoencoderTiny with three stages: each latent covers 4 x 4 pixels."""
    settings = {
        "encoder_block_out_channels": (4, 4, 4),
        "decoder_block_out_channels": (4, 4, 4),
        "num_encoder_blocks": (1, 1, 1),
        "num_decoder_blocks": (1, 1, 1),
        **arguments,
    }
    return seeded(lambda: diffusers.AutoencoderTiny(**settings))


def dc(**arguments: Any) -> Any:
    """An AutoencoderDC with two stages and eight latent channels."""
    settings = {
        "latent_channels": 8,
        "attention_head_dim": 4,
        "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "encoder_layers_per_block": (1, 1),
        "decoder_layers_per_block": (1, 1),
        "encoder_qkv_multiscales": ((), ()),
        "decoder_qkv_multiscales": ((), ()),
        "scaling_factor": 0.41407,
        **arguments,
    }
    return seeded(lambda: diffusers.AutoencoderDC(**settings))
