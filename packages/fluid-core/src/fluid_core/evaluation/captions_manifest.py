"""A file of captions that a protocol draws pictures for, made from COCO's official annotations and known by its hash.

Which captions were drawn for decides a FID as much as the model does, so the choice is a file: one JSON object per line
with `prompt`, and with `image_id`, `caption_id` and `file_name` for whoever needs to know. Its SHA-256 stands in every
record.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from fluid_core.atomic_files import write_bytes, write_json
from fluid_core.errors import DataError, InvalidRequestError

CaptionRule = Literal["images", "captions"]


@attrs.frozen(kw_only=True)
class CaptionsManifest:
    """A manifest that was written."""

    file: Path
    sha256: str
    description: Mapping[str, Any]
    """What it was made from and how, as in the JSON beside it."""


def write_captions_manifest(
    annotations: Path, file: Path, *, num_captions: int = 30_000, seed: int = 0, rule: CaptionRule = "images"
) -> CaptionsManifest:
    """Choose captions from an official file such as `captions_val2014.json` and write them to `file` (`.jsonl`).

    The rule `images` takes so many different images and one caption of each; `captions` takes so many of all captions,
    so that an image may come several times. What is chosen follows from the seed and the ids alone, on every machine;
    of a smaller number it is the beginning. A file of the same name that ends in `.json` says how it was made. Raises
    `DataError` for a file that is no such annotations, and `InvalidRequestError` for more captions than there are.
    """
    if file.suffix != ".jsonl" or num_captions < 1:
        raise InvalidRequestError(
            f"Expected a file to write that ends in .jsonl and 1 caption or more, found {file} and {num_captions}."
        )
    content, names, captions = _read(annotations)
    ranked = sorted(captions, key=lambda one: _rank(seed, one["id"]))
    if rule == "images":
        # The first caption of each image in a random order of captions is a random one of its captions.
        firsts: dict[int, dict[str, Any]] = {}
        for one in ranked:
            firsts.setdefault(one["image_id"], one)
        ranked = sorted(firsts.values(), key=lambda one: _rank(seed, f"image {one['image_id']}"))
    if num_captions > len(ranked):
        raise InvalidRequestError(
            f"Expected at most {len(ranked)} captions by the rule '{rule}' from {annotations}, found {num_captions}."
        )
    lines = [
        json.dumps(
            {
                "prompt": " ".join(one["caption"].split()),
                "image_id": one["image_id"],
                "caption_id": one["id"],
                "file_name": names[one["image_id"]],
            },
            ensure_ascii=False,
        )
        for one in ranked[:num_captions]
    ]
    manifest = "".join(f"{line}\n" for line in lines).encode()
    sha256 = hashlib.sha256(manifest).hexdigest()
    description = {
        "format_version": 1,
        "annotations": annotations.name,
        "annotations_sha256": hashlib.sha256(content).hexdigest(),
        "num_images_annotated": len(names),
        "num_captions_annotated": len(captions),
        "rule": rule,
        "seed": seed,
        "num_captions": num_captions,
        "sha256": sha256,
    }
    write_bytes(file, manifest)
    write_json(file.with_suffix(".json"), description)
    return CaptionsManifest(file=file, sha256=sha256, description=description)


def describe_captions(file: Path) -> dict[str, Any]:
    """What a record says about a file of captions: its hash, and how it was made if the JSON beside it says so.

    Raises `DataError` if the file is missing.
    """
    try:
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"The captions in {file} can not be read: {error.strerror or error}.") from error
    made: Any = None
    if file.suffix == ".jsonl":
        try:
            made = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            made = None
    # A description of another version of the file would be worse than none.
    if not isinstance(made, dict) or made.get("sha256") != sha256:
        made = None
    return {"file": file.name, "sha256": sha256, "made_from": made}


def _read(annotations: Path) -> tuple[bytes, dict[int, str], list[dict[str, Any]]]:
    layout = 'a JSON with "images" (id, file_name) and "annotations" (id, image_id, caption), as captions_val2014.json'
    try:
        content = annotations.read_bytes()
    except OSError as error:
        raise DataError(f"Expected {annotations} to be {layout}; it can not be read: {error.strerror}.") from error
    try:
        document = json.loads(content)
        names = {int(image["id"]): str(image["file_name"]) for image in document["images"]}
        captions: list[dict[str, Any]] = [
            {"id": int(one["id"]), "image_id": int(one["image_id"]), "caption": str(one["caption"])}
            for one in document["annotations"]
            if str(one["caption"]).strip()
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"Expected {annotations} to be {layout}; found something else ({error!r}).") from error
    strays = sorted({one["image_id"] for one in captions} - names.keys())
    if strays or not captions:
        found = f"a caption of the image {strays[0]}, which is not listed" if strays else "no captions"
        raise DataError(f"Expected {annotations} to be {layout}; found {found}.")
    return content, names, captions


def _rank(seed: int, identifier: object) -> bytes:
    return hashlib.sha256(f"{seed}/{identifier}".encode()).digest()
