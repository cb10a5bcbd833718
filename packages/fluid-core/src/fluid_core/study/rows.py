"""The rows of a study's report: one for each run, from the records in their folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.components import HeadComponent
from fluid_core.evaluation.result_file import ResultRecord, read_result
from fluid_core.study.grid import Cell, run_folder
from fluid_core.study.measuring import RESULT

CROSS_ENTROPY = "cross-entropy"
NOISE_PREDICTION = "noise-prediction loss"

_LOSS_KINDS = {"softmax": CROSS_ENTROPY, "diffusion": NOISE_PREDICTION, "flow": "velocity loss"}


def loss_kind(head: str) -> str:
    """What the loss of a head is: losses of different kinds have different units and can not be compared."""
    return _LOSS_KINDS.get(head, f"loss of {head}")


def study_rows(cells: Sequence[Cell], out: Path, catalog: ComponentCatalog | None = None) -> list[dict[str, Any]]:
    """A row for each run that is measured, in the order of `cells`; the others are left out."""
    catalog = catalog or installed_components()
    return [
        _row(cell, read_result(run_folder(out, cell) / RESULT), catalog)
        for cell in cells
        if (run_folder(out, cell) / RESULT).exists()
    ]


def _row(cell: Cell, record: ResultRecord, catalog: ComponentCatalog) -> dict[str, Any]:
    config, values = cell.config, record.values
    component = catalog.find("head", config.head.name).component
    assert isinstance(component, HeadComponent)
    return {
        "run": cell.name,
        "variant": cell.variant,
        "size": cell.size,
        "seed": cell.seed,
        "tokenizer": config.tokenizer.name,
        "head": config.head.name,
        "order": config.order.name,
        "tokens": component.predicts,
        "parameters": values["parameters"],
        "head_parameters": values["head_parameters"],
        "parameters_with_text_encoder": values["parameters_with_text_encoder"],
        "steps": values["steps"],
        "images_seen": values["images_seen"],
        "validation_loss": values["validation"]["loss"],
        "validation_loss_kind": loss_kind(config.head.name),
        "validation": values["validation"],
        "scores": values.get("scores", {}),
        "chance": values.get("chance", {}),
        "guidance_scale": values.get("guidance", {}).get("scale"),
        "temperature": record.settings["temperature"],
        "order_steps": values.get("order_steps"),
        "by_order_steps": values.get("by_order_steps", {}),
        "by_head_steps": values.get("by_head_steps", {}),
        "images_per_second": values["images_per_second"],
        "training_seconds": values["training_seconds"],
        "seconds_per_picture": values.get("seconds_per_picture"),
        "verdicts": [bool(one["correct"]) for one in values.get("verdicts", ())],
        "tasks": [one["task"] for one in values.get("verdicts", ())],
        "shown": list(values.get("shown", ())),
        "model_identity": None if record.model is None else record.model.identity,
        "weights": None if record.model is None else record.model.weights,
    }
