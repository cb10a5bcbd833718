"""What the files of a folder were when they were written, to tell later whether they still are."""

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fluid_core.errors import CheckpointError

_CHUNK = 1 << 24


def file_record(path: Path) -> dict[str, Any]:
    """Length in bytes and CRC-32 of a file."""
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
        return {"bytes": file.tell(), "crc32": f"{checksum:08x}"}


def file_records(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """The records of files of one folder, by name."""
    return {path.name: file_record(path) for path in paths}


def check_files(folder: Path, records: Mapping[str, Mapping[str, Any]], *, part: int = 0, num_parts: int = 1) -> None:
    """Raise `CheckpointError` for the first file that is missing or not what its record says.

    Of several processes each checks one `part` of the files.
    """
    for name in sorted(records)[part::num_parts]:
        path, expected = folder / name, dict(records[name])
        try:
            size = path.stat().st_size
            found = file_record(path) if size == expected.get("bytes") else {"bytes": size}
        except FileNotFoundError:
            raise CheckpointError(f"Expected a file {path}, found none.") from None
        except OSError as error:
            raise CheckpointError(f"{path} can not be read: {error.strerror or error}.") from error
        if found != expected:
            checksum = f" with checksum {found['crc32']}" if "crc32" in found else ""
            raise CheckpointError(
                f"{path} is damaged: expected {expected.get('bytes')} bytes with checksum {expected.get('crc32')}, "
                f"found {found['bytes']} bytes{checksum}."
            )
