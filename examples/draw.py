"""Draw with the trained model that comes with the repository.

Command:   python examples/draw.py                                     (make demo begins with it)
           python examples/draw.py "two green crosses" "a red circle to the left of a yellow square" --seed 7
           python examples/draw.py --score 50                          (the scores of its model card)
Shows:     loading a saved model, prompts to pictures, one seed per picture
Runtime:   seconds
Leaves:    pictures.png in the output folder (runs/drawn): every prompt with its picture
Expected:  shapes and numbers as the prompts say, colours and places mostly; examples/pretrained says how often
"""

import argparse
import time
from pathlib import Path

from rich.console import Console

from fluid_core import FluidPipeline, load_config
from fluid_core.assembly import build_dataset
from fluid_core.contact_sheet import contact_sheet, save_image
from fluid_core.data.captioned_images import JudgedPrompts
from fluid_core.evaluation.prompt_scores import draw_prompts, judge_pictures
from fluid_core.exchange import DatasetContext

CONFIG = Path(__file__).parent / "configs" / "shapes.toml"
MODEL = Path(__file__).parent / "pretrained" / "fluid-shapes"
# Two of each kind that the six tasks ask for.
PROMPTS = (
    "a purple triangle",
    "a yellow cross",
    "a green circle and a red square",
    "a blue cross and a yellow triangle",
    "two blue circles",
    "two purple triangles",
    "a green square",
    "a blue circle",
    "a red cross above a blue circle",
    "a green triangle to the left of a purple square",
    "a yellow square and a red circle",
    "a purple cross and a green circle",
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
    if arguments.score:
        _score(pipeline, arguments)


def _score(pipeline: FluidPipeline, arguments: argparse.Namespace) -> None:
    """Shares of right pictures for prompts of the six tasks, by the judge of the data set."""
    data = load_config(CONFIG).data
    assert data is not None
    judge = build_dataset(data, DatasetContext(image_size=pipeline.model.tokenizer.image_size, split="validation"))
    assert isinstance(judge, JudgedPrompts)
    prompts = judge.evaluation_prompts(num_per_task=arguments.score, seed=1)
    sampling = {"guidance_scale": arguments.guidance, "temperature": arguments.temperature}
    scores = judge_pictures(judge, prompts, draw_prompts(pipeline, prompts, seed=arguments.seed, **sampling))
    for task, share in {**scores.by_task, "overall": scores.overall}.items():
        console.print(f"{task:14} {share:.2f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", nargs="*", help="what to draw; default: twelve prompts")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first picture; each further one has the next")
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of a saved model")
    parser.add_argument("--score", type=int, default=0, metavar="N", help="also draw and judge N prompts of each task")
    parser.add_argument("--out", type=Path, default=Path("runs/drawn"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
