"""The folder of fetched emoji: where it is, and how it is laid out.

index.json          what there is: code point, name, keywords, group and drawing styles of every emoji
ATTRIBUTION.txt     who drew the pictures, and under which licence
noto/1f34e.png      one folder per style; pictures are named by code point, with an alpha channel
"""

import json
import os
import sys
from pathlib import Path

import attrs

from fluid_core.errors import DataError

FOLDER_VARIABLE = "FLUID_EMOJI_FOLDER"
"""Environment variable that names another folder than the platform's cache."""

INDEX_FILE = "index.json"
FORMAT_VERSION = 1


@attrs.frozen(kw_only=True)
class Emoji:
    """One emoji of the folder."""

    code_point: str
    """Lower-case hexadecimal, parts joined by hyphens: `1f34e`, `2708-fe0f`."""

    name: str
    """In plain words, such as `red apple`."""

    category: str
    subcategory: str
    keywords: tuple[str, ...]
    styles: tuple[str, ...]
    """The styles it is drawn in."""


@attrs.frozen(kw_only=True)
class EmojiFolder:
    """A folder that was fetched, and what its index lists."""

    path: Path
    emoji: tuple[Emoji, ...]

    def picture(self, code_point: str, style: str) -> Path:
        """The file of one drawing."""
        return self.path / style / f"{code_point}.png"


def default_folder() -> Path:
    """The folder of the variable `FLUID_EMOJI_FOLDER`, or else `fluid/emoji` in the user's cache folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        cache = Path("~/Library/Caches")
    elif os.name == "nt":
        cache = Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local")
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return cache.expanduser() / "fluid" / "emoji"


def chosen_folder(option: str) -> Path:
    """The folder an option names, `~` for the home folder; the default one if it is empty."""
    return Path(option).expanduser() if option else default_folder()


def read_emoji_folder(path: Path) -> EmojiFolder:
    """Read the index of a folder that was fetched.

    Raises `DataError`, which says how to fetch, if the folder or its index is missing, damaged or of another version.
    """
    index = path / INDEX_FILE
    remedy = f"Fetch the pictures with: python -m fluid_emoji.fetch --cache {path}"
    try:
        written = json.loads(index.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"Expected emoji pictures in {path}, found no {INDEX_FILE} there. {remedy}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{index} can not be read ({error}). {remedy}") from error
    if not isinstance(written, dict) or written.get("format_version") != FORMAT_VERSION:
        raise DataError(f"Expected an index of format version {FORMAT_VERSION} in {index}, found another. {remedy}")
    try:
        emoji = tuple(
            Emoji(
                code_point=entry["code_point"],
                name=entry["name"],
                category=entry["category"],
                subcategory=entry["subcategory"],
                keywords=tuple(entry["keywords"]),
                styles=tuple(entry["styles"]),
            )
            for entry in written["emoji"]
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"{index} is damaged: an entry lacks or misuses {error}. {remedy}") from error
    return EmojiFolder(path=path, emoji=emoji)


def index_content(emoji: tuple[Emoji, ...], sources: tuple[str, ...]) -> dict[str, object]:
    """What `index.json` holds for these emoji; `sources` are the packages they came from, with versions."""
    return {
        "format_version": FORMAT_VERSION,
        "sources": list(sources),
        "emoji": [attrs.asdict(one) for one in emoji],
    }
