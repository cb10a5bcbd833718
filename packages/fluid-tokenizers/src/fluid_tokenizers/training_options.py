"""Options of the losses that autoencoders are trained with. No torch here: listing components must stay fast."""

from typing import Literal

import attrs

_NOT_NEGATIVE = attrs.validators.ge(0.0)


@attrs.frozen(kw_only=True)
class KLTrainingOptions:
    """The loss of a variational autoencoder: reconstruction + `kl_weight` * KL. Read in training alone."""

    reconstruction: Literal["l1", "l2"] = "l1"
    """Mean absolute or mean squared difference of pixel values in [-1, 1]."""

    kl_weight: float = attrs.field(default=1e-4, validator=_NOT_NEGATIVE)
    """Weight of the divergence from the standard normal, in nats per latent element. Codes that sum the divergence
    over a latent and the reconstruction over pixels have other numbers for the same balance. Deterministic autoencoders
    have no such term."""


@attrs.frozen(kw_only=True)
class VQTrainingOptions:
    """The loss of a vector-quantised autoencoder (van den Oord et al., arXiv 1711.00937), and the upkeep of its
    codebook. Read in training alone.
    """

    reconstruction: Literal["l1", "l2"] = "l1"
    """Mean absolute or mean squared difference of pixel values in [-1, 1]."""

    commitment_weight: float = attrs.field(default=0.25, validator=_NOT_NEGATIVE)
    """Weight of the mean squared distance that pulls the encoder's outputs to their codes."""

    codebook: Literal["gradient", "average"] = "gradient"
    """How codes follow the encoder: by a loss of their own (weight 1), or as a moving average of the outputs assigned
    to them."""

    codebook_decay: float = attrs.field(default=0.99, validator=[_NOT_NEGATIVE, attrs.validators.lt(1.0)])
    """Decay of that moving average per step; without meaning for codes that follow by gradient."""

    window_steps: int = attrs.field(default=50, validator=attrs.validators.gt(0))
    """Steps over which the use of the codes is counted. A code that no position took in a whole window is dead."""

    revive_dead_codes: bool = True
    """Move dead codes, at the end of each window, onto present outputs of the encoder."""
