"""What colour an object has: the nearest of ten descriptions to its crop, by CLIP."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fluid_core.evaluation.clip_model import ClipModel
from fluid_core.evaluation.geneval.scoring import ORIGINAL_BACKGROUND, Detection, JudgeSettings
from fluid_core.evaluation.geneval.words import COLORS

_TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")


class ColorJudge:
    """Names colours of detections in a picture, each class with descriptions of its own."""

    def __init__(self, clip: ClipModel, settings: JudgeSettings) -> None:
        self._clip = clip
        self._settings = settings
        self._descriptions: dict[str, Float[Tensor, "colors width"]] = {}

    def in_picture(self, picture: Image.Image) -> Callable[[Sequence[Detection], str], list[str]]:
        """The colours of detections in this picture, in the form that `scoring.judge_detections` asks for."""

        def colors_of(detections: Sequence[Detection], class_name: str) -> list[str]:
            crops = [object_crop(picture, one, self._settings) for one in detections]
            likeness = self._clip.pictures(crops) @ self.descriptions(class_name).T
            return [COLORS[index] for index in likeness.argmax(dim=1).tolist()]

        return colors_of

    def descriptions(self, class_name: str) -> Float[Tensor, "colors width"]:
        """For each colour the mean direction of its descriptions, of length 1."""
        if class_name not in self._descriptions:
            rows = []
            for color in COLORS:
                texts = [template.format(color=color, name=class_name) for template in _TEMPLATES]
                rows.append(functional.normalize(self._clip.texts(texts).mean(dim=0), dim=0))
            self._descriptions[class_name] = torch.stack(rows)
        return self._descriptions[class_name]


def object_crop(picture: Image.Image, detection: Detection, settings: JudgeSettings) -> Image.Image:
    """What of a picture its colour is judged on: the object before plain grey, cut to its box."""
    shown = picture.convert("RGB")
    if detection.mask is not None and settings.background != ORIGINAL_BACKGROUND:
        blank = Image.new("RGB", shown.size, settings.background)
        shown = Image.composite(shown, blank, Image.fromarray(detection.mask))
    return shown.crop(detection.box) if settings.crop else shown
