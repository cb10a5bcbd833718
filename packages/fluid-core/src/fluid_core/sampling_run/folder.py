"""The folder of a run: `run.json` says what the run is before the first picture, and so what may be continued."""

import json
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

import attrs

from fluid_core.atomic_files import read_json, write_json
from fluid_core.errors import OutputError
from fluid_core.sampling_run.plan import PlannedImage

RUN_FILE = "run.json"
SHEET_FILE = "sheet.png"
_PICTURE = re.compile(r"\d{5,}\.(png|gif)")
_MOST_DIFFERENCES = 5


@attrs.frozen(kw_only=True)
class RunDescription:
    """What decides the pictures of a run. Two runs that agree in it draw the same ones."""

    model: Mapping[str, str]
    """`folder` (its name), `identity` and `weights` of the model."""

    settings: Mapping[str, Any]
    seed: int
    images: tuple[PlannedImage, ...]

    def as_json(self) -> dict[str, Any]:
        """What `run.json` holds."""
        return {
            "format_version": 1,
            "model": dict(self.model),
            "packages": package_versions(),
            "settings": dict(self.settings),
            "seed": self.seed,
            "images": [
                {
                    "file": f"{image.name}.png",
                    "prompt": image.prompt,
                    "negative_prompt": image.negative_prompt,
                    "seed": image.seed,
                    "metadata": dict(image.metadata),
                }
                for image in self.images
            ],
        }


def package_versions() -> dict[str, str]:
    """Versions of what drew the pictures."""
    return {name: metadata.version(name) for name in ("fluid-core", "torch")}


class OtherRunError(OutputError):
    """A folder holds pictures that do not belong to the run that wants to draw there."""


def default_folders() -> Iterator[Path]:
    """Where a run goes that was given no folder: the first of these that holds no other run."""
    yield Path("samples")
    yield from (Path(f"samples-{number}") for number in count(2))


def recorded_seed(folder: Path) -> int | None:
    """The seed of the run that was begun in `folder`; None if there is none.

    Raises `OtherRunError` for a `run.json` that is damaged, or of something else.
    """
    described = _read(folder)
    return None if described is None else described["seed"]


def check_same_run(folder: Path, description: RunDescription) -> bool:
    """Whether a run was begun in `folder` already, which must be this one.

    Raises `OtherRunError` if pictures there belong to another run, or to none.
    """
    before = _read(folder)
    ways_out = "Choose another folder (--out), or let the pictures there go (--overwrite)."
    if before is None:
        sheet = folder / SHEET_FILE
        if found := [*pictures_in(folder), *([sheet] if sheet.exists() else [])]:
            raise OtherRunError(
                f"Expected {folder} to be empty or to hold an earlier part of this run, found pictures such as "
                f"{found[0].name} and no {RUN_FILE}. {ways_out}"
            )
        return False
    now = json.loads(json.dumps(description.as_json()))
    differences = _differences(before, now)
    if differences:
        shown = differences[:_MOST_DIFFERENCES]
        if len(differences) > len(shown):
            shown.append(f"and {len(differences) - len(shown)} more")
        listed = "\n  ".join(shown)
        raise OtherRunError(f"{folder} holds another run, which can not be continued with:\n  {listed}\n{ways_out}")
    return True


def begin_run(folder: Path, description: RunDescription) -> None:
    """Clear the folder of pictures of another run, and write what this one is."""
    (folder / RUN_FILE).unlink(missing_ok=True)
    for path in [*pictures_in(folder), folder / SHEET_FILE]:
        path.unlink(missing_ok=True)
    write_json(folder / RUN_FILE, description.as_json())


def pictures_in(folder: Path) -> list[Path]:
    """Pictures and animations with names as a run gives them."""
    return sorted(path for path in folder.glob("*.*") if _PICTURE.fullmatch(path.name))


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / RUN_FILE
    if not path.exists():
        return None
    try:
        described = read_json(path)
        whole = type(described["seed"]) is int and isinstance(described["images"], list)
        whole = whole and all(isinstance(image, dict) for image in described["images"])
        whole = whole and isinstance(described["model"], dict) and isinstance(described["settings"], dict)
    except Exception as error:
        raise OtherRunError(_not_ours(path)) from error
    if not whole:
        raise OtherRunError(_not_ours(path))
    return dict(described)


def _not_ours(path: Path) -> str:
    return (
        f"Expected {path} to describe an earlier part of this run, found a file that does not. Choose another folder "
        "(--out), or let what is there go (--overwrite)."
    )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of two descriptions differs and matters, in words."""
    found = []
    if before["model"].get("identity") != now["model"]["identity"]:
        found.append(f"another model: {before['model'].get('folder')} before, {now['model']['folder']} now")
    if before["seed"] != now["seed"]:
        found.append(f"seed: {before['seed']} before, {now['seed']} now")
    names = dict.fromkeys([*before["settings"], *now["settings"]])
    for name in names:
        old, new = before["settings"].get(name), now["settings"].get(name)
        if old != new:
            found.append(f"{name}: {old!r} before, {new!r} now")
    if len(before["images"]) != len(now["images"]):
        found.append(f"number of pictures: {len(before['images'])} before, {len(now['images'])} now")
    else:
        pairs = zip(before["images"], now["images"], strict=True)
        found += [difference for pair in pairs if (difference := _image_difference(*pair))]
    return found


def _image_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs for one picture; nothing if there is nothing. Its seed may come from a file of prompts."""
    for key in ("prompt", "negative_prompt", "seed", "metadata"):
        if before.get(key) != now[key]:
            return f"{key} of {now['file']}: {before.get(key)!r} before, {now[key]!r} now"
    return ""
