"""`fluid cache build`: tokens and text states of a configuration's training data, computed once."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def build(
    config: Annotated[
        Path, typer.Argument(help="A TOML file to train with; see examples/configs.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to it, such as data.options.crop=none.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the cache.", show_default=False)] = ...,  # type: ignore[assignment]
    both_flips: Annotated[bool, typer.Option("--both-flips", help="Encode the mirror images as well.")] = False,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Type of stored moments.")
    ] = "float32",
    text: Annotated[bool, typer.Option(help="Keep the states of a frozen text encoder, or captions alone.")] = True,
    text_dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Type of stored text states.")] = "float32",
    validation: Annotated[
        bool | None,
        typer.Option(help="Cache the validation split as well; by default if the configuration measures it."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images encoded at once.")] = 32,
    shard_megabytes: Annotated[float, typer.Option(min=0.01, help="About how large a shard is.")] = 256,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU if there is one.")] = "auto",
    estimate: Annotated[bool, typer.Option("--estimate", help="Only say how large it will be.")] = False,
) -> None:
    """Encode the training data once. A build that was stopped goes on where it was, when started again."""
    from fluid_core.configuration import load_config
    from fluid_core.data.token_cache.options import CacheBuildOptions

    settings = load_config(config, overrides=overrides or [])

    from fluid_core.data.token_cache.size_estimate import readable_bytes
    from fluid_core.training.cache_building import cache_builder

    options = CacheBuildOptions(
        both_flips=both_flips,
        dtype=dtype,
        text=text,
        text_dtype=text_dtype,
        batch_size=batch_size,
        shard_megabytes=shard_megabytes,
    )
    builder = cache_builder(settings, out, options, device=device, validation=validation)
    if builder.is_whole:
        typer.echo(f"The cache in {out} is whole already: nothing to do.")
        return
    typer.echo(str(builder.estimate()))
    if estimate:
        return
    manifest = builder.build()
    counts = ", ".join(f"{manifest.num_items(split):,} of {split}" for split in manifest.shards)
    typer.echo(f"Wrote {counts}: {readable_bytes(manifest.num_bytes)} in {out}")
    if manifest.skipped:
        typer.echo(
            f"Left out {len(manifest.skipped)} that could not be used, all listed in the manifest, such as: "
            f"{manifest.skipped[0].reason}"
        )
    typer.echo(f'Train from it with: data.name=token-cache data.options={{path="{out}"}}')
