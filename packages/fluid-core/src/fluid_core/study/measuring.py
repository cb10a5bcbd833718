"""What a trained run is measured by: validation loss, scores of the judge, and scores at other numbers of steps."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from PIL import Image
from torch import nn

from fluid_core.assembly import build_dataset
from fluid_core.atomic_files import read_json
from fluid_core.configuration import FluidConfig, config_from_json
from fluid_core.contact_sheet import save_image
from fluid_core.data.batches import readable_items, stack
from fluid_core.data.captioned_images import CaptionedImages, CaptionedStream, JudgedPrompt, JudgedPrompts
from fluid_core.errors import CheckpointError, InvalidRequestError
from fluid_core.evaluation.measured_model import load_measured_model
from fluid_core.evaluation.prompt_scores import PromptScores, chance_scores, draw_prompts, judge_pictures
from fluid_core.evaluation.result_file import ResultRecord, device_name, write_result
from fluid_core.evaluation.validation_loss import validation_loss
from fluid_core.exchange import DatasetContext
from fluid_core.keyed_random import KeyedRandom
from fluid_core.model import FluidModel
from fluid_core.pipeline import FluidPipeline, to_pil
from fluid_core.protocols import OrderPolicy
from fluid_core.study.settings import StudyEvaluation
from fluid_core.token_space import Grid
from fluid_core.training.devices import training_device
from fluid_core.training.sight.metrics import read_metrics

RESULT = "evaluation.json"
PICTURES = "pictures"

# Seeds of prompts: those that scores are of, and those that guidance is chosen on.
_SCORED, _CHOOSING = 1, 2
_CHANCE_PICTURES = 500


def weights_digest(run: Path) -> str:
    """SHA-256 of the weights in a finished run: tells whether a measurement is of them."""
    digest = hashlib.sha256()
    for path in sorted((run / "model").rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def size_of(model: FluidModel) -> int:
    """Weights that train, without those of a text encoder that trains along: its tables are the same at every size, and
    the paper's, which is frozen, is not counted there either.
    """
    own = {id(one) for one in model.parameters() if one.requires_grad}
    encoder: object = model.text_encoder
    if isinstance(encoder, nn.Module):
        own -= {id(one) for one in encoder.parameters()}
    return sum(one.numel() for one in model.parameters() if id(one) in own)


def is_measured(run: Path, evaluation: StudyEvaluation, *, sweeps: bool) -> bool:
    """Whether a finished run holds a measurement of its weights with these settings."""
    try:
        saved = read_json(run / RESULT)
    except CheckpointError:
        return False
    if not isinstance(saved, dict) or not isinstance(saved.get("settings"), dict):
        return False
    return bool(saved["settings"] == _settings(evaluation, run, sweeps=sweeps))


def measure_run(run: Path, evaluation: StudyEvaluation, *, sweeps: bool, device: str = "auto") -> ResultRecord:
    """Measure the finished run in a folder and write `evaluation.json` and `pictures/` there.

    Scores are of data sets whose pictures can be judged; the others have a loss alone. Raises `CheckpointError` for a
    run that is not finished, and what loading its model and data raises.
    """
    config = config_from_json((run / "config.json").read_text(encoding="utf-8"), source=f"configuration {run}")
    target = training_device(device)
    loaded = load_measured_model(run / "model", target)
    context = DatasetContext(image_size=loaded.model.tokenizer.image_size, split="validation")
    assert config.data is not None
    data = build_dataset(config.data, context)
    assert isinstance(data, CaptionedImages | CaptionedStream)
    read = readable_items(data, evaluation.num_validation_images)
    values: dict[str, Any] = {
        **_training_figures(run, config),
        "parameters": size_of(loaded.model),
        "parameters_with_text_encoder": loaded.record.num_parameters,
        "head_parameters": sum(
            one.numel() for name, one in loaded.model.named_parameters() if name.startswith("head.")
        ),
        "validation": validation_loss(loaded.model, read.items, seed=evaluation.seed),
        "num_validation_images": len(read.items),
    }
    if isinstance(data, JudgedPrompts):
        pipeline = FluidPipeline(loaded.model, weights=loaded.record.weights)
        values |= _scores(pipeline, data, evaluation, run, sweeps=sweeps)
        some = stack(readable_items(data, _CHANCE_PICTURES).items).images
        prompts = data.evaluation_prompts(num_per_task=evaluation.prompts_per_task, seed=_SCORED)
        values["chance"] = _by_task(chance_scores(data, prompts, some, seed=evaluation.seed))
    record = ResultRecord(
        what="study-run",
        values=values,
        settings=_settings(evaluation, run, sweeps=sweeps),
        seeds={"pictures": evaluation.seed, "prompts": _SCORED, "prompts_for_guidance": _CHOOSING},
        num_images=len(values.get("verdicts", ())),
        model=loaded.record,
        device=device_name(target),
        dtype=str(next(loaded.model.parameters()).dtype).removeprefix("torch."),
    )
    write_result(run / RESULT, record)
    return record


def _settings(evaluation: StudyEvaluation, run: Path, *, sweeps: bool) -> dict[str, Any]:
    """Everything that decides the figures, as JSON gives it back."""
    plain = attrs.asdict(evaluation, filter=lambda field, _: field.name not in ("sweep_sizes", "batch_size"))
    if not sweeps:
        plain |= {"order_steps": (), "head_steps": ()}
    listed = {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
    return {**listed, "weights_sha256": weights_digest(run)}


def _training_figures(run: Path, config: FluidConfig) -> dict[str, Any]:
    assert config.training is not None
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "images_per_second" in row]
    if not rows:
        raise CheckpointError(f"Expected the metrics of a finished run in {run}, found none of its training.")
    return {
        "steps": rows[-1]["step"],
        "images_seen": rows[-1]["step"] * config.training.batch_size,
        "images_per_second": rows[-1]["images_per_second"],
        "training_seconds": rows[-1]["seconds"],
    }


def _scores(
    pipeline: FluidPipeline, data: JudgedPrompts, evaluation: StudyEvaluation, run: Path, *, sweeps: bool
) -> dict[str, Any]:
    """Scores with the guidance that suits the model, and at other numbers of steps with the same guidance."""
    guidance = _chosen_guidance(pipeline, data, evaluation)
    scale = guidance["scale"]
    prompts = data.evaluation_prompts(num_per_task=evaluation.prompts_per_task, seed=_SCORED)
    started = time.perf_counter()
    images = _drawn(pipeline, prompts, evaluation, scale)
    seconds = time.perf_counter() - started
    scores = judge_pictures(data, prompts, images)
    shown = [next(i for i, prompt in enumerate(prompts) if prompt.task == task) for task in data.tasks]
    _save_pictures(to_pil((images[torch.tensor(shown)] + 1.0) / 2.0), run / PICTURES)
    found: dict[str, Any] = {
        "scores": _by_task(scores),
        "guidance": guidance,
        "seconds_per_picture": seconds / len(prompts),
        "order_steps": _own_steps(pipeline.model),
        "verdicts": [
            {"task": prompt.task, "held_out": prompt.held_out, "correct": verdict.correct}
            for prompt, verdict in zip(prompts, scores.verdicts, strict=True)
        ],
        "shown": [
            {"prompt": prompts[i].text, "correct": scores.verdicts[i].correct, "file": f"{PICTURES}/{k:02d}.png"}
            for k, i in enumerate(shown)
        ],
    }
    if sweeps:
        found["by_order_steps"] = {
            str(steps): _by_task(
                judge_pictures(data, prompts, _drawn(pipeline, prompts, evaluation, scale, num_inference_steps=steps))
            )
            for steps in evaluation.order_steps
            if takes_steps(pipeline.model.order, pipeline.model.tokenizer.token_space.grid, steps)
        }
        found["by_head_steps"] = {}
        for steps in evaluation.head_steps:
            try:
                drawn = _drawn(pipeline, prompts, evaluation, scale, num_head_steps=steps)
            except InvalidRequestError:
                # A head that is not iterative, or that can not take so many steps.
                continue
            found["by_head_steps"][str(steps)] = _by_task(judge_pictures(data, prompts, drawn))
    return found


def _chosen_guidance(pipeline: FluidPipeline, data: JudgedPrompts, evaluation: StudyEvaluation) -> dict[str, Any]:
    """The scale with the best overall score on prompts of their own; of equal ones the first."""
    if len(evaluation.guidance_scales) == 1:
        return {"scale": evaluation.guidance_scales[0], "tried": {}}
    prompts = data.evaluation_prompts(num_per_task=evaluation.prompts_per_task_for_guidance, seed=_CHOOSING)
    tried = {
        scale: judge_pictures(data, prompts, _drawn(pipeline, prompts, evaluation, scale)).overall
        for scale in evaluation.guidance_scales
    }
    return {"scale": max(tried, key=lambda scale: tried[scale]), "tried": {f"{k:g}": v for k, v in tried.items()}}


def _drawn(
    pipeline: FluidPipeline, prompts: Sequence[JudgedPrompt], evaluation: StudyEvaluation, scale: float, **others: Any
) -> torch.Tensor:
    return draw_prompts(
        pipeline,
        prompts,
        seed=evaluation.seed,
        batch_size=evaluation.batch_size,
        guidance_scale=scale,
        temperature=evaluation.temperature,
        **others,
    )


def _by_task(scores: PromptScores) -> dict[str, float]:
    return {**scores.by_task, "overall": scores.overall}


def takes_steps(order: OrderPolicy, grid: Grid, num_steps: int) -> bool:
    """Whether an order can draw a whole picture in so many steps."""
    unknown = torch.ones(1, grid.length, dtype=torch.bool)
    try:
        order.generation(unknown, grid, num_steps=num_steps, random=KeyedRandom(torch.zeros(1, dtype=torch.int64)))
    except InvalidRequestError:
        return False
    return True


def _own_steps(model: FluidModel) -> int:
    """Steps that the model's order takes by default for a whole picture."""
    grid = model.tokenizer.token_space.grid
    unknown = torch.ones(1, grid.length, dtype=torch.bool)
    random = KeyedRandom(torch.zeros(1, dtype=torch.int64))
    return model.order.generation(unknown, grid, num_steps=None, random=random).num_steps


def _save_pictures(pictures: Sequence[Image.Image], folder: Path) -> None:
    for index, picture in enumerate(pictures):
        save_image(picture, folder / f"{index:02d}.png")
