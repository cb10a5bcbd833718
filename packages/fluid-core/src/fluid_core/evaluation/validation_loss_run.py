"""`fluid evaluate loss`: the validation loss as a protocol, by several processes and again after a kill."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from fluid_core.atomic_files import write_safetensors
from fluid_core.catalog import ComponentCatalog
from fluid_core.data.numbered_items import NumberedItems
from fluid_core.errors import DataError, InvalidRequestError
from fluid_core.evaluation.evaluation_data import EvaluationData
from fluid_core.evaluation.item_digest import item_digest, joint_digest
from fluid_core.evaluation.keyed_loss import NUM_SHARES, keyed_losses
from fluid_core.evaluation.measured_model import LoadedModel, load_measured_model
from fluid_core.evaluation.result_file import ResultRecord, device_name, versions, write_result
from fluid_core.evaluation.resumable_parts import ResumableParts
from fluid_core.sampling_run.together import together
from fluid_core.training.devices import training_device
from fluid_core.training.processes import Processes
from fluid_core.training.step.precision import Precision, compute_type, computing_in

RESULT_FILE = "validation-loss.json"
PER_IMAGE_FILE = "per-image.safetensors"

_NOTES = (
    "Losses of heads with different units, such as cross-entropy and noise prediction, do not compare.",
    "A causal order averages over all tokens of a picture, a masked one over those it predicts: losses of the two do "
    "not compare.",
)


@attrs.frozen(kw_only=True)
class ValidationLossRun:
    """What to measure. Raises `InvalidRequestError` for numbers below one."""

    model: Path
    data: EvaluationData
    out: Path
    num_draws: int = 1
    """Draws of order, mask and noise for each picture."""

    seed: int = 0
    batch_size: int = 64
    device: str = "auto"
    precision: Precision = "float32"
    overwrite: bool = False
    """Let results of another measurement in `out` go, instead of refusing the folder."""

    def __attrs_post_init__(self) -> None:
        for name in ("num_draws", "batch_size"):
            if getattr(self, name) < 1:
                raise InvalidRequestError(f"Expected {name} to be 1 or more, found {getattr(self, name)}.")


def measure_validation_loss(
    run: ValidationLossRun,
    *,
    processes: Processes | None = None,
    catalog: ComponentCatalog | None = None,
    told: Callable[[int, int], None] | None = None,
) -> ResultRecord:
    """Measure, write `validation-loss.json` and `per-image.safetensors`, and return what the former holds.

    All processes return the same. Two records compare if `settings.data_sha256`, `settings.num_draws` and the seeds are
    equal, and the heads are of a kind; then the sums of each picture in `per-image.safetensors` belong together in
    pairs, which tells smaller differences than the standard error of each. Raises what loading the model and the data
    raises, `DataError` if not one picture can be read, and `OutputError` for a folder that holds something else.
    """
    processes = processes or Processes()
    device = training_device(run.device, setting="--device")
    dtype = compute_type(run.precision, device)

    def prepared() -> tuple[LoadedModel, NumberedItems]:
        loaded = load_measured_model(run.model, device, catalog)
        return loaded, run.data.items(loaded.model.tokenizer.image_size, catalog, for_model=loaded.model)

    loaded, items = together(processes, prepared)
    settings = {
        "data": run.data.as_json(),
        "num_draws": run.num_draws,
        "batch_size": run.batch_size,
        "precision": str(dtype).removeprefix("torch."),
        "order": None if loaded.model.config is None else attrs.asdict(loaded.model.config.order),
        "head": None if loaded.model.config is None else attrs.asdict(loaded.model.config.head),
        "text_dropped": False,
        "image_size": list(loaded.model.tokenizer.image_size),
    }

    def compute(numbers: range) -> dict[str, Tensor]:
        with computing_in(dtype, device):
            return _part(loaded, items, numbers, seed=run.seed, num_draws=run.num_draws)

    parts = ResumableParts(
        folder=run.out / "parts",
        description={
            "what": "validation-loss",
            "model": loaded.record.identity,
            "settings": settings,
            "seed": run.seed,
            "packages": {name: version for name, version in versions().items() if name.startswith(("fluid", "torch"))},
        },
        num_items=items.count,
        part_size=run.batch_size,
        processes=processes,
        overwrite=run.overwrite,
    )
    found = parts.computed(compute, told=told)
    if not found:
        raise DataError("Expected at least one picture that can be read, found none.")
    num_images = len(found["number"])
    record = ResultRecord(
        what="validation-loss",
        values=loss_values(found),
        settings={
            **settings,
            "num_skipped": items.count - num_images,
            "data_sha256": joint_digest(found["digest"]),
        },
        seeds={"draws": run.seed, "data": run.data.seed},
        num_images=num_images,
        model=loaded.record,
        device=device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        notes=_NOTES,
    )

    def write() -> None:
        if processes.is_first:
            kept = {name: tensor for name, tensor in found.items() if name.startswith(("number", "total.", "num_"))}
            write_safetensors(run.out / PER_IMAGE_FILE, kept)
            write_result(run.out / RESULT_FILE, record)

    together(processes, write)
    return record


def _part(loaded: LoadedModel, items: NumberedItems, numbers: range, *, seed: int, num_draws: int) -> dict[str, Tensor]:
    """Sums of each picture of a part, by name; nothing if no picture of it can be read."""
    read = items.read(numbers)
    if not read:
        return {}
    losses = keyed_losses(loaded.model, read, seed=seed, num_draws=num_draws)
    return {
        "number": torch.tensor([one.number for one in read]),
        "digest": torch.stack([item_digest(one.item) for one in read]),
        "num_tokens": losses.num_tokens,
        "share_total": losses.share_totals,
        "share_num_tokens": losses.share_num_tokens,
        **{f"total.{name}": total for name, total in losses.totals.items()},
    }


def loss_values(found: dict[str, Tensor]) -> dict[str, Any]:
    """Figures from the sums of each picture: means per predicted token, by part, by draw and by share known."""
    counts = found["num_tokens"]
    totals = {name.removeprefix("total."): one for name, one in found.items() if name.startswith("total.")}
    means = {name: float(total.sum() / counts.sum()) for name, total in totals.items()}
    share_totals, share_counts = found["share_total"].sum(dim=0), found["share_num_tokens"].sum(dim=0)
    return {
        **means,
        "standard_error": _standard_error(totals["loss"].sum(dim=1), counts.sum(dim=1)),
        "num_tokens": int(counts.sum()),
        "loss_by_draw": (totals["loss"].sum(dim=0) / counts.sum(dim=0)).tolist(),
        "loss_by_known_share": [
            {
                "from": index / NUM_SHARES,
                "to": (index + 1) / NUM_SHARES,
                "loss": float(share_totals[index] / share_counts[index]) if share_counts[index] else None,
                "num_tokens": int(share_counts[index]),
            }
            for index in range(NUM_SHARES)
        ],
    }


def _standard_error(totals: Tensor, counts: Tensor) -> float | None:
    """Of a mean over tokens whose number differs between pictures: pictures are independent, their tokens are not.

    The usual linearisation of a ratio. None for a single picture.
    """
    num_images = len(totals)
    if num_images < 2:
        return None
    residuals = totals - counts * (totals.sum() / counts.sum())
    return float((residuals.square().sum() * num_images / (num_images - 1)).sqrt() / counts.sum())
