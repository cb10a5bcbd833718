"""`fluid tokenizer measure`: latent statistics of a tokenizer over a data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from fluid_core.channel_moments import ChannelMoments


def measure(
    config: Annotated[Path, typer.Argument(help="A TOML file with a [tokenizer] and [data].", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to it, such as tokenizer.options.latents=scaled.", show_default=False),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="How many training images to encode, drawn at random.")] = 10_000,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write; by default latent_statistics.json beside the weights.", show_default=False
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images encoded at once.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU if there is one.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the choice of images, and of draws from the posterior.")] = 0,
) -> None:
    """Measure mean and standard deviation of each token channel on training images, and store them."""
    from rich.console import Console

    from fluid_core.configuration import load_config
    from fluid_core.evaluation.latent_measurement import measure_latents

    settings = load_config(config, overrides=overrides or [])
    measurement = measure_latents(
        settings,
        num_images=images,
        file=out,
        batch_size=batch_size,
        device=device,
        seed=seed,
        console=Console(stderr=True),
    )
    console = Console()
    moments = measurement.moments
    console.print(_table(moments))
    skipped = f", {measurement.num_unreadable} could not be read" if measurement.num_unreadable else ""
    lines = [f"{moments.count} vectors of {measurement.num_images} images{skipped}."]
    if measurement.unit_scale is not None:
        lines.append(
            f"One factor for all channels would be {measurement.unit_scale:.5g}; the autoencoder's configuration has "
            f"{measurement.own_scale:.5g}."
        )
    lines.append(f"Written: {measurement.file}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(moments: "ChannelMoments") -> "Table":
    """Each channel of a token: values with the autoencoder's own scaling, before statistics are applied."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("channel", "mean", "std"):
        table.add_column(column, justify="right")
    for channel, (mean, variance) in enumerate(zip(moments.mean.tolist(), moments.variance.tolist(), strict=True)):
        table.add_row(str(channel), f"{mean:.4f}", f"{variance**0.5:.4f}")
    return table
