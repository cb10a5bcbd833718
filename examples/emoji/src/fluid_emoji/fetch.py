"""Fetches the emoji pictures into a cache folder: `python -m fluid_emoji.fetch [--cache FOLDER]`.

Four packages are downloaded with `npm pack`, about 150 MB; what is needed of them (50 MB) is kept in the plain layout
of `fluid_emoji.emoji_folder`. A download that is interrupted goes on where it was; the folder appears only when it is
whole.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from fluid_core.atomic_files import new_folder, remove_unfinished
from fluid_core.errors import DataError, FluidError
from fluid_emoji.conversion import convert
from fluid_emoji.emoji_folder import FOLDER_VARIABLE, INDEX_FILE, EmojiFolder, default_folder, read_emoji_folder
from fluid_emoji.sources import SOURCES, Source

_LONGEST_DOWNLOAD_SECONDS = 1800


def fetch(
    folder: Path,
    *,
    npm: str = "npm",
    sources: Sequence[Source] = SOURCES,
    again: bool = False,
    keep_downloads: bool = False,
    say: Callable[[str], None] = print,
) -> EmojiFolder:
    """Fetch the packages of `sources` with the program `npm` and fill `folder`; return what it holds.

    A folder that is already filled is left alone unless `again` is set. Raises `DataError` if npm is missing or fails,
    or if a package is not what it should be; `OutputError` if the folder can not be written.
    """
    if (folder / INDEX_FILE).is_file() and not again:
        say(f"The emoji are in {folder} already; --again fetches them anew.")
        return read_emoji_folder(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / INDEX_FILE).is_file():
        raise DataError(f"{folder} holds other files than fetched emoji. Choose an empty or new folder with --cache.")
    downloads = folder.parent / f".{folder.name}.downloads"
    tarballs = {source.package: _download(source, downloads, npm, say) for source in sources}
    say("Converting ...")
    remove_unfinished(folder.parent)
    with new_folder(folder) as unfinished:
        convert(tarballs, unfinished, sources)
    if not keep_downloads:
        shutil.rmtree(downloads, ignore_errors=True)
    fetched = read_emoji_folder(folder)
    num_pictures = sum(len(one.styles) for one in fetched.emoji)
    say(f"{len(fetched.emoji)} emoji, {num_pictures} pictures in {folder}; licences are in ATTRIBUTION.txt there.")
    return fetched


def _download(source: Source, downloads: Path, npm: str, say: Callable[[str], None]) -> Path:
    """The tarball of one package, from an earlier attempt if there was one. It gets its name when it is whole."""
    tarball = downloads / f"{source.package.replace('/', '-').removeprefix('@')}-{source.version}.tgz"
    if tarball.is_file():
        say(f"{source.specifier}: downloaded already")
        return tarball
    program = shutil.which(npm)
    if program is None:
        raise DataError(
            f"The program {npm} was not found; it downloads the emoji packages. Install Node.js, which brings npm, or "
            f"run this on a machine that has it and copy the folder here, with {FOLDER_VARIABLE} naming its place."
        )
    say(f"{source.specifier}: downloading ...")
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads, prefix=".unfinished.") as work:
        try:
            finished = subprocess.run(
                [program, "pack", source.specifier, "--ignore-scripts", "--loglevel=error"],
                cwd=work,
                capture_output=True,
                text=True,
                check=False,
                timeout=_LONGEST_DOWNLOAD_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"npm took more than {_LONGEST_DOWNLOAD_SECONDS} s for {source.specifier}.") from None
        packed = list(Path(work).glob("*.tgz"))
        if finished.returncode != 0 or len(packed) != 1:
            said = "\n".join(f"  {line}" for line in finished.stderr.strip().splitlines()[-6:]) or "  (nothing)"
            raise DataError(
                f"npm could not download {source.specifier} (exit code {finished.returncode}); it said:\n{said}\n"
                "Is this machine online, and does npm reach its registry? Run the command again when it does: what "
                "is already downloaded stays."
            )
        packed[0].replace(tarball)
    return tarball


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 1 with a message."""
    parser = argparse.ArgumentParser(prog="python -m fluid_emoji.fetch", description="Fetch the emoji pictures.")
    parser.add_argument("--cache", type=Path, default=None, help=f"folder to fill (default: {default_folder()})")
    parser.add_argument("--again", action="store_true", help="fetch anew what is there already")
    parser.add_argument("--keep-downloads", action="store_true", help="keep the packages beside the folder (150 MB)")
    parser.add_argument("--npm", default="npm", help="the npm program to use")
    chosen = parser.parse_args(arguments)
    try:
        folder = (chosen.cache or default_folder()).expanduser().absolute()
        fetch(folder, npm=chosen.npm, again=chosen.again, keep_downloads=chosen.keep_downloads)
    except FluidError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
