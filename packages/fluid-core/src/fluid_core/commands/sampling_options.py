"""Options that all commands share which draw pictures: with which model, in which order, with which settings."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fluid_core.sampling_run.settings import SamplingSettings


class ScheduleName(StrEnum):
    """The guidance schedules of `fluid_core.guidance`, as choices of the command line."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"
    INTERVAL = "interval"


class BackendName(StrEnum):
    """The backends of `fluid_core.exchange.SamplerBackend`, as choices of the command line."""

    AUTO = "auto"
    REFERENCE = "reference"
    FUSED = "fused"


Order = Annotated[
    str | None,
    typer.Option(help="An order by its name, such as halton; by default the model's own.", show_default=False),
]
OrderOptions = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="An option of that order, such as steps=arccos; may be given several times.",
        show_default=False,
    ),
]
Steps = Annotated[int | None, typer.Option(help="Order steps; by default the order's own.")]
HeadSteps = Annotated[int | None, typer.Option(help="Steps of an iterative head; by default its own.")]
HeadBackend = Annotated[
    BackendName,
    typer.Option(help="The head's plain sampler, its fast one, or by default the fast one where there is one."),
]
HeadOptions = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="An option of the head for this call, such as top_k=50; may be given several times.",
        show_default=False,
    ),
]
Guidance = Annotated[float, typer.Option(help="Guidance scale; 1 is none.")]
GuidanceSchedule = Annotated[
    ScheduleName,
    typer.Option(help="The same scale at every step, one that grows from 1, or guidance between two moments only."),
]
GuidanceInterval = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="FROM TO",
        help="Shares of the picture, such as 0.2 0.8, between which guidance acts; for the schedule 'interval'.",
        show_default=False,
    ),
]
Temperature = Annotated[
    float,
    typer.Option(
        help=(
            "1 samples what was learned, less gives pictures that are more alike. At 0 a softmax head takes the "
            "likeliest token; a diffusion head still starts from noise."
        )
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU if there is one.")]


def sampling_settings(
    *,
    order: str | None,
    order_option: list[str] | None,
    steps: int | None,
    head_steps: int | None,
    head_backend: BackendName,
    head_option: list[str] | None,
    guidance: float,
    guidance_schedule: ScheduleName,
    guidance_interval: tuple[float, float] | None,
    temperature: float,
) -> "SamplingSettings":
    """The settings that these options stand for. Raises `ConfigurationError` for options that can not be read."""
    from fluid_core.configuration.overrides import named_values
    from fluid_core.sampling_run.settings import SamplingSettings

    return SamplingSettings(
        order=order,
        order_options=named_values(order_option or []),
        steps=steps,
        head_steps=head_steps,
        head_backend=head_backend.value,
        head_options=named_values(head_option or []),
        guidance=guidance,
        guidance_schedule=guidance_schedule.value,
        guidance_interval=guidance_interval,
        temperature=temperature,
    )
