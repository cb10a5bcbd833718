"""From npm packages to the plain layout of `emoji_folder`."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from fluid_core.atomic_files import write_bytes, write_json
from fluid_core.errors import DataError
from fluid_emoji.emoji_folder import INDEX_FILE, Emoji, index_content
from fluid_emoji.names import plain_name
from fluid_emoji.options import CATEGORIES
from fluid_emoji.sources import Source, attribution_text

_ROOT = "package/"
_METADATA = "emoji.json"
_KEYWORDS = "dist/emoji-en-US.json"
_LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt")
# None of the files that are read comes near this; a larger one is not what it claims to be.
_LARGEST_FILE = 16 * 2**20


def convert(tarballs: Mapping[str, Path], folder: Path, sources: Sequence[Source]) -> None:
    """Fill `folder` from the packages, given by name as npm tarballs.

    Nothing is unpacked by the names in a tarball: files are read one by one and written under names of our own. Raises
    `DataError` if a package can not be read or does not hold what it should.
    """
    described: list[dict[str, Any]] = []
    keywords: dict[str, list[str]] = {}
    for source in sources:
        wanted = {_METADATA, _KEYWORDS}
        texts = _read(tarballs[source.package], source, lambda name, wanted=wanted: name in wanted)
        described = described or [
            entry for entry in _json(texts, _METADATA, source, []) if entry.get("category") in CATEGORIES
        ]
        keywords = keywords or _json(texts, _KEYWORDS, source, {})
    if not described or not keywords:
        raise DataError("The packages bring no names and groups of emoji, or no keywords; their layout has changed.")
    styles: dict[str, list[str]] = {entry["image"].removesuffix(".png"): [] for entry in described}
    for source in sources:
        found = _write_pictures(tarballs[source.package], source, folder, set(styles)) if source.style else set()
        for code_point in found:
            styles[code_point].append(str(source.style))
        _write_licence(tarballs[source.package], source, folder)
    emoji = tuple(
        _emoji(entry, keywords, tuple(styles[entry["image"].removesuffix(".png")]))
        for entry in sorted(described, key=lambda entry: int(entry["sort_order"]))
    )
    write_bytes(folder / "ATTRIBUTION.txt", attribution_text().encode())
    write_json(folder / INDEX_FILE, index_content(emoji, tuple(source.specifier for source in sources)))


def _emoji(entry: Mapping[str, Any], keywords: Mapping[str, list[str]], styles: tuple[str, ...]) -> Emoji:
    letters = "".join(chr(int(part, 16)) for part in entry["unified"].split("-"))
    # Keywords are filed with or without the variation selector that asks for a picture.
    words = keywords.get(letters) or keywords.get(letters.replace("\ufe0f", "")) or [entry["name"].lower()]
    return Emoji(
        code_point=entry["image"].removesuffix(".png"),
        name=plain_name(words[0]),
        category=entry["category"],
        subcategory=entry["subcategory"],
        keywords=tuple(dict.fromkeys(word.replace("_", " ") for word in words[1:] if word.isascii())),
        styles=styles,
    )


def _write_pictures(tarball: Path, source: Source, folder: Path, wanted: set[str]) -> set[str]:
    """Write the wanted pictures of one style as PNG; return their code points."""

    def is_wanted(name: str) -> bool:
        path = PurePosixPath(name)
        return str(path.parent) == source.pictures and path.suffix in (".png", ".webp") and path.stem in wanted

    found = set()
    for name, content in _read(tarball, source, is_wanted).items():
        path = PurePosixPath(name)
        try:
            with Image.open(io.BytesIO(content)) as picture:
                if path.suffix != ".png":
                    converted = io.BytesIO()
                    picture.convert("RGBA").save(converted, format="PNG")
                    content = converted.getvalue()
                else:
                    picture.verify()
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{source.specifier} holds a damaged picture {name}: {error}.") from error
        target = folder / str(source.style) / f"{path.stem}.png"
        target.parent.mkdir(exist_ok=True)
        # The folder itself appears at once when it is whole, so its files need no care of their own.
        target.write_bytes(content)
        found.add(path.stem)
    if len(found) != source.num_pictures:
        raise DataError(
            f"Expected {source.num_pictures} pictures of the wanted groups in {source.specifier}, found {len(found)}. "
            "Delete the download and fetch again."
        )
    return found


def _write_licence(tarball: Path, source: Source, folder: Path) -> None:
    for content in _read(tarball, source, lambda name: name in _LICENCES).values():
        path = folder / "licences" / f"{source.package.replace('/', '-').removeprefix('@')}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def _read(tarball: Path, source: Source, wanted: Any) -> dict[str, bytes]:
    """The wanted files of a package, by their names within it."""
    contents = {}
    try:
        with tarfile.open(tarball) as archive:
            for member in archive:
                name = member.name.removeprefix(_ROOT)
                if not member.isfile() or not wanted(name):
                    continue
                if member.size > _LARGEST_FILE:
                    raise DataError(f"{source.specifier}: {name} has {member.size} bytes, far more than expected.")
                file = archive.extractfile(member)
                assert file is not None
                contents[name] = file.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"The download {tarball} is damaged ({error}). Delete it and fetch again.") from error
    return contents


def _json(texts: Mapping[str, bytes], name: str, source: Source, missing: Any) -> Any:
    if name not in texts:
        return missing
    try:
        return json.loads(texts[name])
    except ValueError as error:
        raise DataError(f"{source.specifier}: {name} is not valid JSON ({error}).") from error
