"""`fluid tokenizer report`: several tokenizers side by side on the same held-out pictures."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    tokenizers: Annotated[
        list[Path],
        typer.Argument(
            help="TOML files with a section [tokenizer], or folders of saved models or runs.", show_default=False
        ),
    ],
    data: Annotated[str, typer.Option(help="Name of the data set; pictures of its validation split are used.")] = (
        "shapes"
    ),
    data_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option of the data set, such as path=photos.", show_default=False),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="How many held-out pictures.")] = 500,
    fit_images: Annotated[
        int, typer.Option(min=1, help="Training pictures for tokenizers that learn from images, and have not yet.")
    ] = 2000,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("tokenizer-report"),
    feature_network: Annotated[
        str, typer.Option(help="Network of the Frechet distance; none leaves it out.")
    ] = "efficientnet-lite0",
    feature_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option of that network.", show_default=False),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures encoded at once.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU if there is one.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of pictures, and of draws from posteriors.")] = 0,
) -> None:
    """Compare tokenizers: PSNR, SSIM, a Frechet distance, bits per image, and a picture of reconstructions."""
    from fluid_core.configuration import ComponentChoice
    from fluid_core.configuration.overrides import named_values
    from fluid_core.evaluation.tokenizer_report import ReportSettings, write_tokenizer_report

    network = None
    if feature_network != "none":
        network = ComponentChoice(name=feature_network, options=named_values(feature_option or []))
    settings = ReportSettings(
        data=ComponentChoice(name=data, options=named_values(data_option or [])),
        num_images=images,
        num_fit_images=fit_images,
        feature_network=network,
        batch_size=batch_size,
        seed=seed,
        device=device,
    )
    written = write_tokenizer_report(
        tokenizers, settings, out, note=lambda text: typer.secho(text, err=True, fg=typer.colors.BRIGHT_BLACK)
    )
    for label, figures in written.figures.items():
        distance = "" if figures.frechet is None else f"  Frechet {figures.frechet.value:.4g}"
        typer.echo(f"{label}: PSNR {figures.psnr:.2f} dB  SSIM {figures.ssim:.4f}{distance}")
    typer.echo(f"Written: {written.folder / 'report.md'}")
