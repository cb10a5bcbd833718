"""`fluid plan`: what a training will take, before it takes it."""

from pathlib import Path
from typing import Annotated

import typer


def plan(
    config: Annotated[Path, typer.Argument(help="A TOML file; see examples/configs.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to it, such as training.batch_size=4096 backbone.size=3.1b.", show_default=False),
    ] = None,
    gpus: Annotated[int, typer.Option(help="Number of GPUs.")] = 1,
    gpu: Annotated[str, typer.Option(help="Which ones, such as h100, a100, rtx-4090.")] = "h100",
    gpus_per_node: Annotated[int, typer.Option(help="GPUs of one machine, for hybrid sharding.")] = 8,
    mfu: Annotated[
        float, typer.Option(help="Share of the GPUs' peak that the model's FLOPs are assumed to reach.")
    ] = 0.4,
    images: Annotated[
        int | None,
        typer.Option(help="Images trained on in all; by default training.num_steps batches.", show_default=False),
    ] = None,
    dataset_images: Annotated[
        int | None,
        typer.Option(help="Images of the data set, for its cache; by default as many.", show_default=False),
    ] = None,
    text_length: Annotated[
        int | None,
        typer.Option(help="Tokens of a caption; by default the most that the encoder takes.", show_default=False),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write everything to this file.", show_default=False)
    ] = None,
) -> None:
    """Say what a training will take: parameters, computation, memory, time and disk. Needs no GPU and no weights."""
    from fluid_core.configuration import load_config

    settings = load_config(config, overrides=overrides or [])

    from rich.console import Console

    from fluid_core.atomic_files import write_json
    from fluid_core.planning.plan import PlanRequest, make_plan
    from fluid_core.planning.plan_text import print_plan

    made = make_plan(
        settings,
        PlanRequest(
            gpu=gpu,
            num_gpus=gpus,
            gpus_per_node=gpus_per_node,
            utilisation=mfu,
            num_images=images,
            num_dataset_images=dataset_images,
            text_length=text_length,
        ),
    )
    print_plan(made, Console(soft_wrap=True))
    if json_file is not None:
        write_json(json_file, made.as_json())
        typer.echo(f"Written to {json_file}")
