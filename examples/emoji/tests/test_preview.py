"""The contact sheet of a data set."""

import pytest
from fluid_emoji.preview import main, preview
from PIL import Image


def test_a_sheet_is_written(made_up_folder, tmp_path):
    """The command writes a picture with as many rows as it needs."""
    sheet = tmp_path / "sheet.png"
    arguments = ["--data", "emoji", "--folder", str(made_up_folder), "--out", str(sheet), "--num-pictures", "9"]
    assert main(arguments) == 0
    with Image.open(sheet) as opened:
        assert opened.width > 8 * 128
        assert opened.height > 2 * 128


def test_pictures_are_those_of_the_data_set(made_up_folder):
    """Sheets of different splits differ, and equal calls give equal sheets."""
    sheets = [preview("emoji", folder=str(made_up_folder), num_pictures=2, split=split) for split in ("train", "train")]
    assert sheets[0].tobytes() == sheets[1].tobytes()
    other = preview("emoji", folder=str(made_up_folder), num_pictures=2, seed=1)
    assert other.tobytes() != sheets[0].tobytes()


@pytest.mark.parametrize("name", ["emoji", "emoji-scenes"])
def test_a_missing_folder_ends_with_a_message(name, tmp_path, capsys):
    """Exit code 1, and the command that fetches."""
    assert main(["--data", name, "--folder", str(tmp_path), "--out", str(tmp_path / "sheet.png")]) == 1
    assert "python -m fluid_emoji.fetch" in capsys.readouterr().err
