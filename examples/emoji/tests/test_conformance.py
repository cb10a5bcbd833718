"""Both data sets keep the contract of every data set: the suite of core, run on the installed components."""

from fluid_core.testing import DatasetSuite


class TestEmoji(DatasetSuite):
    """Single pictures, which need not be square."""

    component = "emoji"
    image_sizes = ((32, 32), (48, 64), (100, 100))


class TestEmojiScenes(DatasetSuite):
    """Composed scenes."""

    component = "emoji-scenes"
    image_sizes = ((32, 32), (48, 48), (100, 100))
