"""`fluid evaluate geneval` and `fluid evaluate geneval-judge`: pictures for GenEval's prompts, and its verdict."""

from pathlib import Path
from typing import Annotated

import typer

from fluid_core.commands.sampling_options import (
    BackendName,
    Device,
    Guidance,
    GuidanceInterval,
    GuidanceSchedule,
    HeadBackend,
    HeadOptions,
    HeadSteps,
    Order,
    OrderOptions,
    ScheduleName,
    Steps,
    Temperature,
)


def geneval(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model, or of a run.", show_default=False)],
    metadata: Annotated[
        Path, typer.Option(help="GenEval's prompts: its file evaluation_metadata.jsonl.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the pictures. A run that was stopped goes on there.", show_default=False)
    ],
    images_per_prompt: Annotated[int, typer.Option(min=1, help="Pictures for each prompt.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same pictures.")] = 42,
    order: Order = None,
    order_option: OrderOptions = None,
    steps: Steps = None,
    head_steps: HeadSteps = None,
    head_backend: HeadBackend = BackendName.AUTO,
    head_option: HeadOptions = None,
    guidance: Guidance = 1.0,
    guidance_schedule: GuidanceSchedule = ScheduleName.CONSTANT,
    guidance_interval: GuidanceInterval = None,
    temperature: Temperature = 1.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures drawn at once.")] = 16,
    grid: Annotated[bool, typer.Option(help="Also all pictures of a prompt side by side.")] = True,
    device: Device = "auto",
) -> None:
    """Draw the pictures that GenEval judges, in its folder layout.

    Under torchrun, several processes share the pictures. A run that was stopped goes on when it is started again.
    """
    from fluid_core.commands.sampling_options import sampling_settings
    from fluid_core.evaluation.geneval.drawing import GenEvalDrawing, draw_geneval
    from fluid_core.model_folder import model_folder
    from fluid_core.sampling_run.together import together
    from fluid_core.training.processes import Processes

    # They share no tensors: what they tell each other are a few words.
    processes = Processes.join(backend="gloo")

    def planned() -> GenEvalDrawing:
        return GenEvalDrawing(
            model=model_folder(model),
            metadata=metadata,
            out=out,
            settings=sampling_settings(
                order=order,
                order_option=order_option,
                steps=steps,
                head_steps=head_steps,
                head_backend=head_backend,
                head_option=head_option,
                guidance=guidance,
                guidance_schedule=guidance_schedule,
                guidance_interval=guidance_interval,
                temperature=temperature,
            ),
            num_pictures=images_per_prompt,
            seed=seed,
            batch_size=batch_size,
            device=device,
            grid=grid,
        )

    finished = draw_geneval(
        together(processes, planned),
        processes=processes,
        told=lambda image, path: typer.echo(f"{path}  seed {image.seed}  {image.prompt}"),
    )
    if processes.is_first:
        typer.echo(
            f"{finished.folder}: {finished.num_images} pictures, {finished.num_drawn} of them drawn now "
            f"({finished.weights} weights). Judge them: fluid evaluate geneval-judge {finished.folder}"
        )
    processes.leave()


def geneval_judge(
    pictures: Annotated[Path, typer.Argument(help="Folder in GenEval's layout.", show_default=False)],
    detector: Annotated[
        Path,
        typer.Option(
            help="Folder of a Mask2Former model, such as facebook/mask2former-swin-small-coco-instance.",
            show_default=False,
        ),
    ],
    clip: Annotated[
        Path,
        typer.Option(help="Folder of a CLIP model, such as openai/clip-vit-large-patch14.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results; by default judged, in that of the pictures.", show_default=False),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Detections must be surer than this.")] = 0.3,
    counting_threshold: Annotated[float, typer.Option(help="The same in the task counting.")] = 0.9,
    max_objects: Annotated[int, typer.Option(min=1, help="Detections of one class that are looked at.")] = 16,
    max_overlap: Annotated[float, typer.Option(help="Overlap from which the less sure of two goes; 1: none.")] = 1.0,
    position_threshold: Annotated[float, typer.Option(help="Share of both sizes that is no offset yet.")] = 0.1,
    background: Annotated[
        str, typer.Option(help="Colour around an object whose colour is judged; original: what is there.")
    ] = "#999",
    crop: Annotated[bool, typer.Option(help="Judge the colour on the object's box alone.")] = True,
    device: Device = "auto",
) -> None:
    """Judge pictures by GenEval's rules, with a detector and CLIP from folders on this machine.

    Thresholds other than the defaults give figures that do not compare with published ones.
    """
    from fluid_core.evaluation.geneval.judging import RESULTS_FILE, SUMMARY_FILE, GenEvalJudging, judge_geneval
    from fluid_core.evaluation.geneval.scoring import JudgeSettings
    from fluid_core.training.processes import Processes

    processes = Processes.join(backend="gloo")
    judging = GenEvalJudging(
        pictures=pictures,
        detector=detector,
        clip=clip,
        out=out or pictures / "judged",
        settings=JudgeSettings(
            score=threshold,
            counting_score=counting_threshold,
            max_objects=max_objects,
            max_overlap=max_overlap,
            position=position_threshold,
            background=background,
            crop=crop,
        ),
        device=device,
    )
    record = judge_geneval(judging, processes=processes)
    if processes.is_first:
        for task, figures in record.values["by_task"].items():
            typer.echo(
                f"{task:<14} {100 * figures['score']:6.2f} %  ({figures['num_correct']} of {figures['num_pictures']})"
            )
        typer.echo(f"{'overall':<14} {record.values['overall']:8.5f}  (mean of the tasks)")
        for note in record.notes:
            typer.echo(f"Note: {note}", err=True)
        typer.echo(f"Written: {judging.out / RESULTS_FILE} and {judging.out / SUMMARY_FILE}")
    processes.leave()
