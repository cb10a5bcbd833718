"""A folder of made-up emoji for all tests: none of them needs the network."""

from pathlib import Path

import pytest
from fluid_emoji.made_up_emoji import MADE_UP_NAMES, write_made_up_folder
from fluid_emoji.options import EmojiScenesOptions
from fluid_emoji.scenes.dataset import EmojiScenesDataset


@pytest.fixture(scope="session")
def made_up_folder(tmp_path_factory) -> Path:
    """A dozen blobs in two styles."""
    folder = tmp_path_factory.mktemp("emoji")
    write_made_up_folder(folder)
    return folder


@pytest.fixture(scope="session")
def scenes(made_up_folder):
    """A function that builds scenes over the made-up emoji."""

    def build(split="train", *, side=64, seed=0, **options) -> EmojiScenesDataset:
        chosen = EmojiScenesOptions(**{"folder": str(made_up_folder), "objects": MADE_UP_NAMES} | options)
        return EmojiScenesDataset(chosen, (side, side), split, seed)

    return build
