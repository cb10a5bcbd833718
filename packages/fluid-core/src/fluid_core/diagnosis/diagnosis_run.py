"""`fluid diagnose` as a whole: what there is to look at is gathered, looked at, and put on record."""

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

import attrs
import torch

from fluid_core.atomic_files import read_json
from fluid_core.catalog import ComponentCatalog
from fluid_core.configuration import ComponentChoice, read_saved_config
from fluid_core.diagnosis.evidence import Evidence, TrainingCourse
from fluid_core.diagnosis.finding import Finding
from fluid_core.diagnosis.gathering import NUM_LOSS_DRAWS, HowToDraw, gather_from_folder, gather_from_model
from fluid_core.diagnosis.signatures import look_for_all
from fluid_core.errors import CheckpointError, ConfigurationError, InvalidRequestError
from fluid_core.evaluation.evaluation_data import EvaluationData
from fluid_core.evaluation.image_preparation import picture_files
from fluid_core.evaluation.measured_model import LoadedModel, load_measured_model
from fluid_core.evaluation.result_file import ResultRecord, device_name
from fluid_core.sampling_run.settings import SamplingSettings
from fluid_core.saved_model import INDEX_FILE
from fluid_core.token_space import DiscreteTokens
from fluid_core.training.devices import training_device
from fluid_core.training.run.folder import CONFIG_FILE
from fluid_core.training.sight.metrics import read_metrics

STRONG_GUIDANCE = 7.5
"""A scale at which models that were trained well begin to show what guidance does to tokens."""

LOSS_PICTURES = 4
"""Losses are cheap beside drawing: they are measured on so many times as many pictures."""

PICTURES_FOR_CODES = 1000
"""Real pictures whose codes are counted."""

_METRICS = "metrics.jsonl"
_UNFINISHED = "The run has not finished: there is no model in it to draw with yet."


class Kind(StrEnum):
    """What a folder holds that is to be looked at."""

    RUN = "run"
    MODEL = "saved model"
    PICTURES = "pictures"


@attrs.frozen(kw_only=True)
class DiagnosisRun:
    """What to look at, and how closely. Raises `InvalidRequestError` for numbers out of range."""

    folder: Path
    """Of a training run, a saved model, or pictures."""

    settings: SamplingSettings = attrs.field(factory=SamplingSettings)
    """How the model draws when it is used; its guidance is one of the scales that are looked at."""

    strong_guidance: float = STRONG_GUIDANCE
    num_images: int = 64
    data: ComponentChoice | None = None
    """None for the data set that the model was trained on."""

    split: str = "validation"
    model: Path | None = None
    """For a folder of pictures: the saved model whose tokenizer sees them."""

    seed: int = 0
    data_seed: int = 0
    batch_size: int = 32
    device: str = "auto"

    def __attrs_post_init__(self) -> None:
        for name in ("num_images", "batch_size"):
            if getattr(self, name) < 1:
                raise InvalidRequestError(f"Expected {name} to be 1 or more, found {getattr(self, name)}.")
        if self.model is not None and kind_of(self.folder) is not Kind.PICTURES:
            raise InvalidRequestError(
                f"--model is for a folder of pictures, and {self.folder} holds a {kind_of(self.folder)}. Leave it out."
            )

    @property
    def scales(self) -> tuple[float, ...]:
        """Guidance scales that are looked at: none, that of the settings, and a strong one."""
        return tuple(sorted({1.0, float(self.settings.guidance), float(self.strong_guidance)}))


@attrs.frozen(kw_only=True)
class Diagnosis:
    """What was found, and the record of it."""

    findings: Mapping[str, Finding]
    record: ResultRecord
    num_drawn: int
    """Pictures of each guidance scale."""


def kind_of(folder: Path) -> Kind:
    """What a folder holds. Raises `CheckpointError` for one that holds nothing that can be looked at."""
    if (folder / INDEX_FILE).is_file():
        return Kind.MODEL
    if (folder / CONFIG_FILE).is_file() or (folder / _METRICS).is_file():
        return Kind.RUN
    if folder.is_dir() and picture_files(folder):
        return Kind.PICTURES
    found = "a folder with none of them" if folder.is_dir() else "no folder"
    raise CheckpointError(
        f"Expected a training run ({CONFIG_FILE}), a saved model ({INDEX_FILE}) or pictures in {folder}, found {found}."
    )


def diagnose(
    run: DiagnosisRun, *, catalog: ComponentCatalog | None = None, note: Callable[[str], None] = lambda _: None
) -> Diagnosis:
    """Look for every signature. `note` is told what happens.

    Raises what loading the model and the data raises, `ConfigurationError` where nobody says which data to compare
    with, and what drawing raises; an unfinished run is looked at as far as it goes.
    """
    kind = kind_of(run.folder)
    device = training_device(run.device, setting="--device")
    model_folder = _model_folder(run, kind)
    loaded = None if model_folder is None else load_measured_model(model_folder, device, catalog)
    settings: dict[str, object] = {
        "kind": kind.value,
        "folder": run.folder.resolve().name,
        "num_images": run.num_images,
        "batch_size": run.batch_size,
    }
    evidence = Evidence(why_no_pictures=_UNFINISHED, why_no_losses=_UNFINISHED)
    if kind is Kind.PICTURES:
        data = _evaluation_data(run, num_images=run.num_images)
        model = None if loaded is None else loaded.model
        evidence = gather_from_folder(
            run.folder,
            lambda size: data.items(size, catalog, for_model=model),
            model,
            num_images=run.num_images,
            batch_size=run.batch_size,
            seed=run.seed,
        )
        settings |= {"data": data.as_json()}
    elif loaded is not None:
        data = _evaluation_data(run, num_images=_num_read(run, loaded))
        how = HowToDraw(
            settings=run.settings,
            scales=run.scales,
            num_images=run.num_images,
            seed=run.seed,
            batch_size=run.batch_size,
        )
        items = data.items(loaded.model.tokenizer.image_size, catalog, for_model=loaded.model)
        evidence = gather_from_model(loaded.model, items, how, catalog=catalog, note=note)
        settings |= {
            "data": data.as_json(),
            "sampling": run.settings.as_json(),
            "guidance_scales": list(run.scales),
            "num_loss_draws": NUM_LOSS_DRAWS,
        }
    course = _course(run.folder) if kind is Kind.RUN else None
    evidence = attrs.evolve(evidence, course=course)
    findings = look_for_all(evidence)
    num_drawn = len(evidence.drawn[0].pictures) if evidence.drawn else 0
    record = ResultRecord(
        what="diagnosis",
        values={name: finding.as_json() for name, finding in findings.items()},
        settings=settings,
        seeds={"drawing": run.seed, "data": run.data_seed},
        num_images=num_drawn,
        model=None if loaded is None else loaded.record,
        device=device_name(device),
        dtype=str(torch.float32).removeprefix("torch."),
        notes=_notes(loaded),
    )
    return Diagnosis(findings=findings, record=record, num_drawn=num_drawn)


def _model_folder(run: DiagnosisRun, kind: Kind) -> Path | None:
    """Where the model is that is looked at, or whose tokenizer looks; None if there is none."""
    if kind is Kind.PICTURES:
        return run.model
    if kind is Kind.MODEL:
        return run.folder
    return run.folder / "model" if (run.folder / "model" / INDEX_FILE).is_file() else None


def _num_read(run: DiagnosisRun, loaded: LoadedModel) -> int:
    discrete = isinstance(loaded.model.tokenizer.token_space, DiscreteTokens)
    return max(LOSS_PICTURES * run.num_images, PICTURES_FOR_CODES if discrete else 0)


def _evaluation_data(run: DiagnosisRun, *, num_images: int) -> EvaluationData:
    """The data to compare with. Raises `ConfigurationError` where nobody says which."""
    choice = run.data or _own_data(run.folder)
    if choice is None and run.model is not None:
        choice = _own_data(run.model)
    if choice is None:
        raise ConfigurationError(
            f"Expected the name of a data set to compare with (--data NAME), since {run.folder} does not tell; found "
            "none."
        )
    return EvaluationData(data=choice, split=run.split, num_images=num_images, seed=run.data_seed)


def _own_data(folder: Path) -> ComponentChoice | None:
    """The data set that a run names, or that in which a saved model lies: saved models themselves name none."""
    for run in (folder, folder.resolve().parent if (folder / INDEX_FILE).is_file() else folder):
        config = run / CONFIG_FILE
        if config.is_file():
            return read_saved_config(json.dumps(read_json(config)), source=str(config)).config.data
    return None


def _course(folder: Path) -> TrainingCourse | None:
    metrics, config = folder / _METRICS, folder / CONFIG_FILE
    if not metrics.is_file():
        return None
    training = None
    if config.is_file():
        training = read_saved_config(json.dumps(read_json(config)), source=str(config)).config.training
    finished = (folder / "model" / INDEX_FILE).is_file()
    return TrainingCourse(
        rows=read_metrics(metrics),
        ema_decay=None if training is None else training.ema_decay,
        planned_steps=None if training is None or finished else training.num_steps,
        batch_size=None if training is None else training.batch_size,
    )


def _notes(loaded: LoadedModel | None) -> tuple[str, ...]:
    notes = ["Every verdict is about so many pictures; more of them find less."]
    if loaded is not None and loaded.record.weights == "raw":
        notes.append("The model holds raw weights, not their moving average.")
    return tuple(notes)
