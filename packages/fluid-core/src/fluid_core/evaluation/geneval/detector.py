"""Mask2Former (arXiv 2112.01527) as GenEval uses it: the surest hundred of all queries and classes, boxes from masks.

mmdetection's rules are written out here, so that its packages are not needed; transformers computes the network. Its
own reading of instances differs: it looks at masks of 384 x 384 pixels and gives no boxes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fluid_core.errors import CheckpointError
from fluid_core.evaluation.geneval.scoring import Detection
from fluid_core.evaluation.geneval.words import COCO_NAMES, OBJECT_NAMES
from fluid_core.evaluation.local_transformers import load_local, load_local_part

_WHAT = "a Mask2Former model for instances of COCO"
_EXAMPLE = "facebook/mask2former-swin-small-coco-instance"
_MOST_DETECTIONS = 100
# Detections below this score count for no threshold anybody uses; their masks would only take memory.
_LEAST_SCORE = 0.05


class Mask2FormerDetector:
    """Finds objects of COCO's 80 classes, under GenEval's names.

    Raises `CheckpointError` unless `folder` holds such a model and the preparation of its pictures.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        # transformers takes seconds to import.
        import transformers

        self.device = device
        self._model = load_local(
            folder, transformers.Mask2FormerForUniversalSegmentation, what=_WHAT, example=_EXAMPLE
        ).to(device)
        # The variant that needs no torchvision; releases before 5 have that one alone.
        prepare = getattr(transformers, "Mask2FormerImageProcessorPil", None) or transformers.Mask2FormerImageProcessor
        self._prepare = load_local_part(
            folder, prepare, what="the preparation of a detector's pictures", files="preprocessor_config.json"
        )
        _check_classes(self._model.config, folder)

    def detect(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        """The objects in each picture; pictures of different sizes are looked at one by one."""
        if len({picture.size for picture in pictures}) > 1:
            return [found for picture in pictures for found in self.detect([picture])]
        if not pictures:
            return []
        prepared = self._prepare(images=[picture.convert("RGB") for picture in pictures], return_tensors="pt")
        width, height = pictures[0].size
        with torch.inference_mode():
            pixels = prepared["pixel_values"].to(self.device)
            output = self._model(pixel_values=pixels, pixel_mask=prepared["pixel_mask"].to(self.device))
            return [
                instances(classes, masks, seen_size=(pixels.shape[-2], pixels.shape[-1]), size=(height, width))
                for classes, masks in zip(output.class_queries_logits, output.masks_queries_logits, strict=True)
            ]


def instances(
    class_logits: Float[Tensor, "queries classes_and_none"],
    mask_logits: Float[Tensor, "queries mask_height mask_width"],
    *,
    seen_size: tuple[int, int],
    size: tuple[int, int],
) -> list[Detection]:
    """What the network's output for one picture of `size` (height, width) says, the surest first.

    A query may stand for several classes. A score is the probability of the class times the mean probability within
    the mask. `seen_size` is the size at which the network saw the picture.
    """
    probabilities = class_logits.softmax(dim=-1)[:, :-1]
    num_classes = probabilities.shape[1]
    scores, places = probabilities.flatten().topk(min(_MOST_DETECTIONS, probabilities.numel()))
    found = []
    for score, place in zip(scores.tolist(), places.tolist(), strict=True):
        if score < _LEAST_SCORE:
            break
        query, class_index = divmod(place, num_classes)
        logits = functional.interpolate(
            mask_logits[None, None, query].float(), size=seen_size, mode="bilinear", align_corners=False
        )
        logits = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0, 0]
        mask = logits > 0
        within = float((logits.sigmoid() * mask).sum() / (mask.sum() + 1e-6))
        if score * within < _LEAST_SCORE:
            continue
        found.append(
            Detection(
                class_name=OBJECT_NAMES[class_index],
                box=_box_around(mask),
                score=score * within,
                mask=mask.cpu().numpy(),
            )
        )
    return sorted(found, key=lambda one: one.score, reverse=True)


def _box_around(mask: Bool[Tensor, "height width"]) -> tuple[float, float, float, float]:
    """The smallest box around a mask that is not empty: right and bottom are the first pixels outside."""
    columns, rows = mask.any(dim=0).nonzero(), mask.any(dim=1).nonzero()
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _check_classes(config: Any, folder: Path) -> None:
    """Raise `CheckpointError` unless the classes of a model are COCO's 80 in their order, or have no names at all."""
    names = {int(index): str(name).lower().replace("_", " ") for index, name in config.id2label.items()}
    nameless = all(name == f"label {index}" for index, name in names.items())
    if len(names) != len(OBJECT_NAMES):
        raise CheckpointError(
            f"Expected a detector of COCO's {len(OBJECT_NAMES)} classes in {folder}, found one of {len(names)}. Pass "
            f"one for instances, such as {_EXAMPLE}; those for panoptic segmentation have other classes."
        )
    for index, name in enumerate(OBJECT_NAMES):
        if not nameless and names.get(index) not in (name, *COCO_NAMES.get(name, ())):
            raise CheckpointError(
                f"Expected class {index} of the detector in {folder} to be '{name}', found '{names.get(index)}'. Pass "
                f"a detector with COCO's classes in their order, such as {_EXAMPLE}."
            )
