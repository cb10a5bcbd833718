"""The words GenEval is made of: 80 objects in the order of COCO's classes, ten colours, four relations, six tasks."""

from importlib import resources


def _lines(name: str) -> tuple[str, ...]:
    text = resources.files("fluid_core.evaluation.geneval").joinpath(name).read_text(encoding="utf-8")
    return tuple(text.splitlines())


OBJECT_NAMES = _lines("object_names.txt")
"""GenEval's names of the classes; number `i` is class `i` of a detector trained on COCO."""

COLORS = _lines("colors.txt")
"""What a colour can be judged as, in the order in which ties are broken."""

RELATIONS = ("left of", "right of", "above", "below")

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""The score of GenEval is the mean of the scores of these six."""

NUM_PROMPTS = 553
"""Lines of the official `evaluation_metadata.jsonl`."""

NUM_PICTURES = 4
"""Pictures drawn for each of them."""

COCO_NAMES = {
    "motorcycle": ("motorbike",),
    "airplane": ("aeroplane",),
    "couch": ("sofa",),
    "potted plant": ("pottedplant",),
    "dining table": ("diningtable",),
    "tv": ("tvmonitor", "tv monitor", "television"),
    "computer mouse": ("mouse",),
    "tv remote": ("remote",),
    "computer keyboard": ("keyboard",),
    "hair drier": ("hair dryer",),
    "donut": ("doughnut",),
}
"""What else detectors call some of the classes."""
