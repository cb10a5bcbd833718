"""`fluid diagnose`: looks for known failures in a run, a saved model, or a folder of pictures."""

from pathlib import Path
from typing import Annotated

import typer

from fluid_core.commands import sampling_options as sampling
from fluid_core.commands.evaluation_options import DataName, DataOptions, Split, SplitName
from fluid_core.model_folder import model_folder


def diagnose(
    folder: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a run, of a saved model, or of pictures.", show_default=False),
    ],
    data: DataName = None,
    data_option: DataOptions = None,
    split: Split = SplitName.VALIDATION,
    model: Annotated[
        Path | None,
        typer.Option(
            help="For a folder of pictures: the run or saved model that drew them, whose tokenizer then sees them.",
            show_default=False,
        ),
    ] = None,
    num_images: Annotated[int, typer.Option(min=2, help="Pictures to draw at each guidance scale.")] = 64,
    guidance: Annotated[float, typer.Option(help="The scale you draw with; 1 is looked at in any case.")] = 3.0,
    strong_guidance: Annotated[float, typer.Option(help="A scale that is looked at as well.")] = 7.5,
    order: sampling.Order = None,
    order_option: sampling.OrderOptions = None,
    steps: sampling.Steps = None,
    head_steps: sampling.HeadSteps = None,
    head_backend: sampling.HeadBackend = sampling.BackendName.AUTO,
    head_option: sampling.HeadOptions = None,
    guidance_schedule: sampling.GuidanceSchedule = sampling.ScheduleName.CONSTANT,
    guidance_interval: sampling.GuidanceInterval = None,
    temperature: sampling.Temperature = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the pictures that are drawn, and of the draws of losses.")] = 0,
    data_seed: Annotated[int, typer.Option(min=0, help="Of the choice of real pictures.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 32,
    device: sampling.Device = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write everything to this file.", show_default=False)
    ] = None,
) -> None:
    """Look for known failures: grey patches, bright spots, drift, unused codes, a training gone wrong, ignored text.

    Says what was found, with figures, what was expected, and what to try. Exits with 0, whatever it found.
    """
    from fluid_core.commands.evaluation_options import chosen_data
    from fluid_core.diagnosis.diagnosis_run import DiagnosisRun
    from fluid_core.diagnosis.diagnosis_run import diagnose as look
    from fluid_core.diagnosis.finding import Verdict
    from fluid_core.diagnosis.report_text import report_lines
    from fluid_core.evaluation.result_file import write_result

    run = DiagnosisRun(
        folder=folder,
        settings=sampling.sampling_settings(
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
        strong_guidance=strong_guidance,
        num_images=num_images,
        data=None if data is None and not data_option else chosen_data(data, data_option, None),
        split=split.value,
        model=None if model is None else model_folder(model),
        seed=seed,
        data_seed=data_seed,
        batch_size=batch_size,
        device=device,
    )
    found = look(run, note=lambda text: typer.secho(text, err=True, fg=typer.colors.BRIGHT_BLACK))
    colours = {Verdict.FOUND: typer.colors.RED, Verdict.NOT_FOUND: typer.colors.GREEN}
    for verdict, line in report_lines(found.findings):
        if verdict is None:
            typer.echo(line)
        else:
            typer.secho(line, bold=True, fg=colours.get(verdict))
    if json_file is not None:
        write_result(json_file, found.record)
        typer.echo(f"Written to {json_file}")
