"""Evaluating the denoising network along a fixed list of timesteps: the contract, and the plain implementation.

A sampler visits the same timesteps for every token it draws. What depends on the timesteps alone is prepared when the
sampler is built (`Denoiser`), what depends on the conditions once per call (`begin`), and only the rest at every step
(`Evaluation`).
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import attrs
import torch
from jaxtyping import Float
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
    """Runs the network as it is written, with timesteps embedded once. Weights must not change while it is in use."""

    backend = SamplerBackend.REFERENCE

    def __init__(self, network: DenoisingNetwork, timesteps: Sequence[int | float]) -> None:
        self._network = network
        device = next(network.parameters()).device
        with torch.no_grad():
            self._time_vectors = network.embed_timesteps(torch.tensor(timesteps, device=device))

    @torch.no_grad()
    def begin(self, condition: Float[Tensor, "tokens width"], guidance: Guidance | None) -> "ReferenceEvaluation":
        """Project the conditions, once for all steps."""
        vectors = self._network.project_condition(condition)
        if guidance is not None:
            vectors = torch.cat([vectors, self._network.project_condition(guidance.negative)])
        return ReferenceEvaluation(self._network, self._time_vectors, vectors, guided=guidance is not None)


class ReferenceEvaluation:
    """The plain evaluation: both halves of a guided batch in one pass through the network."""

    def __init__(
        self,
        network: DenoisingNetwork,
        time_vectors: Float[Tensor, "steps inner"],
        condition_vectors: Float[Tensor, "rows inner"],
        *,
        guided: bool,
    ) -> None:
        self._network, self._guided = network, guided
        self._time_vectors, self._condition_vectors = time_vectors, condition_vectors

    @torch.no_grad()
    def __call__(self, step: int, x: Float[Tensor, "tokens channels"]) -> Prediction:
        """Outputs for `x` at timestep number `step`."""
        conditioning = self._time_vectors[step] + self._condition_vectors
        if not self._guided:
            return Prediction(output=self._network(x, conditioning), negative=None)
        output, negative = self._network(torch.cat([x, x]), conditioning).chunk(2)
        return Prediction(output=output, negative=negative)
