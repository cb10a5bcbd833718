"""`fluid evaluate fid`: a Frechet distance, precision and recall between generated and real pictures.

With the Inception of the FID the figure is called FID; with any other network it is a Frechet distance and compares
with others in that network alone.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch

from fluid_core.catalog import ComponentCatalog
from fluid_core.configuration import ComponentChoice
from fluid_core.errors import InvalidRequestError
from fluid_core.evaluation.evaluation_data import EvaluationData
from fluid_core.evaluation.frechet_distance import frechet_distance
from fluid_core.evaluation.image_preparation import Crop, Filter, ImagePreparation
from fluid_core.evaluation.picture_features import NamedNetwork, PictureFeatures, named_network, picture_features
from fluid_core.evaluation.picture_sources import DataPictures, FolderPictures, PictureSource, folder_pictures
from fluid_core.evaluation.precision_recall import NUM_NEIGHBOURS, precision_recall
from fluid_core.evaluation.prompted_pictures import PicturesChoice, PromptedPictures, prompted_pictures
from fluid_core.evaluation.reference_pictures import (
    ReferencePictures,
    load_reference,
    reference_of,
    save_reference,
)
from fluid_core.evaluation.result_file import ResultRecord, device_name, write_result
from fluid_core.sampling_run.together import together
from fluid_core.training.devices import training_device
from fluid_core.training.processes import Processes


@attrs.frozen(kw_only=True)
class RealPictures:
    """What the generated pictures are compared with: a folder, a data set, or a saved reference; one of the three.

    Raises `InvalidRequestError` for none or several.
    """

    folder: Path | None = None
    data: EvaluationData | None = None
    reference: Path | None = None
    num_images: int | None = None
    """So many pictures of the folder, chosen by `seed`; None is all."""

    seed: int = 0
    only_captioned: bool = False
    """Only pictures of the folder that the captions name in `file_name`."""

    def __attrs_post_init__(self) -> None:
        given = [one for one in (self.folder, self.data, self.reference) if one is not None]
        if len(given) != 1:
            raise InvalidRequestError(
                f"Expected real pictures from one of a folder (--real), a data set (--data) and a saved reference "
                f"(--reference), found {len(given)} of them."
            )


@attrs.frozen(kw_only=True)
class FrechetRun:
    """What to compare, in which network, and how picture files are read."""

    pictures: PicturesChoice
    real: RealPictures
    network: ComponentChoice
    is_inception: bool = False
    """Whether the network is the Inception of the FID, which its user says."""

    image_size: tuple[int, int] | None = None
    """At which both sides are compared; None is the size of the generated pictures."""

    crop: Crop = "center"
    filter: Filter = "lanczos"
    precision_recall: bool = False
    num_neighbours: int = NUM_NEIGHBOURS
    save_reference: Path | None = None
    batch_size: int = 32
    device: str = "auto"

    @property
    def result_file(self) -> Path:
        """Where the record goes: its name says whether it is a FID."""
        return self.pictures.out / ("fid.json" if self.is_inception else "frechet-distance.json")


def measure_frechet_distance(
    run: FrechetRun,
    *,
    processes: Processes | None = None,
    catalog: ComponentCatalog | None = None,
    note: Callable[[str], None] | None = None,
) -> ResultRecord:
    """Draw what is missing, measure, write the record, and return it; all processes return the same.

    `note` is told what happens. Raises what drawing, reading and the network raise, and `OutputError` for a folder that
    holds another evaluation.
    """
    processes, note = processes or Processes(), note or _say_nothing
    device = training_device(run.device, setting="--device")
    network = together(processes, lambda: named_network(run.network, device, catalog, is_inception=run.is_inception))
    if run.real.reference is not None:
        folder = run.real.reference
        # Before hours of drawing.
        together(processes, lambda: load_reference(folder, network, with_features=run.precision_recall))
    note("drawing or finding the pictures")
    pictures = prompted_pictures(run.pictures, processes=processes, catalog=catalog)
    preparation = ImagePreparation(image_size=run.image_size or pictures.image_size, crop=run.crop, filter=run.filter)
    generated_source = FolderPictures(
        files=pictures.generated.files,
        preparation=preparation,
        description={"source": "generated pictures", "folder": pictures.generated.files[0].parent.resolve().name},
    )
    note("features of the generated pictures")
    features = run.pictures.out / "features"
    generated = picture_features(
        generated_source,
        network,
        features / "generated",
        batch_size=run.batch_size,
        device=device,
        processes=processes,
        overwrite=run.pictures.overwrite,
    )
    note("features of the real pictures")
    real = _reference(run, network, pictures, preparation, device, processes, catalog)
    record = _record(run, network, pictures, generated_source, generated, real, device)
    together(processes, lambda: _write(run, network, real, record) if processes.is_first else None)
    return record


def _reference(
    run: FrechetRun,
    network: NamedNetwork,
    pictures: PromptedPictures,
    preparation: ImagePreparation,
    device: torch.device,
    processes: Processes,
    catalog: ComponentCatalog | None,
) -> ReferencePictures:
    if run.real.reference is not None:
        folder = run.real.reference
        return together(processes, lambda: load_reference(folder, network, with_features=run.precision_recall))
    source = together(processes, lambda: _real_source(run.real, pictures, preparation, catalog))
    found = picture_features(
        source,
        network,
        run.pictures.out / "features" / "real",
        batch_size=run.batch_size,
        device=device,
        processes=processes,
        overwrite=run.pictures.overwrite,
    )
    return reference_of(found, source.as_json())


def _real_source(
    real: RealPictures,
    pictures: PromptedPictures,
    preparation: ImagePreparation,
    catalog: ComponentCatalog | None,
) -> PictureSource:
    if real.data is not None:
        size = preparation.image_size
        return DataPictures(data=real.data, items=real.data.items(size, catalog), image_size=size)
    assert real.folder is not None
    only = None
    if real.only_captioned:
        only = [str(row.metadata["file_name"]) for row in pictures.prompt_rows if "file_name" in row.metadata]
        if not only:
            raise InvalidRequestError(
                "Expected captions that name their pictures in 'file_name', as those of `fluid evaluate captions`, "
                "found none: leave out --only-captioned."
            )
    return folder_pictures(real.folder, preparation, num_images=real.num_images, seed=real.seed, only=only)


def _record(
    run: FrechetRun,
    network: NamedNetwork,
    pictures: PromptedPictures,
    source: FolderPictures,
    generated: PictureFeatures,
    real: ReferencePictures,
    device: torch.device,
) -> ResultRecord:
    statistics = reference_of(generated, source.as_json())
    distance = frechet_distance(network.network, statistics.statistics, real.statistics)
    what = "fid" if run.is_inception else "frechet-distance"
    values: dict[str, Any] = {what.replace("-", "_"): distance.value}
    notes = [*pictures.generated.notes]
    if distance.few_images:
        notes.append(
            f"With no more pictures than features ({distance.width}) the distance is too large by an unknown amount."
        )
    if not run.is_inception:
        notes.append("This is no FID: it compares with distances in the same network alone.")
    elif network.as_json()["recognised_as"] is None:
        notes.append("The file of the Inception is none that is known here: nothing but its user says that it is one.")
    notes += _differences(source.as_json(), real.description)
    if run.precision_recall:
        assert real.features is not None
        shares = precision_recall(real.features, generated.features, num_neighbours=run.num_neighbours)
        values |= {"precision": shares.precision, "recall": shares.recall}
        if shares.num_images[0] != shares.num_images[1]:
            notes.append("Precision and recall are of sets of different sizes, which moves both.")
    found = pictures.generated
    return ResultRecord(
        what=what,
        values=values,
        settings={
            "network": network.as_json(),
            "generated": dict(statistics.description),
            "real": dict(real.description),
            "captions": pictures.captions,
            "sampling": found.sampling,
            "batch_size": run.batch_size,
            "num_neighbours": run.num_neighbours if run.precision_recall else None,
        },
        seeds={
            "sampling": found.seed,
            "real": run.real.seed if run.real.data is None else run.real.data.seed,
        },
        num_images=len(generated.features),
        model=found.model,
        device=device_name(device),
        dtype="float32",
        notes=notes,
    )


def _differences(generated: Mapping[str, Any], real: Mapping[str, Any]) -> list[str]:
    """What of the two sides was not treated alike and must be known."""
    found = []
    if real["image_size"] != generated["image_size"]:
        found.append(
            f"Generated pictures are compared at {generated['image_size']} pixels and real ones at "
            f"{real['image_size']}."
        )
    found += [
        f"The {name} of generated pictures is {generated[name]}, that of real ones {real[name]}."
        for name in ("crop", "filter")
        if name in real and real[name] != generated[name]
    ]
    return found


def _write(run: FrechetRun, network: NamedNetwork, real: ReferencePictures, record: ResultRecord) -> None:
    write_result(run.result_file, record)
    if run.save_reference is not None:
        save_reference(real, network, run.save_reference, with_features=run.precision_recall)


def _say_nothing(_text: str) -> None:
    pass
