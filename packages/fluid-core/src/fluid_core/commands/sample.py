"""`fluid sample`: draws pictures for prompts with a saved model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluid_core.commands import sampling_options as options
from fluid_core.model_folder import model_folder

if TYPE_CHECKING:
    from fluid_core.sampling_run.prompts_file import Prompt
    from fluid_core.sampling_run.run import FinishedRun


def sample(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model, or of a run.", show_default=False)],
    prompts: Annotated[list[str] | None, typer.Argument(help="What to draw.", show_default=False)] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="A .txt with a prompt per line, or a .jsonl with the key 'prompt', instead of prompts as arguments.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the pictures. A run that was stopped goes on there. By default samples, or where another "
            "run has taken it samples-2, and so on.",
            show_default=False,
        ),
    ] = None,
    images_per_prompt: Annotated[int, typer.Option(help="Pictures for each prompt.")] = 1,
    negative_prompt: Annotated[
        str | None, typer.Option(help="What guidance moves away from; by default no text.", show_default=False)
    ] = None,
    order: options.Order = None,
    order_option: options.OrderOptions = None,
    steps: options.Steps = None,
    head_steps: options.HeadSteps = None,
    head_backend: options.HeadBackend = options.BackendName.AUTO,
    head_option: options.HeadOptions = None,
    guidance: options.Guidance = 1.0,
    guidance_schedule: options.GuidanceSchedule = options.ScheduleName.CONSTANT,
    guidance_interval: options.GuidanceInterval = None,
    temperature: options.Temperature = 1.0,
    seed: Annotated[
        int | None, typer.Option(help="The same seed draws the same pictures; by default a new one.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures drawn at once; each batch is saved when it is done.")] = 16,
    device: options.Device = "auto",
    sheet: Annotated[bool, typer.Option(help="Also draw a contact sheet.")] = True,
    animation: Annotated[
        bool, typer.Option("--animation", help="Also write each picture emerging in its order, as a GIF.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Let the pictures of another run in the folder go.")
    ] = False,
) -> None:
    """Draw pictures for prompts: one PNG each, which says how it was made, and a contact sheet.

    A run that was stopped goes on when it is started again with the same arguments. Under torchrun, several processes
    share the pictures.
    """
    from fluid_core.sampling_run.run import SamplingRun, draw_pictures
    from fluid_core.sampling_run.together import together
    from fluid_core.training.processes import Processes

    if bool(prompts) == (prompts_file is not None):
        found = "both" if prompts else "neither"
        raise typer.BadParameter(f"Expected prompts as arguments, or a file of them (--prompts), found {found}.")
    # They share no tensors: what they tell each other are a few words.
    processes = Processes.join(backend="gloo")

    def planned() -> SamplingRun:
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
        return SamplingRun(
            model=model_folder(model),
            prompts=_prompts(prompts or [], prompts_file),
            out=out,
            settings=settings,
            images_per_prompt=images_per_prompt,
            negative_prompt=negative_prompt,
            seed=seed,
            batch_size=batch_size,
            device=device,
            sheet=sheet,
            animation=animation,
            overwrite=overwrite,
        )

    run = together(processes, planned)
    if processes.is_first and run.negative_prompts_mean_nothing:
        typer.secho("Negative prompts act through guidance alone: give --guidance above 1.", err=True)
    finished = draw_pictures(
        run,
        processes=processes,
        told=lambda image, path: typer.echo(f"{path}  seed {image.seed}  {image.prompt}"),
    )
    if processes.is_first:
        _summary(finished)
    processes.leave()


def _summary(run: "FinishedRun") -> None:
    """The last lines: where the pictures are, and what drew them."""
    if run.num_drawn == 0:
        typer.echo(
            f"All {run.num_images} pictures of this run are in {run.folder} already, drawn with seed {run.seed}. For "
            "others give another --seed or --out, or --overwrite."
        )
    elif run.num_drawn < run.num_images:
        typer.echo(f"Drew the {run.num_drawn} of {run.num_images} pictures that were missing.")
    sampler = f", {run.head_backend} sampler of the head" if run.head_backend else ""
    typer.echo(f"{run.sheet or run.folder}  ({run.weights} weights{sampler})")


def _prompts(texts: list[str], file: Path | None) -> "list[Prompt]":
    from fluid_core.sampling_run.prompts_file import given_prompts, read_prompts

    return given_prompts(texts) if file is None else read_prompts(file)
