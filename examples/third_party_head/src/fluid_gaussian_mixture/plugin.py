"""What this package offers to Fluid. Must stay light: listing components loads it, and torch takes seconds."""

from typing import TYPE_CHECKING

import attrs
from attrs.validators import ge, gt, instance_of

from fluid_core.components import HeadComponent
from fluid_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from fluid_core.exchange import HeadContext
    from fluid_gaussian_mixture.head import GaussianMixtureHead


@attrs.frozen(kw_only=True)
class GaussianMixtureOptions:
    """How the mixture is built."""

    num_components: int = attrs.field(default=16, validator=[instance_of(int), ge(1)])
    """Number of Gaussians in the mixture (16 in GIVT)."""

    min_scale: float = attrs.field(default=1e-3, validator=gt(0.0))
    """Smallest standard deviation of a component: without one, the likelihood has no upper bound."""


def _build(options: GaussianMixtureOptions, context: "HeadContext") -> "GaussianMixtureHead":
    from fluid_gaussian_mixture.head import GaussianMixtureHead

    return GaussianMixtureHead(context, options)


@hookimpl
def fluid_register_heads() -> tuple[HeadComponent, ...]:
    """The head of this package."""
    return (
        HeadComponent(
            name="gaussian-mixture",
            summary="Mixture of diagonal Gaussians with an exact likelihood, as in GIVT",
            options=GaussianMixtureOptions,
            build=_build,
            predicts="continuous",
        ),
    )
