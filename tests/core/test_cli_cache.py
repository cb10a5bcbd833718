"""`fluid cache build` and `fluid cache check`: what they print, and how they fail."""

import pytest
from typer.testing import CliRunner

from fluid_core.commands.program import app
from fluid_core.errors import CheckpointError

CONFIG = """
[tokenizer]
name = "pixel-patches"
options = { image_size = 24, patch_size = 8 }

[text_encoder]
name = "bytes"
options = { width = 16 }

[order]
name = "random"

[head]
name = "diffusion"
options = { depth = 1 }

[backbone]
size = "debug"

[data]
name = "shapes"
options = { num_examples = 20, num_validation_examples = 4 }

[training]
num_steps = 5
batch_size = 4
num_fit_images = 8
num_validation_images = 4
"""


@pytest.fixture
def fluid(tmp_path, monkeypatch):
    """A function that runs `fluid cache build` or `check` with arguments, in a folder with a configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(CONFIG)

    def run(*arguments):
        result = CliRunner().invoke(app, ["cache", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_build_says_what_it_will_write_and_check_what_is_there(fluid, tmp_path):
    """An estimate first, then the cache, then nothing to do; the check names parts, counts and sizes."""
    estimate = fluid("build", "small.toml", "--out", "cache", "--device", "cpu", "--estimate")
    assert estimate.startswith("24 images to encode: about 16")
    assert not (tmp_path / "cache").exists()
    told = fluid("build", "small.toml", "data.options.num_examples=30", "--out", "cache", "--device", "cpu")
    assert told.splitlines()[0].startswith("34 images to encode: about 2")
    assert "Wrote 30 of train, 4 of validation: 23" in told
    again = fluid("build", "small.toml", "data.options.num_examples=30", "--out", "cache", "--device", "cpu")
    assert again == "The cache in cache is whole already: nothing to do.\n"

    lines = fluid("check", "cache").splitlines()
    assert lines[0] == "images     24 x 24 pixels, crop: as the data set makes them"
    assert lines[1].startswith("source     shapes of fluid-core ")
    assert "num_examples = 30" in lines[1]
    assert lines[2].startswith("tokenizer  pixel-patches (identity ")
    assert lines[3] == "tokens     patches 9 x 192 as float32"
    assert lines[4] == "text       captions alone"
    assert lines[5].startswith("train      30 items in 1 shard, 20")
    assert lines[-1] == "2 shards checked: as they were written."


def test_check_finds_a_changed_byte(fluid, tmp_path):
    """Sizes alone do not tell; checksums name the shard."""
    fluid("build", "small.toml", "--out", "cache", "--device", "cpu", "--both-flips", "--no-validation")
    shard = tmp_path / "cache" / "train-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(bytes(content))
    assert "1 shard there in full size." in fluid("check", "cache", "--no-checksums")
    with pytest.raises(CheckpointError, match=r"train-00000.safetensors: SHA-256"):
        fluid("check", "cache")
