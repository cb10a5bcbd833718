"""Pictures and masks in files."""

from pathlib import Path

from PIL import Image, ImageOps

from fluid_core.errors import UnreadableImageError


def open_picture(path: Path) -> Image.Image:
    """The picture of a file, turned as its EXIF data says.

    Raises `UnreadableImageError` if it is missing, damaged or no picture.
    """
    try:
        with Image.open(path) as opened:
            # A copy, which has read all of the file.
            return ImageOps.exif_transpose(opened)
    except FileNotFoundError:
        raise UnreadableImageError(f"Expected a picture at {path}, found no file.") from None
    # Damaged files make decoders raise almost anything: SyntaxError, struct.error, OverflowError, ...
    except Exception as error:
        cause = str(error).rstrip(".") or type(error).__name__
        raise UnreadableImageError(f"Could not read the picture {path}: {cause}.") from error
