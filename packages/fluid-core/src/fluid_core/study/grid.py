"""Every run of a study: a configuration for each variant, size and seed, checked before any of them is trained."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.compatibility import check_configuration
from fluid_core.configuration import ComponentChoice, FluidConfig
from fluid_core.configuration.files import read_toml
from fluid_core.configuration.structuring import structure, unstructure
from fluid_core.errors import ConfigurationError, FluidError
from fluid_core.study.settings import StudySettings

COMPONENTS = ("tokenizer", "text_encoder", "order", "head", "data")
"""Sections that a variant may name in one word."""

SEPARATOR = "--"


@attrs.frozen(kw_only=True)
class Cell:
    """One run of a study."""

    variant: str
    size: str
    seed: int
    config: FluidConfig

    @property
    def name(self) -> str:
        """Its folder: `continuous-random--0.3m--seed0`."""
        return SEPARATOR.join((self.variant, self.size, f"seed{self.seed}"))

    @property
    def num_steps(self) -> int:
        """Training steps of its budget."""
        assert self.config.training is not None
        return self.config.training.num_steps

    @property
    def num_images(self) -> int:
        """Images it sees in training."""
        assert self.config.training is not None
        return self.config.training.num_steps * self.config.training.batch_size


def study_cells(study: StudySettings, catalog: ComponentCatalog | None = None) -> list[Cell]:
    """All runs of a study, size by size from the smallest, so that a study that is stopped has whole sizes.

    Raises `ConfigurationError` and what `check_configuration` raises, naming variant and size, for a configuration that
    is not valid or whose parts do not fit.
    """
    catalog = catalog or installed_components()
    base = read_toml(study.base)
    cells = []
    for size_name, size in study.sizes.items():
        for variant in study.variants:
            for seed in study.seeds if size.seeds is None else size.seeds:
                try:
                    config = _config(study, base, variant, size_name, seed)
                    check_configuration(config, catalog)
                except FluidError as error:
                    error.add_note(f"This is the variant '{variant}' at the size '{size_name}' of the study.")
                    raise
                cells.append(Cell(variant=variant, size=size_name, seed=seed, config=config))
    return cells


def merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A table with changes: tables in tables are merged, except that one with a `name` replaces what was there.

    Options belong to a component, so those of another must not survive it.
    """
    result = dict(table)
    for key, value in changes.items():
        before = result.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and "name" not in value:
            result[key] = merged(before, value)
        else:
            result[key] = value
    return result


def _config(study: StudySettings, base: Mapping[str, Any], variant: str, size: str, seed: int) -> FluidConfig:
    changes = [study.changes, dict(_named(study.variants[variant], study.parts)), study.sizes[size].changes]
    data = dict(base)
    for one in changes:
        data = merged(data, one)
    data["backbone"] = study.sizes[size].backbone
    training = dict(data.get("training", {}))
    batch_size = training.get("batch_size")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigurationError(f"Expected a whole number above 0 for training.batch_size, found {batch_size!r}.")
    if training.get("max_minutes", "none") != "none":
        raise ConfigurationError(
            f"Expected runs that end after a number of images, found training.max_minutes = {training['max_minutes']}. "
            'Set max_minutes = "none" in [changes.training].'
        )
    num_steps = math.ceil(study.budget.images / batch_size)
    # Everything is measured and drawn after training, so that all runs are treated alike.
    training = {"sample_every": 0, "checkpoint_every": max(1, num_steps // 10), **_only_changed(training, changes)}
    training["num_steps"], training["seed"] = num_steps, seed
    training["warmup_steps"] = min(training.get("warmup_steps", 100), max(1, num_steps // 10))
    config = structure({**data, "training": training}, FluidConfig, subject="configuration of a study")
    assert config.training is not None
    if config.data is None:
        raise ConfigurationError(f"Expected a [data] section in {study.base} or in [changes], found none.")
    return attrs.evolve(config, sample_prompts=())


def _only_changed(training: dict[str, Any], changes: list[dict[str, Any]]) -> dict[str, Any]:
    """The section [training] without the base's own rhythm of samples and checkpoints, which suits its own length."""
    asked_for = {key for change in changes for key in change.get("training", {})}
    rhythm = {"sample_every", "checkpoint_every"} - asked_for
    return {key: value for key, value in training.items() if key not in rhythm}


def _named(variant: Mapping[str, Any], parts: Mapping[str, ComponentChoice]) -> Iterator[tuple[str, Any]]:
    """The sections of a variant, with the components that it names in one word written out."""
    for key, value in variant.items():
        if key in COMPONENTS and isinstance(value, str):
            yield key, unstructure(parts.get(value, ComponentChoice(name=value)))
        else:
            yield key, value


def config_data(config: FluidConfig) -> dict[str, Any]:
    """A configuration as plain data for a TOML file, without what is not set."""

    def without_none(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_none(one) for key, one in value.items() if one is not None}
        return value

    data: dict[str, Any] = without_none(unstructure(config))
    # None is not the default there: no clipping.
    assert config.training is not None
    if config.training.gradient_clip_norm is None:
        data["training"]["gradient_clip_norm"] = "none"
    return data


def run_folder(out: Path, cell: Cell) -> Path:
    """Where a run of a study in the folder `out` is."""
    return out / "runs" / cell.name
