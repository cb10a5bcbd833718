"""CLIP score: how well pictures fit their captions, by the angle between a CLIP model's vectors of both.

Hessel et al. (arXiv 2104.08718). A picture's score is 100 max(cos, 0), and a set's the mean; some papers report the
mean cosine itself, which is given as well. Scores of different CLIP models do not compare.
"""

from collections.abc import Sequence

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.evaluation.clip_model import ClipModel


def caption_cosines(
    clip: ClipModel, pictures: Sequence[Image.Image], captions: Sequence[str]
) -> Float[Tensor, "pictures"]:
    """The cosine between each picture and the caption at its place, on the CPU.

    Raises `InvalidRequestError` for other numbers of pictures than of captions, or none.
    """
    if len(pictures) != len(captions) or not pictures:
        raise InvalidRequestError(
            f"Expected one caption for each of at least one picture, found {len(pictures)} pictures and "
            f"{len(captions)} captions."
        )
    return (clip.pictures(pictures) * clip.texts(captions)).sum(dim=1).cpu()


def clip_scores(cosines: Float[Tensor, "pictures"]) -> Float[Tensor, "pictures"]:
    """The score of each picture, from 0 to 100."""
    return 100.0 * cosines.clamp(min=0.0)
