"""A scene: which objects stand where. Lengths are shares of the picture's side, so a scene fits any resolution.

x runs from the left edge (0) to the right (1), y from the top (0) to the bottom (1).
"""

import attrs

from fluid_core.data.shapes.vocabulary import BACKGROUND

# GenEval's rule for positions: centres count as apart only beyond a tenth of both sizes, and a direction counts if
# the offset along it is more than half of the distance.
_MARGIN = 0.1
_LEAST_SHARE = 0.5


@attrs.frozen(kw_only=True)
class Box:
    """A rectangle with sides along the axes, by its centre and its size."""

    center: tuple[float, float]
    """x and y."""

    size: tuple[float, float]
    """Width and height."""


@attrs.frozen(kw_only=True)
class SceneObject:
    """One shape of one colour in a square box of side `size` about `center`."""

    shape: str
    color: str
    center: tuple[float, float]
    size: float

    @property
    def box(self) -> Box:
        """The box the outline fills."""
        return Box(center=self.center, size=(self.size, self.size))


@attrs.frozen(kw_only=True)
class Scene:
    """Objects that do not touch, before a plain background (red, green, blue from 0 to 255)."""

    objects: tuple[SceneObject, ...]
    background: tuple[int, int, int] = BACKGROUND


def relations_between(subject: Box, anchor: Box, *, slack: float = 0.0) -> frozenset[str]:
    """Every relation in which `subject` stands to `anchor`, by GenEval's rule; a diagonal can be two at once.

    With `slack` above 0, relations that hold almost are named too.
    """
    offset_x = subject.center[0] - anchor.center[0]
    offset_y = subject.center[1] - anchor.center[1]
    distance = (offset_x**2 + offset_y**2) ** 0.5
    if distance == 0:
        return frozenset()
    margin = max(_MARGIN - slack, 0.0)
    beyond_x = max(abs(offset_x) - margin * (subject.size[0] + anchor.size[0]), 0.0)
    beyond_y = max(abs(offset_y) - margin * (subject.size[1] + anchor.size[1]), 0.0)
    found = set()
    if beyond_x > (_LEAST_SHARE - slack) * distance:
        found.add("left of" if offset_x < 0 else "right of")
    if beyond_y > (_LEAST_SHARE - slack) * distance:
        found.add("above" if offset_y < 0 else "below")
    return frozenset(found)
