"""Shows what is in the data sets: `python -m fluid_emoji.preview --out sheet.png [--data emoji]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fluid_core.contact_sheet import contact_sheet, save_image
from fluid_core.data.captioned_images import CaptionedImages
from fluid_core.errors import FluidError
from fluid_emoji.options import EmojiOptions, EmojiScenesOptions
from fluid_emoji.scenes.dataset import EmojiScenesDataset
from fluid_emoji.single_pictures import EmojiDataset

DATA_SETS = ("emoji", "emoji-scenes")


def preview(
    name: str, *, folder: str = "", image_size: int = 64, num_pictures: int = 40, split: str = "train", seed: int = 0
) -> Image.Image:
    """The first pictures of a data set with their captions. Raises as the data sets do."""
    data: CaptionedImages
    if name == "emoji":
        data = EmojiDataset(EmojiOptions(folder=folder), (image_size, image_size), split, seed)
    else:
        data = EmojiScenesDataset(EmojiScenesOptions(folder=folder), (image_size, image_size), split, seed)
    items = [data[index] for index in range(min(num_pictures, len(data)))]
    pictures = [Image.fromarray(((item.image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()) for item in items]
    tile_size = image_size * max(1, round(160 / image_size))
    title = f"{name}: {len(data):,} pictures of {image_size} x {image_size} pixels ({split}), the first {len(items)}"
    return contact_sheet(pictures, [item.caption for item in items], num_columns=8, tile_size=tile_size, title=title)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 1 with a message."""
    parser = argparse.ArgumentParser(prog="python -m fluid_emoji.preview", description="Draw a sheet of a data set.")
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--data", choices=DATA_SETS, default="emoji-scenes", help="which data set")
    parser.add_argument("--folder", default="", help="folder of the fetched emoji (default: the cache folder)")
    parser.add_argument("--image-size", type=int, default=64, help="pixels a side")
    parser.add_argument("--num-pictures", type=int, default=40)
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    try:
        sheet = preview(
            chosen.data,
            folder=chosen.folder,
            image_size=chosen.image_size,
            num_pictures=chosen.num_pictures,
            split=chosen.split,
            seed=chosen.seed,
        )
        save_image(sheet, chosen.out)
    except FluidError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Wrote {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
