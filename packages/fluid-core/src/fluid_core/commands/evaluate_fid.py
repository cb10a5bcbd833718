"""`fluid evaluate fid`: a Frechet distance, precision and recall between generated and real pictures."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluid_core.commands import evaluation_options as options
from fluid_core.commands import sampling_options as sampling
from fluid_core.commands.sampling_options import BackendName, ScheduleName

if TYPE_CHECKING:
    from fluid_core.evaluation.frechet_run import FrechetRun
    from fluid_core.evaluation.result_file import ResultRecord
    from fluid_core.sampling_run.settings import SamplingSettings


class CropName(StrEnum):
    """How pictures get the wanted aspect."""

    CENTER = "center"
    NONE = "none"


class FilterName(StrEnum):
    """Filters of Pillow, by which pictures are resized."""

    LANCZOS = "lanczos"
    BICUBIC = "bicubic"
    BILINEAR = "bilinear"
    BOX = "box"
    NEAREST = "nearest"


class InceptionResizeName(StrEnum):
    """Who resizes pictures for the Inception: clean-fid's way before it, or the network itself."""

    BICUBIC = "bicubic"
    INSIDE = "inside"


def fid(
    model: options.ModelOrNothing = None,
    images: options.Images = None,
    captions: options.Captions = None,
    data: options.DataName = None,
    data_option: options.DataOptions = None,
    split: options.Split = options.SplitName.VALIDATION,
    real: Annotated[
        Path | None,
        typer.Option(help="Folder of real pictures, instead of those of the data set.", show_default=False),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="What --save-reference wrote, instead of real pictures.", show_default=False)
    ] = None,
    num_images: options.NumImages = None,
    num_real: Annotated[
        int | None, typer.Option(min=2, help="Pictures of the folder --real, chosen by --data-seed; by default all.")
    ] = None,
    only_captioned: Annotated[
        bool, typer.Option("--only-captioned", help="Of --real only the pictures that the captions belong to.")
    ] = False,
    network: Annotated[
        str | None, typer.Option(help="A feature network by its name; its distance is no FID.", show_default=False)
    ] = None,
    network_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of that network.", show_default=False)
    ] = None,
    inception: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The Inception of the FID, inception-2015-12-05.pt, instead of --network.",
            show_default=False,
        ),
    ] = None,
    inception_resize: Annotated[
        InceptionResizeName, typer.Option(help="To its 299 pixels: as clean-fid, or inside as the first FID.")
    ] = InceptionResizeName.BICUBIC,
    resolution: Annotated[
        int | None,
        typer.Option(min=32, help="Side at which both are compared; by default that of the generated pictures."),
    ] = None,
    crop: Annotated[
        CropName, typer.Option(help="Of picture files: the largest square in the middle, or stretched.")
    ] = CropName.CENTER,
    resize_filter: Annotated[
        FilterName, typer.Option("--filter", help="By which picture files are resized.")
    ] = FilterName.LANCZOS,
    with_precision_recall: Annotated[
        bool, typer.Option("--precision-recall", help="Also measure precision and recall.")
    ] = False,
    neighbours: Annotated[int, typer.Option(min=1, help="Of precision and recall.")] = 3,
    save_reference: Annotated[
        Path | None, typer.Option(help="Folder to keep what was measured of the real pictures.", show_default=False)
    ] = None,
    out: options.Out = Path("evaluation"),
    seed: options.Seed = 0,
    data_seed: options.DataSeed = 0,
    order: sampling.Order = None,
    order_option: sampling.OrderOptions = None,
    steps: sampling.Steps = None,
    head_steps: sampling.HeadSteps = None,
    head_backend: sampling.HeadBackend = BackendName.AUTO,
    head_option: sampling.HeadOptions = None,
    guidance: sampling.Guidance = 1.0,
    guidance_schedule: sampling.GuidanceSchedule = ScheduleName.CONSTANT,
    guidance_interval: sampling.GuidanceInterval = None,
    temperature: sampling.Temperature = 1.0,
    batch_size: options.BatchSize = 32,
    device: sampling.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Measure the Frechet distance between generated and real pictures; with the Inception of the FID it is the FID.

    Pictures are drawn as PNG into OUT/images, for the captions of a file or of a data set; --images takes a folder
    instead. What was stopped goes on when it is started again; under torchrun, several processes share the work.
    """
    from fluid_core.evaluation.frechet_run import measure_frechet_distance
    from fluid_core.sampling_run.together import together
    from fluid_core.training.processes import Processes

    processes = Processes.join(backend="gloo")

    def settings() -> "SamplingSettings":
        return sampling.sampling_settings(
            order=order,
            order_option=order_option,
            steps=steps,
            head_steps=head_steps,
            head_backend=head_backend,
            head_option=head_option,
            guidance=guidance,
            guidance_schedule=guidance_schedule,
            guidance_interval=guidance_interval,
            temperature=temperature,
        )

    def planned() -> "FrechetRun":
        from fluid_core.configuration import ComponentChoice
        from fluid_core.configuration.overrides import named_values
        from fluid_core.errors import InvalidRequestError
        from fluid_core.evaluation.frechet_run import FrechetRun, RealPictures
        from fluid_core.evaluation.picture_features import inception_choice

        if (network is None) == (inception is None):
            raise InvalidRequestError(
                "Expected a feature network: the Inception of the FID (--inception FILE), or another by its name "
                "(--network NAME, see `fluid components`); found both or neither."
            )
        choice = (
            ComponentChoice(name=network, options=named_values(network_option or []))
            if network is not None
            else inception_choice(inception, inception_resize.value)  # type: ignore[arg-type]
        )
        pictures = options.pictures_choice(
            model=model,
            images=images,
            captions=captions,
            data=data,
            data_option=data_option,
            split=split,
            data_seed=data_seed,
            num_images=num_images,
            out=out,
            settings=settings,
            seed=seed,
            batch_size=batch_size,
            device=device,
            overwrite=overwrite,
            needs_data=real is None and reference is None,
        )
        return FrechetRun(
            pictures=pictures,
            real=RealPictures(
                folder=real,
                data=pictures.data if real is None and reference is None else None,
                reference=reference,
                num_images=num_real,
                seed=data_seed,
                only_captioned=only_captioned,
            ),
            network=choice,
            is_inception=inception is not None,
            image_size=None if resolution is None else (resolution, resolution),
            crop=crop.value,
            filter=resize_filter.value,
            precision_recall=with_precision_recall,
            num_neighbours=neighbours,
            save_reference=save_reference,
            batch_size=batch_size,
            device=device,
        )

    run = together(processes, planned)
    record = measure_frechet_distance(run, processes=processes, note=options.noting(processes))
    if processes.is_first:
        _tell(record)
        typer.echo(f"Written: {run.result_file}")
    processes.leave()


def _tell(record: "ResultRecord") -> None:
    values, real = record.values, record.settings["real"]
    value = values["fid"] if record.what == "fid" else values["frechet_distance"]
    name = "FID" if record.what == "fid" else f"Frechet distance in {record.settings['network']['description']}"
    typer.echo(f"{name}: {value:.4g}  ({record.num_images} generated and {real['num_images']} real pictures)")
    if "precision" in values:
        typer.echo(f"precision {values['precision']:.4f}, recall {values['recall']:.4f}")
    for note in record.notes:
        typer.secho(note, err=True)
