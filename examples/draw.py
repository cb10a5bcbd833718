"""Draw with the trained model that comes with the repository.

Command:   python examples/draw.py                                     (make demo begins with it)
           python examples/draw.py "two green crosses" "a red circle to the left of a yellow square" --seed 7
Shows:     loading a saved model, prompts to pictures, one seed per picture
Runtime:   seconds
Leaves:    pictures.png in the output folder (runs/drawn): every prompt with its picture
Expected:  shapes, colours, numbers and places as the prompts say, mostly; examples/pretrained says how often
"""

import argparse
import time
from pathlib import Path

from rich.console import Console

from fluid_core import FluidPipeline
from fluid_core.contact_sheet import contact_sheet, save_image

MODEL = Path(__file__).parent / "pretrained" / "fluid-shapes"
# Two of each kind that the six tasks ask for, written down before any of them was drawn.
PROMPTS = (
    "a purple triangle",
    "a yellow cross",
    "a green circle and a red square",
    "a blue cross and an orange triangle",
    "three blue circles",
    "four orange squares",
    "a red cross above a blue circle",
    "a green triangle to the left of a purple square",
    "an orange circle below a green cross",
    "two purple triangles",
    "a yellow square to the right of a red circle",
    "a purple circle",
)
console = Console()


def main() -> None:
    """Draw the prompts and write the sheet."""
    arguments = _arguments()
    started = time.perf_counter()
    pipeline = FluidPipeline.from_pretrained(arguments.model)
    prompts = list(arguments.prompts or PROMPTS)
    seeds = [arguments.seed + index for index in range(len(prompts))]
    output = pipeline(prompts, seed=seeds, guidance_scale=arguments.guidance, temperature=arguments.temperature)
    labels = [f"{prompt} · seed {seed}" for prompt, seed in zip(prompts, seeds, strict=True)]
    path = arguments.out / "pictures.png"
    save_image(contact_sheet(output.images, labels), path)
    console.print(f"{len(prompts)} pictures in {time.perf_counter() - started:.0f} s: {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", nargs="*", help="what to draw; default: twelve prompts")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first picture; each further one has the next")
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of a saved model")
    parser.add_argument("--out", type=Path, default=Path("runs/drawn"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
