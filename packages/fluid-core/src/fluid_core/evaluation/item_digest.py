"""Fingerprints of what was measured on: the same digest means the same pictures and captions in the same order."""

import hashlib

import torch
from jaxtyping import UInt8
from torch import Tensor

from fluid_core.data.captioned_images import CaptionedImage
from fluid_core.data.encoded_images import EncodedImage


def digest_of(content: bytes) -> UInt8[Tensor, "32"]:
    """SHA-256 of some bytes, as a tensor that can be kept beside other results."""
    return torch.frombuffer(bytearray(hashlib.sha256(content).digest()), dtype=torch.uint8)


def item_digest(item: CaptionedImage | EncodedImage) -> UInt8[Tensor, "32"]:
    """SHA-256 of a picture, or of what a tokenizer made of it, and of its caption."""
    tensors = {"image": item.image} if isinstance(item, CaptionedImage) else dict(item.precomputed)
    digest = hashlib.sha256(item.caption.encode())
    for name in sorted(tensors):
        digest.update(f"\n{name} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def joint_digest(digests: UInt8[Tensor, "items 32"]) -> str:
    """One SHA-256, in hexadecimal, of the digests of all items in their order."""
    return hashlib.sha256(digests.contiguous().numpy().tobytes()).hexdigest()
