"""Pictures for GenEval's prompts, drawn as `fluid sample` draws: in several processes, and again after a kill."""

from collections.abc import Callable
from pathlib import Path

import attrs

from fluid_core.errors import OutputError
from fluid_core.evaluation.geneval.folder import complete_folder, picture_name, prompt_folders
from fluid_core.evaluation.geneval.prompts import read_prompts
from fluid_core.evaluation.geneval.words import NUM_PICTURES
from fluid_core.sampling_run.folder import RUN_FILE
from fluid_core.sampling_run.plan import PlannedImage
from fluid_core.sampling_run.prompts_file import Prompt
from fluid_core.sampling_run.run import FinishedRun, SamplingRun, draw_pictures
from fluid_core.sampling_run.settings import SamplingSettings
from fluid_core.sampling_run.together import together
from fluid_core.training.processes import Processes

OFFICIAL_SEED = 42
"""Seed of GenEval's own script. It sets it anew for each prompt; here every picture has a seed of its own from it."""


@attrs.frozen(kw_only=True)
class GenEvalDrawing:
    """What to draw, and where."""

    model: Path
    """Folder of a saved model."""

    metadata: Path
    """File of prompts, such as the official `evaluation_metadata.jsonl`."""

    out: Path
    settings: SamplingSettings
    num_pictures: int = NUM_PICTURES
    seed: int = OFFICIAL_SEED
    batch_size: int = 16
    device: str = "auto"
    grid: bool = True


def draw_geneval(
    drawing: GenEvalDrawing, *, processes: Processes, told: Callable[[PlannedImage, Path], None]
) -> FinishedRun:
    """Draw what is missing of the pictures, each of the processes its share, in GenEval's layout.

    Metadata and grids follow when all pictures are there. Raises `DataError` for prompts that are not GenEval's,
    `OutputError` for a folder that holds pictures of another run or of none, and what `draw_pictures` raises.
    """
    prompts = together(processes, lambda: read_prompts(drawing.metadata))

    def planned() -> SamplingRun:
        if prompt_folders(drawing.out) and not (drawing.out / RUN_FILE).exists():
            raise OutputError(
                f"Expected {drawing.out} to be empty or to hold an earlier part of this run, found folders such as "
                f"{prompt_folders(drawing.out)[0].name} and no {RUN_FILE}. Choose another folder (--out)."
            )
        return SamplingRun(
            model=drawing.model,
            prompts=[
                Prompt(
                    text=prompt.text,
                    metadata={name: value for name, value in prompt.metadata.items() if name != "prompt"},
                    source=prompt.source,
                )
                for prompt in prompts
            ],
            out=drawing.out,
            settings=drawing.settings,
            images_per_prompt=drawing.num_pictures,
            seed=drawing.seed,
            batch_size=drawing.batch_size,
            device=drawing.device,
            name_of=picture_name,
        )

    finished = draw_pictures(together(processes, planned), processes=processes, told=told)

    def complete() -> None:
        if processes.is_first:
            complete_folder(drawing.out, prompts, num_pictures=drawing.num_pictures, grid=drawing.grid)

    together(processes, complete)
    return finished
