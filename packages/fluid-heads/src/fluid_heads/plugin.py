"""What this distribution offers to the catalog. Nothing here loads torch: the build functions do, when called."""

from typing import TYPE_CHECKING

from fluid_core.components import HeadComponent
from fluid_core.hookspecs import hookimpl
from fluid_heads.diffusion.options import DiffusionOptions
from fluid_heads.flow.options import FlowOptions
from fluid_heads.softmax.options import SoftmaxOptions

if TYPE_CHECKING:
    from fluid_core.exchange import HeadContext
    from fluid_heads.diffusion.head import DiffusionHead
    from fluid_heads.flow.head import FlowHead
    from fluid_heads.softmax.head import SoftmaxHead


def _build_softmax(options: SoftmaxOptions, context: "HeadContext") -> "SoftmaxHead":
    from fluid_heads.softmax.head import SoftmaxHead

    return SoftmaxHead.from_context(context, options)


def _build_diffusion(options: DiffusionOptions, context: "HeadContext") -> "DiffusionHead":
    from fluid_heads.diffusion.head import DiffusionHead

    return DiffusionHead.from_context(context, options)


def _build_flow(options: FlowOptions, context: "HeadContext") -> "FlowHead":
    from fluid_heads.flow.head import FlowHead

    return FlowHead.from_context(context, options)


@hookimpl
def fluid_register_heads() -> tuple[HeadComponent, ...]:
    """The heads of this distribution."""
    return (
        HeadComponent(
            name="softmax",
            summary="Softmax over the vocabulary, weights tied to the input embedding",
            options=SoftmaxOptions,
            build=_build_softmax,
            predicts="discrete",
            tells_confidence=True,
        ),
        HeadComponent(
            name="diffusion",
            summary="Per-token diffusion: a small AdaLN network denoises one continuous token",
            options=DiffusionOptions,
            build=_build_diffusion,
            predicts="continuous",
        ),
        HeadComponent(
            name="flow",
            summary="Per-token rectified flow: the network's velocity carries noise to one continuous token",
            options=FlowOptions,
            build=_build_flow,
            predicts="continuous",
        ),
    )
