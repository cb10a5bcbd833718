"""The losses that autoencoders of diffusers are trained with: reconstruction plus KL, or plus commitment.

`fluid tokenizer train` reaches them through the tokenizers, which hand on their own autoencoder. Nothing here imports
diffusers: the modules come with their methods.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.exchange import BatchShare, ReconstructionLoss
from fluid_tokenizers.codebook_upkeep import CodebookUpkeep
from fluid_tokenizers.training_options import KLTrainingOptions, VQTrainingOptions


def pixel_distance(
    reconstruction: Float[Tensor, "batch 3 height width"],
    images: Float[Tensor, "batch 3 height width"],
    kind: Literal["l1", "l2"],
) -> Float[Tensor, ""]:
    """Mean absolute (`l1`) or mean squared (`l2`) difference of pixel values."""
    difference = reconstruction.float() - images.float()
    return difference.abs().mean() if kind == "l1" else difference.square().mean()


def kl_per_element(
    mean: Float[Tensor, "batch channels height width"], log_variance: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, ""]:
    """Divergence of the diagonal normal from the standard one, in nats, averaged over images and latent elements."""
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()


def kl_reconstruction_loss(
    autoencoder: Any,
    images: Float[Tensor, "batch 3 height width"],
    options: KLTrainingOptions,
    *,
    generator: torch.Generator,
    share: BatchShare | None = None,
) -> ReconstructionLoss:
    """The loss of an autoencoder of diffusers with a posterior or a deterministic latent.

    One sample of the posterior is decoded; its noise comes from `generator` (on the CPU). With `share`, the images are
    those rows of a batch, and the noise is drawn for all of it. Parts: `l1` or `l2`, and `kl`
    where there is a posterior.
    """
    encoded = autoencoder.encode(images)
    posterior = getattr(encoded, "latent_dist", None)
    if posterior is None:
        # AutoencoderTiny calls it latents, AutoencoderDC latent.
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent
        divergence = None
    else:
        share = share or BatchShare(first=0, count=len(images), total=len(images))
        noise = torch.randn((share.total, *posterior.mean.shape[1:]), generator=generator)[share.rows]
        latents = posterior.mean + posterior.std * noise.to(posterior.mean)
        divergence = kl_per_element(posterior.mean, posterior.logvar)
    reconstruction: Tensor = autoencoder.decode(latents).sample
    distance = pixel_distance(reconstruction, images, options.reconstruction)
    parts: dict[str, Tensor] = {options.reconstruction: distance.detach()}
    if divergence is None:
        return ReconstructionLoss(total=distance, reconstruction=reconstruction, parts=parts)
    total = distance + options.kl_weight * divergence
    return ReconstructionLoss(total=total, reconstruction=reconstruction, parts={**parts, "kl": divergence.detach()})


def vq_reconstruction_loss(
    autoencoder: Any,
    images: Float[Tensor, "batch 3 height width"],
    options: VQTrainingOptions,
    upkeep: CodebookUpkeep,
    *,
    share: BatchShare | None = None,
) -> ReconstructionLoss:
    """The loss of diffusers' VQModel: reconstruction, commitment, and for codes that follow by gradient their loss.

    The gradient passes the quantisation as if it were not there (straight through). `upkeep` is shown the codes taken,
    those of all processes where there are several.
    Parts: `l1` or `l2`, and `commitment`, the unweighted mean squared distance of outputs and codes per element.
    """
    latents = autoencoder.encode(images).latents
    # Its own loss is left: by default diffusers weighs the wrong one of the two terms (`legacy`).
    quantized, _, (_, _, ids) = autoencoder.quantize(latents)
    ids = ids.flatten()
    outputs = latents.permute(0, 2, 3, 1).flatten(0, 2)
    codebook = autoencoder.quantize.embedding.weight
    codes = codebook[ids]
    commitment = (outputs.float() - codes.detach().float()).square().mean()
    upkeep.observe(outputs, ids, codebook, share=share)
    reconstruction: Tensor = autoencoder.decode(quantized, force_not_quantize=True).sample
    distance = pixel_distance(reconstruction, images, options.reconstruction)
    total = distance + options.commitment_weight * commitment
    if options.codebook == "gradient":
        total = total + (codes.float() - outputs.detach().float()).square().mean()
    parts = {options.reconstruction: distance.detach(), "commitment": commitment.detach()}
    return ReconstructionLoss(total=total, reconstruction=reconstruction, parts=parts)
