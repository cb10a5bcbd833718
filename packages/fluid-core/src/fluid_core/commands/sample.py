"""`fluid sample`: draws pictures for prompts with a saved model."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class ScheduleName(StrEnum):
    """The guidance schedules of `fluid_core.guidance`, as choices of the command line."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"
    INTERVAL = "interval"


class BackendName(StrEnum):
    """The backends of `fluid_core.exchange.SamplerBackend`, as choices of the command line."""

    AUTO = "auto"
    REFERENCE = "reference"
    FUSED = "fused"


def sample(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model, or of a run.", show_default=False)],
    prompts: Annotated[list[str], typer.Argument(help="What to draw.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("samples"),
    images_per_prompt: Annotated[int, typer.Option(help="Pictures for each prompt.")] = 1,
    steps: Annotated[int | None, typer.Option(help="Order steps; by default the order's own.")] = None,
    head_steps: Annotated[int | None, typer.Option(help="Steps of an iterative head; by default its own.")] = None,
    head_backend: Annotated[
        BackendName,
        typer.Option(help="The head's plain sampler, its fast one, or by default the fast one where there is one."),
    ] = BackendName.AUTO,
    head_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An option of the head for this call, such as top_k=50; may be given several times.",
            show_default=False,
        ),
    ] = None,
    guidance: Annotated[float, typer.Option(help="Guidance scale; 1 is none.")] = 1.0,
    guidance_schedule: Annotated[
        ScheduleName,
        typer.Option(help="The same scale at every step, one that grows from 1, or guidance between two moments only."),
    ] = ScheduleName.CONSTANT,
    guidance_interval: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="FROM TO",
            help="Shares of the picture, such as 0.2 0.8, between which guidance acts; for the schedule 'interval'.",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            help=(
                "1 samples what was learned, less gives pictures that are more alike. At 0 a softmax head takes the "
                "likeliest token; a diffusion head still starts from noise."
            )
        ),
    ] = 1.0,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same pictures.")] = None,
) -> None:
    """Draw pictures for prompts: one PNG each, and a contact sheet."""
    from fluid_core.atomic_files import check_writable
    from fluid_core.configuration.overrides import named_values
    from fluid_core.contact_sheet import contact_sheet, save_image
    from fluid_core.pipeline import FluidPipeline

    head_options = named_values(head_option or [])
    pipeline = FluidPipeline.from_pretrained(_model_folder(model))
    check_writable(out)
    embeds = pipeline.encode_prompts(prompts)
    # A pretrained encoder may be larger than the model: all prompts are read, so its memory is free for drawing.
    pipeline.release_text_encoder()
    result = pipeline(
        prompt_embeds=embeds,
        num_inference_steps=steps,
        num_head_steps=head_steps,
        head_backend=head_backend.value,
        head_options=head_options,
        guidance_scale=guidance,
        guidance_schedule=guidance_schedule.value,
        guidance_interval=guidance_interval,
        temperature=temperature,
        num_images_per_prompt=images_per_prompt,
        seed=seed,
    )
    labels = [prompt for prompt in prompts for _ in range(images_per_prompt)]
    for index, (picture, image_seed) in enumerate(zip(result.images, result.seeds, strict=True)):
        save_image(picture, out / f"{index:05d}.png")
        typer.echo(f"{out / f'{index:05d}.png'}  seed {image_seed}  {labels[index]}")
    save_image(contact_sheet(result.images, labels), out / "sheet.png")
    typer.echo(f"{out / 'sheet.png'}  ({pipeline.weights} weights, {result.head_backend} sampler of the head)")


def _model_folder(folder: Path) -> Path:
    """The folder itself, or the finished model of a run. Raises `CheckpointError` for a run that has none yet."""
    from fluid_core.errors import CheckpointError

    if (folder / "model").is_dir():
        return folder / "model"
    if (folder / "config.json").is_file() and not (folder / "model_index.json").exists():
        raise CheckpointError(
            f"The run in {folder} has not finished: expected its model in {folder / 'model'}, found none. Continue it "
            f"with the configuration file it was started with: fluid train FILE --out {folder} --resume."
        )
    return folder
