"""The fast denoiser for CPUs: the same network, with everything that does not depend on the noisy token hoisted.

At few tokens per call the network is bound by reading its weights, and most of them (three fifths in the paper's
head) serve the modulations, which depend on timestep and condition alone. They are computed for many timesteps in one
large product, so their weights are read once per block of timesteps instead of once per timestep. What remains per
step is two linear layers a block with packed weights, and four elementwise passes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fluid_core.exchange import Guidance, SamplerBackend
from fluid_heads.denoising.evaluation import Prediction
from fluid_heads.denoising.network import NORM_EPSILON, DenoisingNetwork, ModulatedBlock
from fluid_heads.denoising.packed_linear import PackedLinear

DEFAULT_MODULATION_ROWS = 256
"""Rows (timesteps times conditions) whose modulations are held at a time, 84 MB per thousand for the paper's head."""


class FusedDenoiser:
    """The network along a list of timesteps, prepared for repeated use on a CPU, in float32.

    Holds copies of all weights, so that the network may change afterwards without effect. `modulation_rows` bounds
    the memory of a call: modulations of that many rows exist at a time, and more tokens than that are evaluated in
    chunks.
    """

    backend = SamplerBackend.FUSED

    def __init__(
        self,
        network: DenoisingNetwork,
        timesteps: Sequence[int | float],
        *,
        modulation_rows: int = DEFAULT_MODULATION_ROWS,
    ) -> None:
        self.modulation_rows = modulation_rows
        self.num_outputs = network.num_outputs
        with torch.no_grad():
            self.time_vectors = network.embed_timesteps(torch.tensor(timesteps, device="cpu"))
            self.condition_projection = PackedLinear(
                network.condition_projection.weight, network.condition_projection.bias
            )
            self.input_projection = PackedLinear(network.input_projection.weight, network.input_projection.bias)
            blocks = [block for block in network.blocks if isinstance(block, ModulatedBlock)]
            self.modulations = [modulation for block in blocks for modulation in _block_modulations(block)]
            self.modulations += _output_modulations(network)
            self.layers = [_block_layers(block) for block in blocks]
            self.output_projection = PackedLinear(network.output_projection.weight, network.output_projection.bias)

    @torch.no_grad()
    def begin(self, condition: Float[Tensor, "tokens width"], guidance: Guidance | None) -> "FusedEvaluation":
        """Project the conditions, once for all steps."""
        rows = [condition] if guidance is None else [condition, guidance.negative]
        vectors = [self.condition_projection(each.float().contiguous()) for each in rows]
        return FusedEvaluation(self, vectors)


class FusedEvaluation:
    """The network with conditions and timesteps given; modulations are computed for blocks of timesteps."""

    def __init__(self, denoiser: FusedDenoiser, condition_vectors: list[Float[Tensor, "tokens inner"]]) -> None:
        self._denoiser = denoiser
        num_halves = len(condition_vectors)
        tokens_per_chunk = max(1, denoiser.modulation_rows // num_halves)
        # Both halves of a token stay in one chunk: they share what comes before the first modulation.
        self._chunks = [
            _Chunk(denoiser, torch.cat(parts), num_halves=num_halves)
            for parts in zip(*(vectors.split(tokens_per_chunk) for vectors in condition_vectors), strict=True)
        ]
        self._tokens_per_chunk = tokens_per_chunk
        self._guided = num_halves == 2

    @torch.no_grad()
    def __call__(self, step: int, x: Float[Tensor, "tokens channels"]) -> Prediction:
        """Outputs for `x` at timestep number `step`."""
        outputs = [chunk(step, part) for chunk, part in zip(self._chunks, x.split(self._tokens_per_chunk), strict=True)]
        if not self._guided:
            return Prediction(output=outputs[0] if len(outputs) == 1 else torch.cat(outputs), negative=None)
        halves = [output.chunk(2) for output in outputs]
        return Prediction(
            output=torch.cat([half[0] for half in halves]), negative=torch.cat([half[1] for half in halves])
        )


class _Chunk:
    """Some of the tokens of a call, with the modulations of the present block of timesteps."""

    def __init__(self, denoiser: FusedDenoiser, condition_vectors: Tensor, *, num_halves: int) -> None:
        self._denoiser = denoiser
        self._condition_vectors = condition_vectors
        self._num_halves = num_halves
        self._steps_per_block = max(1, denoiser.modulation_rows // max(1, len(condition_vectors)))
        self._block: int | None = None
        self._modulations: list[Tensor] = []

    def __call__(self, step: int, x: Tensor) -> Tensor:
        block, place = divmod(step, self._steps_per_block)
        if block != self._block:
            self._modulations = self._modulate(block)
            self._block = block
        modulations = iter([table[place] for table in self._modulations])
        denoiser = self._denoiser
        hidden = denoiser.input_projection(x.contiguous())
        for index, (first, second) in enumerate(denoiser.layers):
            normed = functional.layer_norm(hidden, hidden.shape[-1:], eps=NORM_EPSILON)
            if index == 0 and self._num_halves > 1:
                hidden, normed = torch.cat([hidden, hidden]), torch.cat([normed, normed])
            shift, scale, gate = next(modulations), next(modulations), next(modulations)
            update = second(first(torch.addcmul(shift, normed, scale)))
            hidden = hidden.addcmul_(gate, update)
        normed = functional.layer_norm(hidden, hidden.shape[-1:], eps=NORM_EPSILON)
        shift, scale = next(modulations), next(modulations)
        return denoiser.output_projection(torch.addcmul(shift, normed, scale))

    def _modulate(self, block: int) -> list[Tensor]:
        """Every modulation of a block of timesteps, each (steps, rows, inner)."""
        times = self._denoiser.time_vectors[block * self._steps_per_block :][: self._steps_per_block]
        conditioning = functional.silu(times[:, None] + self._condition_vectors)
        flat = conditioning.flatten(0, 1)
        return [modulation(flat).view_as(conditioning) for modulation in self._denoiser.modulations]


def _block_modulations(block: ModulatedBlock) -> list[PackedLinear]:
    """Layers that give shift, scale and gate, for a norm that has no weights of its own.

    (norm * w + b) * (1 + scale) + shift is norm * scale' + shift' with scale' = w (1 + scale) and
    shift' = shift + b (1 + scale), both linear in the conditioning as scale and shift are.
    """
    weights = block.modulation.weight.float().chunk(3)
    biases = block.modulation.bias.float().chunk(3)
    norm_weight, norm_bias = block.norm.weight.float(), block.norm.bias.float()
    return [
        PackedLinear(weights[0] + norm_bias[:, None] * weights[1], biases[0] + norm_bias * (1.0 + biases[1])),
        PackedLinear(norm_weight[:, None] * weights[1], norm_weight * (1.0 + biases[1])),
        PackedLinear(weights[2], biases[2]),
    ]


def _output_modulations(network: DenoisingNetwork) -> list[PackedLinear]:
    weights = network.output_modulation.weight.float().chunk(2)
    biases = network.output_modulation.bias.float().chunk(2)
    return [PackedLinear(weights[0], biases[0]), PackedLinear(weights[1], 1.0 + biases[1])]


def _block_layers(block: ModulatedBlock) -> tuple[PackedLinear, PackedLinear]:
    first, second = block.mlp[0], block.mlp[2]
    return PackedLinear(first.weight, first.bias, silu=True), PackedLinear(second.weight, second.bias)
