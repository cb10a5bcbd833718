"""What the paper found for its four variants, to be read beside one's own study.

Losses, FID and GenEval of all variants are read off figures 5 and 6 (losses to 0.1%, FID to 0.02, GenEval to 0.003);
the random-order continuous ones also stand in table 1. All after a million steps of batches of 2048.
"""

from collections.abc import Mapping

import attrs

from fluid_core.planning.paper_figures import PAPER_CONTINUOUS_PARAMETERS, PAPER_DISCRETE_PARAMETERS

PAPER_SIZES = ("0.2b", "0.4b", "0.7b", "1.1b", "3.1b")
"""The sizes that all four variants were trained in."""


@attrs.frozen(kw_only=True)
class PaperVariant:
    """One of the four lines of figures 5 and 6, a figure for each of `PAPER_SIZES`."""

    parameters: tuple[float, ...]
    validation_loss: tuple[float, ...]
    """Cross-entropy, or the error of the predicted noise, on 30K images of MS-COCO 2014."""

    loss_kind: str
    fid: tuple[float, ...]
    geneval: tuple[float, ...]
    """Overall, from 0 to 1."""


def _parameters(counts: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(counts[size] for size in PAPER_SIZES)


PAPER_VARIANTS: Mapping[str, PaperVariant] = {
    "discrete-raster": PaperVariant(
        parameters=_parameters(PAPER_DISCRETE_PARAMETERS),
        validation_loss=(6.827, 6.692, 6.597, 6.524, 6.396),
        loss_kind="cross-entropy",
        fid=(8.08, 7.38, 6.96, 6.94, 6.88),
        geneval=(0.509, 0.571, 0.580, 0.604, 0.614),
    ),
    "discrete-random": PaperVariant(
        parameters=_parameters(PAPER_DISCRETE_PARAMETERS),
        validation_loss=(6.667, 6.594, 6.540, 6.517, 6.452),
        loss_kind="cross-entropy",
        fid=(8.41, 7.72, 7.39, 7.38, 6.95),
        geneval=(0.530, 0.567, 0.619, 0.661, 0.675),
    ),
    "continuous-raster": PaperVariant(
        parameters=_parameters(PAPER_CONTINUOUS_PARAMETERS),
        validation_loss=(0.2554, 0.2492, 0.2449, 0.2414, 0.2345),
        loss_kind="noise-prediction loss",
        fid=(8.66, 7.60, 7.37, 7.20, 6.78),
        geneval=(0.431, 0.506, 0.535, 0.531, 0.563),
    ),
    "continuous-random": PaperVariant(
        parameters=_parameters(PAPER_CONTINUOUS_PARAMETERS),
        validation_loss=(0.3066, 0.3030, 0.2992, 0.2976, 0.2938),
        loss_kind="noise-prediction loss",
        fid=(8.43, 7.23, 6.84, 6.59, 6.41),
        geneval=(0.481, 0.617, 0.648, 0.667, 0.696),
    ),
}
"""By the names that a study must give its variants to be compared with them."""

PAPER_CORRELATION_WITH_GENEVAL = -0.931
"""Pearson's, of validation loss and GenEval over sizes and steps of the random-order continuous models (figure 8)."""
