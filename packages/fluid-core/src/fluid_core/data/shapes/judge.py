"""Decides whether a picture shows exactly the shapes a caption claims, so placed, and nothing else."""

from jaxtyping import Float
from torch import Tensor

from fluid_core.data.captioned_images import Verdict
from fluid_core.data.exact_scenes import SceneWords, SeenObject, judge_seen
from fluid_core.data.facts import Facts
from fluid_core.data.shapes.detection import FoundObject, find_objects
from fluid_core.data.shapes.vocabulary import COLORS, PLURALS, RELATIONS, SHAPES
from fluid_core.errors import DataError

_WORDS = SceneWords(plurals=PLURALS, feature="shape")


def judge_picture(image: Float[Tensor, "3 height width"], facts: Facts) -> Verdict:
    """Whether `image` (values in [-1, 1]) shows exactly what `facts` claim.

    Reliable from 24 pixels a side; at 16, four objects have outlines of five pixels, and one scene in ten is misread.
    A picture with NaN or infinite values shows nothing. Raises `DataError` for facts about unknown classes, colours
    or relations.
    """
    _check_known(facts)
    try:
        found = find_objects(image)
    except DataError as error:
        return Verdict(correct=False, reason=str(error))
    return judge_objects(found, facts)


def judge_objects(found: tuple[FoundObject, ...], facts: Facts) -> Verdict:
    """Whether the objects found in a picture are exactly those that `facts` claim."""
    seen = [SeenObject(class_name=one.shape, color=one.color, box=one.box) for one in found]
    return judge_seen(seen, facts, _WORDS)


def _check_known(facts: Facts) -> None:
    names = (*(one.class_name for one in facts.include), *(one.class_name for one in facts.exclude))
    for name in names:
        if name not in SHAPES:
            raise DataError(f"The judge of shapes knows {', '.join(SHAPES)}; asked about '{name}'.")
    for objects in facts.include:
        if objects.color not in (None, *COLORS):
            raise DataError(f"The judge of shapes knows {', '.join(COLORS)}; asked about '{objects.color}'.")
        if objects.position is not None and objects.position[0] not in RELATIONS:
            raise DataError(f"The judge of shapes knows {', '.join(RELATIONS)}; asked about '{objects.position[0]}'.")
