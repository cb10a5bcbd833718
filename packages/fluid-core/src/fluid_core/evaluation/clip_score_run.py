"""`fluid evaluate clip-score`: the CLIP score of pictures and their captions, with all settings."""

from collections.abc import Callable
from pathlib import Path

import attrs
import torch
from PIL import Image
from torch import Tensor

from fluid_core.catalog import ComponentCatalog
from fluid_core.errors import DataError, UnreadableImageError
from fluid_core.evaluation.clip_model import ClipModel
from fluid_core.evaluation.clip_score import caption_cosines, clip_scores
from fluid_core.evaluation.item_digest import digest_of, joint_digest
from fluid_core.evaluation.local_transformers import folder_digest
from fluid_core.evaluation.picture_sources import files_fingerprint
from fluid_core.evaluation.prompted_pictures import PicturesChoice, prompted_pictures
from fluid_core.evaluation.result_file import ResultRecord, device_name, versions, write_result
from fluid_core.evaluation.resumable_parts import ResumableParts
from fluid_core.sampling_run.together import together
from fluid_core.training.devices import training_device
from fluid_core.training.processes import Processes

RESULT_FILE = "clip-score.json"


@attrs.frozen(kw_only=True)
class ClipScoreRun:
    """What to score, and with which model."""

    pictures: PicturesChoice
    clip: Path
    """Folder of a CLIP model."""

    prefix: str = ""
    """Put before each caption, with a space between, such as `A photo depicts`."""

    batch_size: int = 32
    device: str = "auto"


def measure_clip_score(
    run: ClipScoreRun,
    *,
    processes: Processes | None = None,
    catalog: ComponentCatalog | None = None,
    note: Callable[[str], None] | None = None,
) -> ResultRecord:
    """Draw what is missing, score, write `clip-score.json` and return it; all processes return the same.

    `note` is told what happens. Raises `DataError` for pictures whose captions nobody knows, and what drawing and
    loading raises.
    """
    processes, note = processes or Processes(), note or _say_nothing
    device = training_device(run.device, setting="--device")
    clip, identity = together(processes, lambda: (ClipModel(run.clip, device), folder_digest(run.clip)))
    note("drawing or finding the pictures")
    pictures = prompted_pictures(run.pictures, processes=processes, catalog=catalog)
    prompts, files = pictures.prompts, pictures.generated.files
    if prompts is None:
        raise DataError("Expected captions of the pictures, found pictures that tell none: give --captions FILE.")
    texts = [f"{run.prefix} {prompt}".strip() for prompt in prompts]

    def compute(numbers: range) -> dict[str, Tensor]:
        opened = [_opened(files[number]) for number in numbers]
        own = [texts[number] for number in numbers]
        return {
            "cosine": caption_cosines(clip, opened, own).double(),
            "truncated": torch.tensor([clip.num_tokens(text) > clip.longest_text for text in own]),
            "picture": torch.stack([digest_of(files[number].read_bytes()) for number in numbers]),
            "text": torch.stack([digest_of(text.encode()) for text in own]),
        }

    note("scoring")
    parts = ResumableParts(
        folder=run.pictures.out / "clip",
        description={
            "what": "clip-score",
            "clip": identity,
            "texts": joint_digest(torch.stack([digest_of(text.encode()) for text in texts])),
            "fingerprint": files_fingerprint(files),
            "packages": {name: one for name, one in versions().items() if name in ("torch", "transformers", "pillow")},
        },
        num_items=len(files),
        part_size=run.batch_size,
        processes=processes,
        overwrite=run.pictures.overwrite,
    )
    found = parts.computed(compute)
    scores, num_truncated = clip_scores(found["cosine"]), int(found["truncated"].sum())
    notes = [f"Captions that were cut to {clip.longest_text} tokens: {num_truncated}."] if num_truncated else []
    generated = pictures.generated
    record = ResultRecord(
        what="clip-score",
        values={
            "clip_score": float(scores.mean()),
            "mean_cosine": float(found["cosine"].mean()),
            "standard_error": float(scores.std() / len(scores) ** 0.5) if len(scores) > 1 else None,
        },
        settings={
            "clip": {"folder": run.clip.resolve().name, "sha256": identity},
            "prefix": run.prefix,
            "formula": "mean over pictures of 100 max(cos, 0)",
            "captions": pictures.captions,
            "texts_sha256": joint_digest(found["text"]),
            "pictures_sha256": joint_digest(found["picture"]),
            "num_truncated": num_truncated,
            "sampling": generated.sampling,
            "batch_size": run.batch_size,
        },
        seeds={"sampling": generated.seed},
        num_images=len(scores),
        model=generated.model,
        device=device_name(device),
        dtype="float32",
        notes=(*generated.notes, *notes),
    )
    together(processes, lambda: write_result(run.pictures.out / RESULT_FILE, record) if processes.is_first else None)
    return record


def _opened(file: Path) -> Image.Image:
    try:
        with Image.open(file) as picture:
            return picture.convert("RGB")
    except Exception as error:
        raise UnreadableImageError(f"Could not read the picture {file}: {error}.") from error


def _say_nothing(_text: str) -> None:
    pass
