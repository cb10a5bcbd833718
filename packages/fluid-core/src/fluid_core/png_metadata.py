"""How a picture was made, inside its PNG: as JSON for programs, and its prompt as plain text for people."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from fluid_core.atomic_files import write_bytes
from fluid_core.errors import DataError

_KEY = "fluid"
_READABLE_KEY = "prompt"


def save_png(image: Image.Image, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a PNG, whole or not at all, with `metadata` in its text chunks.

    The chunk `fluid` holds all of it as JSON; the chunk `prompt` repeats `metadata["prompt"]`, if there is one, for
    viewers that show text chunks. The same picture and metadata give the same bytes. Raises `TypeError` for what JSON
    can not hold, before any file is touched, and `OutputError` if the file can not be written.
    """
    chunks = PngImagePlugin.PngInfo()
    if isinstance(metadata.get(_READABLE_KEY), str):
        chunks.add_itxt(_READABLE_KEY, metadata[_READABLE_KEY])
    chunks.add_itxt(_KEY, json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False))
    content = io.BytesIO()
    image.save(content, format="PNG", pnginfo=chunks)
    write_bytes(path, content.getvalue())


def read_metadata(path: Path) -> dict[str, Any]:
    """What `save_png` wrote beside the pixels of a file.

    Raises `DataError` for a file that is missing, no PNG, or a PNG that Fluid did not write or whose text is damaged.
    """
    try:
        with Image.open(path) as image:
            # Text may stand after the pixels, as in files that another program saved again.
            image.load()
            text = getattr(image, "text", {}).get(_KEY)
    except FileNotFoundError:
        raise DataError(f"Expected a PNG {path}, found none.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"Expected {path} to be a PNG, found a file that can not be read as one: {error}.") from error
    if text is None:
        raise DataError(
            f"{path} does not say how it was made: expected a PNG written by Fluid, with a text chunk '{_KEY}'. "
            "Programs that edit or shrink pictures often leave such text out."
        )
    try:
        metadata = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"The text chunk '{_KEY}' of {path} is damaged: it is not valid JSON ({error}).") from error
    if not isinstance(metadata, dict):
        raise DataError(f"The text chunk '{_KEY}' of {path} is damaged: expected a JSON object.")
    return metadata
