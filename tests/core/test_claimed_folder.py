"""A folder that one process alone writes to."""

import subprocess
import sys

import pytest

from fluid_core.claimed_folder import FolderInUseError, claimed_folder


def test_a_second_claim_is_refused_until_the_first_ends(tmp_path):
    """In another process as in this one; the message names the folder."""
    pytest.importorskip("fcntl", reason="this system has no such locks")
    folder = tmp_path / "a" / "b"
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from fluid_core.claimed_folder import claimed_folder\n"
        "with claimed_folder(Path(sys.argv[1])): (Path(sys.argv[1]) / 'x').write_text('x')\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    with claimed_folder(folder):
        with (
            pytest.raises(FolderInUseError, match=r"writes to .*b at this moment"),
            claimed_folder(folder),
        ):
            pass
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "FolderInUseError: Another process writes to" in refused.stderr
        assert list(folder.iterdir()) == []
        (folder / "mine").touch()
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0
    assert {path.name for path in folder.iterdir()} == {"mine", "x"}


def test_a_folder_made_in_vain_goes_again(tmp_path):
    """One that holds something stays, and so does one that was there before."""
    (tmp_path / "old").mkdir()

    def fail(folder, *, writes):
        with claimed_folder(folder):
            if writes:
                (folder / "x").touch()
            raise ValueError("stop")

    for name in ("new", "old", "filled"):
        with pytest.raises(ValueError, match="stop"):
            fail(tmp_path / name, writes=name == "filled")
    assert {path.name for path in tmp_path.iterdir()} == {"old", "filled"}
