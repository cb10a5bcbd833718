"""`fluid evaluate clip-score`: how well pictures fit their captions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluid_core.commands import evaluation_options as options
from fluid_core.commands import sampling_options as sampling
from fluid_core.commands.sampling_options import BackendName, ScheduleName

if TYPE_CHECKING:
    from fluid_core.evaluation.clip_score_run import ClipScoreRun
    from fluid_core.sampling_run.settings import SamplingSettings


def clip_score(
    model: options.ModelOrNothing = None,
    clip: Annotated[Path, typer.Option(help="Folder of a CLIP model, as transformers saves it.")] = Path("clip"),
    images: options.Images = None,
    captions: options.Captions = None,
    data: options.DataName = None,
    data_option: options.DataOptions = None,
    split: options.Split = options.SplitName.VALIDATION,
    num_images: options.NumImages = None,
    prefix: Annotated[str, typer.Option(help="Put before each caption, such as 'A photo depicts'.")] = "",
    out: options.Out = Path("evaluation"),
    seed: options.Seed = 0,
    data_seed: options.DataSeed = 0,
    order: sampling.Order = None,
    order_option: sampling.OrderOptions = None,
    steps: sampling.Steps = None,
    head_steps: sampling.HeadSteps = None,
    head_backend: sampling.HeadBackend = BackendName.AUTO,
    head_option: sampling.HeadOptions = None,
    guidance: sampling.Guidance = 1.0,
    guidance_schedule: sampling.GuidanceSchedule = ScheduleName.CONSTANT,
    guidance_interval: sampling.GuidanceInterval = None,
    temperature: sampling.Temperature = 1.0,
    batch_size: options.BatchSize = 32,
    device: sampling.Device = "auto",
    overwrite: options.Overwrite = False,
) -> None:
    """Measure the CLIP score of pictures: 100 max(cos, 0) between each and its caption, on average.

    Pictures are drawn as PNG into OUT/images, for the captions of a file or of a data set; --images takes a folder
    instead, such as that of `fluid sample`, whose pictures tell their prompts.
    """
    from fluid_core.evaluation.clip_score_run import RESULT_FILE, measure_clip_score
    from fluid_core.sampling_run.together import together
    from fluid_core.training.processes import Processes

    processes = Processes.join(backend="gloo")

    def settings() -> "SamplingSettings":
        return sampling.sampling_settings(
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
        )

    def planned() -> "ClipScoreRun":
        from fluid_core.evaluation.clip_score_run import ClipScoreRun

        pictures = options.pictures_choice(
            model=model,
            images=images,
            captions=captions,
            data=data,
            data_option=data_option,
            split=split,
            data_seed=data_seed,
            num_images=num_images,
            out=out,
            settings=settings,
            seed=seed,
            batch_size=batch_size,
            device=device,
            overwrite=overwrite,
            needs_data=False,
        )
        return ClipScoreRun(pictures=pictures, clip=clip, prefix=prefix, batch_size=batch_size, device=device)

    run = together(processes, planned)
    record = measure_clip_score(run, processes=processes, note=options.noting(processes))
    if processes.is_first:
        typer.echo(
            f"CLIP score {record.values['clip_score']:.3f}, mean cosine {record.values['mean_cosine']:.4f}  "
            f"({record.num_images} pictures)"
        )
        for note in record.notes:
            typer.secho(note, err=True)
        typer.echo(f"Written: {out / RESULT_FILE}")
    processes.leave()
