"""A folder of GenEval's layout, judged prompt by prompt, in several processes if there are, and again after a kill."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from PIL import Image, ImageColor, ImageOps

from fluid_core.atomic_files import check_writable, read_json, remove_unfinished, write_bytes, write_json
from fluid_core.errors import CheckpointError, DataError, InvalidRequestError, UnreadableImageError
from fluid_core.evaluation.geneval.folder import JudgedFolder, prompt_folders, read_folder
from fluid_core.evaluation.geneval.scoring import (
    ORIGINAL_BACKGROUND,
    ColorsOf,
    Detection,
    JudgeSettings,
    counted_detections,
    judge_detections,
)
from fluid_core.evaluation.geneval.summary import summary, what_differs_from_the_official
from fluid_core.evaluation.local_transformers import check_local, folder_digest
from fluid_core.evaluation.result_file import MeasuredModel, ResultRecord, device_name, write_result
from fluid_core.sampling_run.folder import RUN_FILE
from fluid_core.sampling_run.together import together
from fluid_core.training.devices import training_device
from fluid_core.training.processes import Processes

RESULTS_FILE = "results.jsonl"
"""One line per picture, in GenEval's own form."""

SUMMARY_FILE = "geneval.json"
_PARTS_FOLDER = "parts"


@attrs.frozen(kw_only=True, eq=False)
class PictureJudge:
    """What sees objects in pictures, and their colours."""

    detect: Callable[[Sequence[Image.Image]], list[list[Detection]]]
    """The objects in each picture."""

    in_picture: Callable[[Image.Image], ColorsOf]
    """What tells the colours of objects in a picture."""


@attrs.frozen(kw_only=True)
class GenEvalJudging:
    """What to judge, with what."""

    pictures: Path
    """Folder in GenEval's layout."""

    detector: Path
    """Folder of a Mask2Former model."""

    clip: Path
    """Folder of a CLIP model."""

    out: Path
    settings: JudgeSettings = attrs.field(factory=JudgeSettings)
    device: str = "auto"


def judge_geneval(
    judging: GenEvalJudging, *, processes: Processes, told: Callable[[int, int], None] = lambda _done, _all: None
) -> ResultRecord:
    """Judge all pictures, each of the processes its share; all return the same record.

    A prompt that was judged before by the same models and settings is not judged again unless its pictures changed.
    `told` hears of prompts done and prompts in all, of this process. Raises `DataError` for a folder of another layout
    and `CheckpointError` for models that are missing, before anything is judged.
    """
    folders, description, device = together(processes, lambda: _prepared(judging))
    judge = together(processes, lambda: _loaded(judging))

    def judged() -> None:
        share = folders[processes.rank :: processes.count]
        for done, one in enumerate(share, start=1):
            _judge_folder(one, judge, judging, description)
            told(done, len(share))

    if processes.is_first:
        remove_unfinished(judging.out / _PARTS_FOLDER)
    processes.wait()
    together(processes, judged)
    processes.wait()
    results = [result for one in folders for result in read_json(_part_file(judging.out, one))["results"]]
    record = _record(judging, description, results, device)
    if processes.is_first:
        lines = "".join(json.dumps(_with_path(result, judging.pictures)) + "\n" for result in results)
        write_bytes(judging.out / RESULTS_FILE, lines.encode())
        write_result(judging.out / SUMMARY_FILE, record)
    processes.wait()
    return record


def _prepared(judging: GenEvalJudging) -> tuple[list[JudgedFolder], dict[str, Any], str]:
    """What can be known, and can be wrong, before models are loaded."""
    found = prompt_folders(judging.pictures)
    if not found:
        raise DataError(
            f"Expected folders named 00000, 00001, ... in {judging.pictures}, found none. `fluid evaluate geneval` "
            "writes them."
        )
    folders = [read_folder(folder) for folder in found]
    if judging.settings.background != ORIGINAL_BACKGROUND:
        try:
            ImageColor.getrgb(judging.settings.background)
        except ValueError:
            raise InvalidRequestError(
                f"Expected a background such as '#999' or '{ORIGINAL_BACKGROUND}', found "
                f"'{judging.settings.background}'."
            ) from None
    check_local(judging.detector, what="a Mask2Former model", example="facebook/mask2former-swin-small-coco-instance")
    check_local(judging.clip, what="a CLIP model", example="openai/clip-vit-large-patch14")
    check_writable(judging.out / _PARTS_FOLDER)
    description = {
        "detector": {"folder": judging.detector.name, "sha256": folder_digest(judging.detector)},
        "clip": {"folder": judging.clip.name, "sha256": folder_digest(judging.clip)},
        "judge": attrs.asdict(judging.settings),
    }
    return folders, description, device_name(training_device(judging.device, setting="--device"))


def _loaded(judging: GenEvalJudging) -> PictureJudge:
    # They load transformers, which takes seconds.
    from fluid_core.evaluation.clip_model import ClipModel
    from fluid_core.evaluation.geneval.color_judge import ColorJudge
    from fluid_core.evaluation.geneval.detector import Mask2FormerDetector

    device = training_device(judging.device, setting="--device")
    return PictureJudge(
        detect=Mask2FormerDetector(judging.detector, device).detect,
        in_picture=ColorJudge(ClipModel(judging.clip, device), judging.settings).in_picture,
    )


def _judge_folder(
    folder: JudgedFolder, judge: PictureJudge, judging: GenEvalJudging, description: Mapping[str, Any]
) -> None:
    """Judge the pictures of one prompt and keep the results, unless that was done."""
    content = [picture.read_bytes() for picture in folder.pictures]
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    digest.update(folder.prompt.line.encode())
    for picture, data in zip(folder.pictures, content, strict=True):
        digest.update(picture.name.encode() + hashlib.sha256(data).digest())
    file = _part_file(judging.out, folder)
    if _is_done(file, digest.hexdigest()):
        return
    pictures = [_opened(path) for path in folder.pictures]
    results = [
        judged_picture(
            path.relative_to(judging.pictures).as_posix(), picture, detections, folder, judge, judging.settings
        )
        for path, picture, detections in zip(folder.pictures, pictures, judge.detect(pictures), strict=True)
    ]
    write_json(file, {"digest": digest.hexdigest(), "results": results})


def judged_picture(
    name: str,
    picture: Image.Image,
    detections: Sequence[Detection],
    folder: JudgedFolder,
    judge: PictureJudge,
    settings: JudgeSettings,
) -> dict[str, Any]:
    """The line of the results for one picture, with GenEval's keys."""
    found = counted_detections(detections, folder.prompt.task, settings)
    judgement = judge_detections(found, folder.prompt.facts, judge.in_picture(picture), settings)
    boxes = {name: [[*one.box, one.score] for one in several] for name, several in found.items()}
    return {
        "filename": name,
        "tag": folder.prompt.task,
        "prompt": folder.prompt.text,
        "correct": judgement.correct,
        "reason": judgement.reason,
        "metadata": json.dumps(folder.prompt.metadata),
        "details": json.dumps(boxes),
    }


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImageError(f"The picture {path} can not be read: {error}. Draw it again.") from error


def _part_file(out: Path, folder: JudgedFolder) -> Path:
    return out / _PARTS_FOLDER / f"{folder.folder.name}.json"


def _is_done(file: Path, digest: str) -> bool:
    try:
        return bool(read_json(file)["digest"] == digest)
    except (CheckpointError, KeyError, TypeError):
        return False


def _with_path(result: Mapping[str, Any], pictures: Path) -> dict[str, Any]:
    return {**result, "filename": str(pictures / result["filename"])}


def _record(
    judging: GenEvalJudging, description: Mapping[str, Any], results: Sequence[Mapping[str, Any]], device: str
) -> ResultRecord:
    drawn = _drawn(judging.pictures)
    model = drawn.get("model", {})
    known = {"folder", "identity", "weights"} <= set(model)
    notes = what_differs_from_the_official(results)
    if judging.settings != JudgeSettings():
        notes.append("The thresholds are not GenEval's own.")
    notes.append(
        "Judged through transformers, not mmdetection: the rules are GenEval's, the detector's weights a conversion."
    )
    return ResultRecord(
        what="geneval",
        values=summary(results),
        settings={**description, "sampling": drawn.get("settings"), "drawn_with": drawn.get("packages")},
        seeds={"sampling": drawn.get("seed")},
        num_images=len(results),
        model=MeasuredModel(**{name: model[name] for name in ("folder", "identity", "weights")}) if known else None,
        device=device,
        dtype="float32",
        notes=notes,
    )


def _drawn(pictures: Path) -> dict[str, Any]:
    """What drew the pictures, if Fluid did."""
    try:
        found = read_json(pictures / RUN_FILE)
    except CheckpointError:
        return {}
    return dict(found) if isinstance(found, dict) else {}
