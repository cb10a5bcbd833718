"""The denoising network on a CUDA device: modulations of many steps at once, and kernels between matrix products.

60% of the network's weights serve the AdaLN modulations, which depend on timestep and condition alone. All layers'
modulations of a block of steps are computed in one large product and kept; a step then consists of the small products
of the blocks, by cuBLAS, and of one kernel before each of them. Nothing is read back to the host and shapes do not
change, so that a step can be recorded as a CUDA graph.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.exchange import Guidance, SamplerBackend
from fluid_heads.denoising.evaluation import Prediction
from fluid_heads.denoising.network import NORM_EPSILON, DenoisingNetwork, ModulatedBlock
from fluid_heads.kernels.modulated_norm import modulated_norm
from fluid_heads.precision import without_autocast

MODULATION_BYTES = 256 * 2**20
"""Memory for the modulations that are kept at a time, unless a single step needs more."""


class CudaNetwork:
    """The network with its modulation layers as one matrix, a copy of 60% of its weights.

    Weights must not change while it is in use. All values between the kernels have the type of the weights, as in the
    plain network; within a kernel they are float32.
    """

    def __init__(self, network: DenoisingNetwork) -> None:
        self.plain = network
        self.width = network.input_projection.out_features
        self.dtype = network.input_projection.weight.dtype
        self.device = network.input_projection.weight.device
        self.blocks: list[ModulatedBlock] = []
        for block in network.blocks:
            assert isinstance(block, ModulatedBlock)
            self.blocks.append(block)
        layers = [*(block.modulation for block in self.blocks), network.output_modulation]
        with torch.no_grad():
            self.modulation_weight = torch.cat([layer.weight for layer in layers])
            self.modulation_bias = torch.cat([layer.bias for layer in layers])

    def along(self, timesteps: Sequence[int | float], *, modulation_bytes: int = MODULATION_BYTES) -> "CudaDenoiser":
        """The denoiser for these timesteps, which keeps modulations of as many as fit into `modulation_bytes`."""
        return CudaDenoiser(self, timesteps, modulation_bytes=modulation_bytes)


class CudaDenoiser:
    """The network with a list of timesteps given; satisfies the `Denoiser` protocol."""

    backend = SamplerBackend.FUSED

    def __init__(self, network: CudaNetwork, timesteps: Sequence[int | float], *, modulation_bytes: int) -> None:
        self.network = network
        self.num_steps = len(timesteps)
        self.modulation_bytes = modulation_bytes
        with torch.no_grad():
            self.time_vectors = network.plain.embed_timesteps(torch.tensor(timesteps, device=network.device))

    @torch.no_grad()
    def begin(self, condition: Float[Tensor, "tokens width"], guidance: Guidance | None) -> "CudaEvaluation":
        """Project the conditions, once for all steps."""
        evaluation = CudaEvaluation(self, num_tokens=condition.shape[0], guided=guidance is not None)
        evaluation.take(condition, guidance)
        return evaluation


class CudaEvaluation:
    """The network for a number of tokens; satisfies the `Evaluation` protocol.

    `step` counts steps on the device. `hold` computes the modulations of the block of steps that a step lies in, and
    `outputs` evaluates the network at the step that `step` says, which must be one of them.
    """

    def __init__(self, denoiser: CudaDenoiser, *, num_tokens: int, guided: bool) -> None:
        self._denoiser, network = denoiser, denoiser.network
        self._guided = guided
        num_rows = (2 if guided else 1) * num_tokens
        num_values = network.modulation_weight.shape[0]
        bytes_per_step = max(1, num_rows * num_values * network.modulation_weight.element_size())
        self.num_held = min(denoiser.num_steps, max(1, denoiser.modulation_bytes // bytes_per_step))
        self.step = torch.zeros(1, dtype=torch.int32, device=network.device)
        self._first_held: int | None = None
        self._condition_vectors = torch.zeros(num_rows, network.width, device=network.device)
        self._modulations = torch.zeros(self.num_held, num_rows, num_values, dtype=network.dtype, device=network.device)

    @torch.no_grad()
    def take(self, condition: Float[Tensor, "tokens width"], guidance: Guidance | None) -> None:
        """Project these conditions. There may be fewer than the evaluation has room for; the rest is left as it was."""
        network = self._denoiser.network.plain
        num_tokens = condition.shape[0]
        halves = self._condition_vectors.chunk(2) if self._guided else (self._condition_vectors,)
        halves[0][:num_tokens].copy_(network.project_condition(condition))
        if guidance is not None:
            halves[1][:num_tokens].copy_(network.project_condition(guidance.negative))
        self._first_held = None

    @torch.no_grad()
    def hold(self, step: int) -> None:
        """Compute the modulations of the block of steps that `step` lies in, unless they are there already."""
        first = step // self.num_held * self.num_held
        if first == self._first_held:
            return
        denoiser, network = self._denoiser, self._denoiser.network
        count = min(self.num_held, denoiser.num_steps - first)
        with without_autocast(network.device):
            conditioning = denoiser.time_vectors[first : first + count, None] + self._condition_vectors
            activated = functional.silu(conditioning.to(network.dtype))
            torch.addmm(
                network.modulation_bias,
                activated.flatten(0, 1),
                network.modulation_weight.T,
                out=self._modulations[:count].flatten(0, 1),
            )
        self._first_held = first

    @torch.no_grad()
    def outputs(self, x: Float[Tensor, "tokens channels"]) -> Float[Tensor, "rows outputs"]:
        """The network's outputs at the step that `step` says, in the type of the weights; negative rows last."""
        network = self._denoiser.network
        first_layer, last_layer = network.plain.input_projection, network.plain.output_projection
        parts = torch.split(self._modulations, network.width, dim=2)
        with without_autocast(network.device):
            hidden = functional.linear(x.to(network.dtype), first_layer.weight, first_layer.bias)
            update: Tensor | None = None
            gate: Tensor | None = None
            for index, block in enumerate(network.blocks):
                hidden, normalised = modulated_norm(
                    hidden,
                    shift=parts[3 * index],
                    scale=parts[3 * index + 1],
                    step=self.step,
                    update=update,
                    gate=gate,
                    weight=block.norm.weight,
                    bias=block.norm.bias,
                    epsilon=block.norm.eps,
                )
                first, second = block.mlp[0], block.mlp[2]
                assert isinstance(first, nn.Linear)
                assert isinstance(second, nn.Linear)
                inner = functional.silu(functional.linear(normalised, first.weight, first.bias), inplace=True)
                update, gate = functional.linear(inner, second.weight, second.bias), parts[3 * index + 2]
            _, normalised = modulated_norm(
                hidden,
                shift=parts[-2],
                scale=parts[-1],
                step=self.step,
                update=update,
                gate=gate,
                epsilon=NORM_EPSILON,
            )
            return functional.linear(normalised, last_layer.weight, last_layer.bias)

    @torch.no_grad()
    def __call__(self, step: int, x: Float[Tensor, "tokens channels"]) -> Prediction:
        """Outputs for `x` at timestep number `step` of the denoiser's list, in float32."""
        self.hold(step)
        self.step.fill_(step)
        output = self.outputs(x).float()
        if not self._guided:
            return Prediction(output=output, negative=None)
        output, negative = output.chunk(2)
        return Prediction(output=output, negative=negative)
