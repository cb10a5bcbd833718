"""`fluid edit`: draws parts of a picture anew, continues it beyond its edges, or varies it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fluid_core.commands import sampling_options as options
from fluid_core.model_folder import model_folder


class FitName(StrEnum):
    """What happens to pictures of other proportions than the model's, as choices of the command line."""

    EXACT = "exact"
    CROP = "crop"
    STRETCH = "stretch"


def edit(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model, or of a run.", show_default=False)],
    image: Annotated[Path, typer.Option(help="The picture to begin with.", show_default=False)],
    mask: Annotated[
        Path | None,
        typer.Option(help="Inpaint: a picture of the same size, white where it is drawn anew.", show_default=False),
    ] = None,
    box: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(
            metavar="LEFT TOP RIGHT BOTTOM",
            help="Outpaint: where in the result the picture lies, in pixels; the rest is drawn.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(help="Vary: the share of tokens to keep, from 0 to less than 1.", show_default=False),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="What the whole picture shows then; by default no text.", show_default=False)
    ] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(help="What guidance moves away from; by default no text.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("edits"),
    images: Annotated[int, typer.Option(help="How many results.")] = 4,
    fit: Annotated[
        FitName,
        typer.Option(help="Refuse pictures of other proportions, use the largest part in the middle, or distort them."),
    ] = FitName.EXACT,
    blend: Annotated[int, typer.Option(help="Ease the seam over so many pixels of its drawn side.")] = 0,
    order: options.Order = None,
    order_option: options.OrderOptions = None,
    steps: Annotated[
        int | None, typer.Option(help="Order steps, at most one for each token that is drawn; by default the order's.")
    ] = None,
    head_steps: options.HeadSteps = None,
    head_backend: options.HeadBackend = options.BackendName.AUTO,
    head_option: options.HeadOptions = None,
    guidance: options.Guidance = 1.0,
    guidance_schedule: options.GuidanceSchedule = options.ScheduleName.CONSTANT,
    guidance_interval: options.GuidanceInterval = None,
    temperature: options.Temperature = 1.0,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same results.")] = None,
    device: options.Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the pictures of an earlier edit in the folder.")
    ] = False,
) -> None:
    """Draw parts of a picture anew (--mask), continue it beyond its edges (--box), or vary it (--keep).

    Leaves a PNG for each result, which says how it was made, and a sheet. The model must have been trained in an order
    over any permutation, such as random or causal-random.
    """
    from fluid_core.editing.edit_run import WantedEdit, run_edit
    from fluid_core.pipeline import FluidPipeline
    from fluid_core.training.devices import training_device

    given = [name for name, value in (("--mask", mask), ("--box", box), ("--keep", keep)) if value is not None]
    if len(given) != 1:
        raise typer.BadParameter(
            f"Expected one of --mask, --box and --keep, found {' and '.join(given) if given else 'none of them'}."
        )
    if blend and keep is not None:
        raise typer.BadParameter("--blend has no meaning with --keep: a variation has no seam.")
    settings = options.sampling_settings(
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
    wanted = WantedEdit(
        image=image,
        mask=mask,
        box=box,
        keep=keep,
        prompt=prompt,
        negative_prompt=negative_prompt,
        fit=fit.value,
        blend=blend,
    )
    if negative_prompt is not None and guidance == 1.0:
        typer.secho("Negative prompts act through guidance alone: give --guidance above 1.", err=True)
    folder = model_folder(model)
    pipeline = FluidPipeline.from_pretrained(folder).to(training_device(device, setting="--device"))
    written = run_edit(
        pipeline,
        wanted,
        settings,
        model_folder=folder,
        num_images=images,
        seed=seed,
        out=out,
        overwrite=overwrite,
    )
    for path, image_seed in written.pictures:
        typer.echo(f"{path}  seed {image_seed}")
    typer.echo(f"{written.sheet}  ({pipeline.weights} weights, {written.head_backend} sampler of the head)")
    if seed is None:
        typer.echo(f"The same again: --seed {written.seed}")
