"""A folder for one process alone, while it writes there."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluid_core.atomic_files import check_writable
from fluid_core.errors import OutputError


class FolderInUseError(OutputError):
    """Another process writes to the folder at this moment."""


@contextmanager
def claimed_folder(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is made if need be, and goes again if nothing was written to it.

    Raises `OutputError` where nothing can be written, and `FolderInUseError` if another process holds it. Where the
    system has no such locks (Windows), and on network drives without them, processes are trusted to differ.
    """
    is_new = not folder.exists()
    check_writable(folder)
    try:
        with _locked(folder):
            yield
    finally:
        if is_new:
            # Not empty if all went well, or if somebody else writes there: then it stays.
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:
        yield
        return
    # The folder itself is locked, so that no file is left behind; the system lets go of it however the process ends.
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUseError(
                f"Another process writes to {folder} at this moment. Wait for it, or choose another folder (--out)."
            ) from None
        except OSError:
            # No locks on this drive.
            pass
        yield
    finally:
        os.close(handle)
