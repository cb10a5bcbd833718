"""Decides whether a picture shows exactly the emoji that a caption claims, so placed, and nothing else.

Unlike that of shapes this judge has learned to see, and errs now and then: `accuracy.json` says how often.
"""

from jaxtyping import Float
from torch import Tensor

from fluid_core.data.captioned_images import Verdict
from fluid_core.data.exact_scenes import SceneWords, SeenObject, judge_seen
from fluid_core.data.facts import Facts
from fluid_core.data.shapes.vocabulary import RELATIONS
from fluid_core.errors import DataError
from fluid_emoji.judge.detection import FoundEmoji, find_emoji
from fluid_emoji.judge.network import DetectorNetwork
from fluid_emoji.judge.saved_detector import DetectorDescription, shipped_detector
from fluid_emoji.scenes.vocabulary import all_kinds

_KINDS = {kind.name: kind for kind in all_kinds()}
_WORDS = SceneWords(plurals={name: kind.plural for name, kind in _KINDS.items()}, feature="kind")


def judge_picture(
    image: Float[Tensor, "3 height width"],
    facts: Facts,
    detector: tuple[DetectorNetwork, DetectorDescription] | None = None,
) -> Verdict:
    """Whether `image` (values in [-1, 1], of any size) shows exactly what `facts` claim.

    By default the detector of this package looks. A picture with NaN or infinite values shows nothing. Raises
    `DataError` for facts about kinds, colours or relations that the detector does not know.
    """
    network, description = shipped_detector() if detector is None else detector
    _check_known(facts, description)
    try:
        found = find_emoji(image, network, description)
    except DataError as error:
        return Verdict(correct=False, reason=str(error))
    return judge_seen([_seen(one) for one in found], facts, _WORDS)


def _seen(one: FoundEmoji) -> SeenObject:
    if not one.is_clear:
        return SeenObject(class_name=None, color=None, box=one.box)
    kind = _KINDS[one.name]
    return SeenObject(class_name=one.name, color=one.color if kind.recolorable else kind.own_color, box=one.box)


def _check_known(facts: Facts, description: DetectorDescription) -> None:
    names = (*(one.class_name for one in facts.include), *(one.class_name for one in facts.exclude))
    for name in names:
        if name not in description.kinds:
            raise DataError(f"The judge of emoji scenes knows the objects of objects.csv; asked about '{name}'.")
    for objects in facts.include:
        if objects.color not in (None, *description.colors):
            raise DataError(
                f"The judge of emoji scenes knows {', '.join(description.colors)}; asked about '{objects.color}'."
            )
        if objects.position is not None and objects.position[0] not in RELATIONS:
            raise DataError(
                f"The judge of emoji scenes knows {', '.join(RELATIONS)}; asked about '{objects.position[0]}'."
            )
