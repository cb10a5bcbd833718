"""Edit pictures with a trained model: draw parts anew, continue beyond the edges, vary.

Command:   python examples/editing.py                           (with the model that comes with the repository)
           python examples/editing.py --model runs/causal       (with one of your own, trained on `shapes`)
Shows:     `FluidPipeline.inpaint`, `.outpaint` and `.variation`, with any order that can edit: the first four results
           of one seed
Runtime:   seconds
Leaves:    editing-ORDER.png in the output folder (runs/edited), named by the model's order: a row for each edit, with
           the given picture, what of it is kept, and four results
Expected:  kept pixels are the given picture's to the last bit; what is drawn goes with them, and with the prompt
           about as often as the model's scores say for whole pictures
"""

import argparse
from pathlib import Path

import attrs
import torch
from PIL import Image

from fluid_core import FluidPipeline
from fluid_core.contact_sheet import contact_sheet, save_image
from fluid_core.data.shapes.drawing import draw
from fluid_core.data.shapes.scene import Scene, SceneObject
from fluid_core.pipeline import PipelineOutput, to_pil
from fluid_core.pipeline.call_settings import CallArguments

MODEL = Path(__file__).parent / "pretrained" / "fluid-shapes"
GREY = 128
# Centres of the four quarters, where objects of the demo's data stand.
LEFT, RIGHT = 0.25, 0.75


@attrs.frozen(kw_only=True)
class Row:
    """One edit: the given picture, what of it is kept, and the results."""

    given: Image.Image
    kept: Image.Image
    name: str
    prompt: str
    results: list[Image.Image]


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL, help="a saved model, or the run folder that has it")
    parser.add_argument("--out", type=Path, default=Path("runs/edited"), help="folder for the picture")
    parser.add_argument("--seed", type=int, default=0, help="seed of all results")
    arguments = parser.parse_args()
    folder = arguments.model / "model" if (arguments.model / "model").is_dir() else arguments.model
    pipeline = FluidPipeline.from_pretrained(folder)
    settings: CallArguments = {
        "guidance_scale": 1.5,
        "temperature": 0.8,
        "num_images_per_prompt": 4,
        "seed": arguments.seed,
    }
    rows = [
        inpainted(pipeline, "a circle and a triangle", settings),
        inpainted(pipeline, "two circles", settings),
        outpainted(pipeline, "a circle and a triangle", settings),
        varied(pipeline, "two triangles", settings),
    ]
    pictures, labels = [], []
    for row in rows:
        pictures += [row.given, row.kept, *row.results]
        labels += ["given", f"kept by {row.name}", *[row.prompt] * len(row.results)]
    path = arguments.out / f"editing-{pipeline.model.config.order.name}.png"
    save_image(contact_sheet(pictures, labels, num_columns=6, tile_size=144), path)
    print(f"Look at {path}.")


def inpainted(pipeline: FluidPipeline, prompt: str, settings: CallArguments) -> Row:
    """The right half drawn anew, beside a red circle."""
    given = scene(pipeline, ("circle", "red", LEFT, LEFT), ("square", "blue", RIGHT, RIGHT))
    mask = Image.new("1", given.size)
    mask.paste(1, (given.width // 2, 0, given.width, given.height))
    result = pipeline.inpaint(prompt, given, mask, **settings)
    return finished(given, mask, "inpaint", prompt, result)


def outpainted(pipeline: FluidPipeline, prompt: str, settings: CallArguments) -> Row:
    """A quarter of a picture, and the rest drawn to it."""
    given = scene(pipeline, ("circle", "yellow", RIGHT, LEFT))
    side = given.width // 2
    box = (side, 0, given.width, side)
    quarter = given.crop(box)
    result = pipeline.outpaint(prompt, quarter, box, **settings)
    mask = Image.new("1", given.size, 1)
    mask.paste(0, box)
    return finished(given, mask, "outpaint", prompt, result, shown=quarter)


def varied(pipeline: FluidPipeline, prompt: str, settings: CallArguments) -> Row:
    """Three tokens in ten of a picture kept, the same ones in all results."""
    given = scene(pipeline, ("triangle", "purple", LEFT, RIGHT), ("triangle", "yellow", RIGHT, LEFT))
    grid = pipeline.model.tokenizer.token_space.grid
    chance = torch.rand(grid.height, grid.width, generator=torch.Generator().manual_seed(3))
    keep = chance < chance.quantile(0.3)
    result = pipeline.variation(given, prompt, keep=keep, **settings)
    mask = Image.fromarray((~keep).numpy()).resize(given.size, Image.Resampling.NEAREST)
    return finished(given, mask, "variation", prompt, result)


def scene(pipeline: FluidPipeline, *objects: tuple[str, str, float, float]) -> Image.Image:
    """A picture as the demo's data set draws them, of shapes, their colours and places."""
    side = pipeline.model.tokenizer.image_size[0]
    # Two pixels of 32 stay free around the largest object of a quarter.
    size = 14 / 32
    things = [SceneObject(shape=shape, color=color, center=(x, y), size=size) for shape, color, x, y in objects]
    return to_pil((draw(Scene(objects=tuple(things)), side)[None] + 1) / 2)[0]


def finished(
    given: Image.Image,
    mask: Image.Image,
    name: str,
    prompt: str,
    result: PipelineOutput,
    *,
    shown: Image.Image | None = None,
) -> Row:
    """The row, with grey over what is drawn."""
    kept = given.copy()
    kept.paste((GREY, GREY, GREY), mask=mask)
    return Row(given=shown or given, kept=kept, name=name, prompt=prompt, results=result.images)


if __name__ == "__main__":
    main()
