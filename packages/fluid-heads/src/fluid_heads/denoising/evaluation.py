"""Evaluating the denoising network along a fixed list of timesteps: the contract, and the plain implementation.

A sampler visits the same timesteps for every token it draws. What depends on the timesteps alone is prepared when the
sampler is built (`Denoiser`), what depends on the conditions once per call (`begin`), and only the rest at every step
(`Evaluation`).
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import attrs
import torch
from jaxtyping import Float, Real
from torch import Tensor

from fluid_core.exchange import Guidance, SamplerBackend
from fluid_heads.denoising.network import DenoisingNetwork


@attrs.frozen(kw_only=True, eq=False)
class Prediction:
    """The network's outputs for the tokens of one step, and under guidance those for the negative conditions."""

    output: Float[Tensor, "tokens outputs"]
    negative: Float[Tensor, "tokens outputs"] | None


@runtime_checkable
class Evaluation(Protocol):
    """The network with conditions and timesteps given: only the noisy tokens are left to say."""

    def __call__(self, step: int, x: Float[Tensor, "tokens channels"]) -> Prediction:
        """Outputs for `x` at timestep number `step` of the denoiser's list. Steps may be visited in any order."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """The network with a list of timesteps given."""

    @property
    def backend(self) -> SamplerBackend:
        """`reference` or `fused`."""
        ...

    def begin(self, condition: Float[Tensor, "tokens width"], guidance: Guidance | None) -> Evaluation:
        """Prepare for these hidden vectors; with guidance every step is evaluated for the negative ones too."""
        ...


class ReferenceDenoiser:
    """Runs the network as it is written, at every step anew: nothing is prepared, as in the predecessor's sampler.

    Timesteps are embedded for every row and conditions projected at every step, so that what a faster implementation
    gains by hoisting them is measured against the same work.
    """

    backend = SamplerBackend.REFERENCE

    def __init__(self, network: DenoisingNetwork, timesteps: Sequence[int | float]) -> None:
        self._network = network
        self._timesteps = torch.tensor(timesteps, device=next(network.parameters()).device)

    def begin(self, condition: Float[Tensor, "tokens width"], guidance: Guidance | None) -> "ReferenceEvaluation":
        """Put both halves of a guided batch together."""
        rows = condition if guidance is None else torch.cat([condition, guidance.negative])
        return ReferenceEvaluation(self._network, self._timesteps, rows, guided=guidance is not None)


class ReferenceEvaluation:
    """The plain evaluation: both halves of a guided batch in one pass through the network."""

    def __init__(
        self,
        network: DenoisingNetwork,
        timesteps: Real[Tensor, "steps"],
        condition: Float[Tensor, "rows width"],
        *,
        guided: bool,
    ) -> None:
        self._network, self._guided = network, guided
        self._timesteps, self._condition = timesteps, condition

    @torch.no_grad()
    def __call__(self, step: int, x: Float[Tensor, "tokens channels"]) -> Prediction:
        """Outputs for `x` at timestep number `step`."""
        rows = torch.cat([x, x]) if self._guided else x
        timesteps = self._timesteps[step].expand(len(rows))
        conditioning = self._network.embed_timesteps(timesteps) + self._network.project_condition(self._condition)
        output: Tensor = self._network(rows, conditioning)
        if not self._guided:
            return Prediction(output=output, negative=None)
        conditional, negative = output.chunk(2)
        return Prediction(output=conditional, negative=negative)
