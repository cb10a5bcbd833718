"""What this package offers to Fluid. Must stay light: listing components loads it, and torch takes seconds."""

from pathlib import Path
from typing import TYPE_CHECKING

from fluid_core.components import DatasetComponent
from fluid_core.hookspecs import hookimpl
from fluid_emoji.options import EmojiOptions, EmojiScenesOptions

if TYPE_CHECKING:
    from fluid_core.exchange import DatasetContext
    from fluid_emoji.scenes.dataset import EmojiScenesDataset
    from fluid_emoji.single_pictures import EmojiDataset


def _build_emoji(options: EmojiOptions, context: "DatasetContext") -> "EmojiDataset":
    from fluid_emoji.single_pictures import EmojiDataset

    return EmojiDataset(options, context.image_size, context.split, context.seed)


def _build_emoji_scenes(options: EmojiScenesOptions, context: "DatasetContext") -> "EmojiScenesDataset":
    from fluid_emoji.scenes.dataset import EmojiScenesDataset

    return EmojiScenesDataset(options, context.image_size, context.split, context.seed)


def _example_emoji(folder: Path) -> EmojiOptions:
    from fluid_emoji.made_up_emoji import write_made_up_folder

    write_made_up_folder(folder)
    return EmojiOptions(folder=str(folder), validation_fraction=0.25)


def _example_emoji_scenes(folder: Path) -> EmojiScenesOptions:
    from fluid_emoji.made_up_emoji import MADE_UP_NAMES, write_made_up_folder

    write_made_up_folder(folder)
    return EmojiScenesOptions(folder=str(folder), objects=MADE_UP_NAMES)


@hookimpl
def fluid_register_datasets() -> tuple[DatasetComponent, ...]:
    """Single emoji, and scenes composed of them."""
    return (
        DatasetComponent(
            name="emoji",
            summary="Captioned emoji in three drawing styles; fetch them with python -m fluid_emoji.fetch",
            options=EmojiOptions,
            build=_build_emoji,
            example=_example_emoji,
        ),
        DatasetComponent(
            name="emoji-scenes",
            summary="Scenes composed of emoji with exact ground truth for the tasks of GenEval, and a judge",
            options=EmojiScenesOptions,
            build=_build_emoji_scenes,
            example=_example_emoji_scenes,
        ),
    )
