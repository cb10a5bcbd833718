"""`fluid cache check`: what a cache holds, and whether it is still what was written."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fluid_core.data.token_cache.manifest import Manifest


def check(
    folder: Annotated[Path, typer.Argument(help="Folder of the cache.", show_default=False)],
    checksums: Annotated[
        bool, typer.Option(help="Read every byte and compare checksums, or look at the sizes alone.")
    ] = True,
) -> None:
    """Say what a cache holds, and check that every shard is as it was written."""
    from rich.console import Console
    from rich.progress import track

    from fluid_core.data.token_cache.manifest import read_manifest
    from fluid_core.data.token_cache.shard_files import check_sizes, checksum_problems
    from fluid_core.errors import CheckpointError

    manifest = read_manifest(folder)
    for line in _in_words(manifest):
        typer.echo(line)
    shards = [shard for split in manifest.shards.values() for shard in split]
    check_sizes(folder, shards)
    if not checksums:
        typer.echo(f"{_counted(len(shards))} there in full size.")
        return
    console = Console(stderr=True)
    problems: list[str] = []
    for shard in track(shards, "reading", console=console, disable=not console.is_terminal):
        problems += checksum_problems(folder, shard)
    if problems:
        listed = "\n  ".join(problems)
        raise CheckpointError(
            f"The cache in {folder} is damaged:\n  {listed}\nCopy these files again if there is another copy, or build "
            "the cache anew."
        )
    typer.echo(f"{_counted(len(shards))} checked: as they were written.")


def _counted(num_shards: int) -> str:
    return "1 shard" if num_shards == 1 else f"{num_shards} shards"


def _in_words(manifest: "Manifest") -> list[str]:
    from fluid_core.data.token_cache.size_estimate import readable_bytes

    source = manifest.source
    options = ", ".join(f"{key} = {value}" for key, value in source.options.items())
    tensors = "; ".join(
        f"{one.name} {' x '.join(map(str, one.shape)) or 'scalar'} as {one.stored_as}" for one in manifest.tensors
    )
    text = "captions alone"
    if manifest.text is not None:
        one = manifest.text
        text = f"states of {one.encoder}, {one.width} wide, as {one.stored_as}"
    lines = [
        f"images     {manifest.image_size[0]} x {manifest.image_size[1]} pixels, crop: {manifest.crop}"
        + (", both flips" if manifest.both_flips else ""),
        f"source     {source.name} of {source.provided_by}, seed {source.seed}" + (f" ({options})" if options else ""),
        f"tokenizer  {manifest.tokenizer}",
        f"tokens     {tensors}",
        f"text       {text}",
    ]
    for split, shards in manifest.shards.items():
        size = readable_bytes(sum(shard.num_bytes for shard in shards))
        skipped = sum(len(shard.skipped) for shard in shards)
        left_out = f", {skipped} left out" if skipped else ""
        lines.append(f"{split:10} {manifest.num_items(split):,} items in {_counted(len(shards))}, {size}{left_out}")
    return lines
