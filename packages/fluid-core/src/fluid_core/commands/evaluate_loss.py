"""`fluid evaluate loss`: the validation loss of a saved model."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fluid_core.commands.evaluation_options import DataName, DataOptions, Overwrite, Split, SplitName
from fluid_core.commands.sampling_options import Device


class PrecisionName(StrEnum):
    """The precisions of `fluid_core.training.step.precision`, as choices of the command line."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    AUTO = "auto"


def loss(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model, or of a run.", show_default=False)],
    data: DataName = None,
    data_option: DataOptions = None,
    split: Split = SplitName.VALIDATION,
    images: Annotated[int, typer.Option(min=1, help="How many pictures; fewer if there are fewer.")] = 1000,
    draws: Annotated[
        int, typer.Option(min=1, help="Draws of order, mask and noise for each picture; more are more exact.")
    ] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the result. A measurement that was stopped goes on there.")] = (
        Path("validation-loss")
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    data_seed: Annotated[int, typer.Option(min=0, help="Of the choice of pictures.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 64,
    device: Device = "auto",
    precision: Annotated[
        PrecisionName, typer.Option(help="Of the backbone; losses are in float32.")
    ] = PrecisionName.FLOAT32,
    overwrite: Overwrite = False,
) -> None:
    """Measure the training loss on pictures the model has not seen, under draws that are the same for every model.

    Under torchrun, several processes share the pictures.
    """
    from fluid_core.commands.evaluation_options import chosen_data
    from fluid_core.evaluation.evaluation_data import EvaluationData
    from fluid_core.evaluation.validation_loss_run import (
        PER_IMAGE_FILE,
        RESULT_FILE,
        ValidationLossRun,
        measure_validation_loss,
    )
    from fluid_core.model_folder import model_folder
    from fluid_core.sampling_run.together import together
    from fluid_core.training.processes import Processes

    processes = Processes.join(backend="gloo")

    def planned() -> ValidationLossRun:
        return ValidationLossRun(
            model=model_folder(model),
            data=EvaluationData(
                data=chosen_data(data, data_option, model), split=split.value, num_images=images, seed=data_seed
            ),
            out=out,
            num_draws=draws,
            seed=seed,
            batch_size=batch_size,
            device=device,
            precision=precision.value,
            overwrite=overwrite,
        )

    record = measure_validation_loss(together(processes, planned), processes=processes)
    if processes.is_first:
        values = record.values
        error = "" if values["standard_error"] is None else f" +- {values['standard_error']:.4g}"
        weights = "" if record.model is None else f"{record.model.folder}, {record.model.weights} weights, "
        typer.echo(
            f"validation loss {values['loss']:.4g}{error}  ({weights}{record.num_images} pictures, "
            f"{values['num_tokens']} tokens)"
        )
        typer.echo("   known    loss")
        for row in values["loss_by_known_share"]:
            if row["loss"] is not None:
                typer.echo(f"{100 * row['from']:4.0f} %..   {row['loss']:.4g}")
        typer.echo(f"Written: {out / RESULT_FILE} and {out / PER_IMAGE_FILE}")
    processes.leave()
