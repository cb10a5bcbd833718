"""The fast denoiser for CPUs: the same network, with everything that does not depend on the noisy token hoisted.

At few tokens per call the network is bound by reading its weights, and most of them (three fifths in the paper's
head) serve the modulations, which depend on timestep and condition alone. They are computed for many timesteps in one
large product, so their weights are read once per block of timesteps instead of once per timestep. What remains per
step is two linear layers a block with weights laid out for speed, and three elementwise passes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fluid_core.exchange import Guidance, SamplerBackend
from fluid_heads.denoising.evaluation import Prediction
from fluid_heads.denoising.network import NORM_EPSILON
from fluid_heads.denoising.packed_network import PackedNetwork
from fluid_heads.precision import without_autocast

DEFAULT_MODULATION_BYTES = 64 * 2**20
"""Memory for the modulations held at a time: some 800 rows (timesteps times conditions) of the paper's head."""


class FusedDenoiser:
    """The network along a list of timesteps, prepared for repeated use on a CPU, in float32.

    `modulation_bytes` bounds the memory of a call: modulations of as many rows exist at a time as fit (at least one
    token's), and more tokens than that are evaluated in chunks, one after the other in the same memory.
    """

    backend = SamplerBackend.FUSED

    def __init__(
        self,
        packed: PackedNetwork,
        timesteps: Sequence[int | float],
        *,
        modulation_bytes: int = DEFAULT_MODULATION_BYTES,
    ) -> None:
        self._packed = packed
        self._modulation_rows = max(1, modulation_bytes // packed.modulation_bytes_per_row)
        with torch.no_grad():
            self._time_vectors = packed.network.embed_timesteps(torch.tensor(timesteps, device="cpu"))

    @torch.no_grad()
    def begin(self, condition: Float[Tensor, "tokens width"], guidance: Guidance | None) -> "FusedEvaluation":
        """Project the conditions, once for all steps."""
        conditions = [condition] if guidance is None else [condition, guidance.negative]
        with without_autocast(condition.device):
            vectors = [self._packed.condition_projection(each.float().contiguous()) for each in conditions]
        return FusedEvaluation(self._packed, self._time_vectors, vectors, modulation_rows=self._modulation_rows)


class FusedEvaluation:
    """The network with conditions and timesteps given; one set of condition vectors, or two under guidance."""

    def __init__(
        self,
        packed: PackedNetwork,
        time_vectors: Float[Tensor, "steps inner"],
        condition_vectors: list[Float[Tensor, "tokens inner"]],
        *,
        modulation_rows: int,
    ) -> None:
        num_halves = len(condition_vectors)
        self._guided = num_halves == 2
        # Both halves of a token stay in one chunk: they share what comes before the first modulation.
        self._tokens_per_chunk = max(1, modulation_rows // num_halves)
        parts = zip(*(torch.split(each, self._tokens_per_chunk) for each in condition_vectors), strict=True)
        chunks = [torch.cat(halves) for halves in parts]
        # Several chunks take turns in the memory for modulations, so none of them keeps more than the present step's.
        steps_per_block = max(1, modulation_rows // max(1, len(chunks[0]))) if len(chunks) == 1 else 1
        num_rows = min(steps_per_block, len(time_vectors)) * len(chunks[0])
        # Written anew for every block: fresh memory of this size would cost as much as a tenth of the products.
        memory = torch.empty(len(packed.modulations), num_rows, chunks[0].shape[1])
        self._chunks = [
            _Chunk(
                packed,
                time_vectors,
                vectors,
                memory,
                guided=self._guided,
                steps_per_block=steps_per_block,
                keeps_block=len(chunks) == 1,
            )
            for vectors in chunks
        ]

    @torch.no_grad()
    def __call__(self, step: int, x: Float[Tensor, "tokens channels"]) -> Prediction:
        """Outputs for `x` at timestep number `step`."""
        with without_autocast(x.device):
            parts = torch.split(x.float().contiguous(), self._tokens_per_chunk)
            outputs = [chunk(step, part) for chunk, part in zip(self._chunks, parts, strict=True)]
        if not self._guided:
            return Prediction(output=_joined(outputs), negative=None)
        halves = [output.chunk(2) for output in outputs]
        return Prediction(
            output=_joined([conditional for conditional, _ in halves]),
            negative=_joined([negative for _, negative in halves]),
        )


class _Chunk:
    """Some of the tokens of a call, with the modulations of the present block of timesteps."""

    def __init__(
        self,
        packed: PackedNetwork,
        time_vectors: Tensor,
        condition_vectors: Tensor,
        memory: Tensor,
        *,
        guided: bool,
        steps_per_block: int,
        keeps_block: bool,
    ) -> None:
        self._packed = packed
        self._time_vectors = time_vectors
        self._condition_vectors = condition_vectors
        self._memory = memory
        self._guided = guided
        self._steps_per_block = steps_per_block
        self._keeps_block = keeps_block
        self._block: int | None = None
        self._tables: list[Tensor] = []

    def __call__(self, step: int, x: Tensor) -> Tensor:
        block, place = divmod(step, self._steps_per_block)
        if block != self._block or not self._keeps_block:
            self._tables = self._modulate(block)
            self._block = block
        modulations = iter([table[place] for table in self._tables])
        # Contiguous once, so that no norm has to copy it.
        hidden = self._packed.input_projection(x).contiguous()
        for index, (first, second) in enumerate(self._packed.layers):
            normed = functional.layer_norm(hidden, hidden.shape[-1:], eps=NORM_EPSILON)
            if index == 0 and self._guided:
                hidden, normed = torch.cat([hidden, hidden]), torch.cat([normed, normed])
            shift, scale, gate = next(modulations), next(modulations), next(modulations)
            update = second(first(torch.addcmul(shift, normed, scale)))
            hidden = hidden.addcmul_(gate, update)
        normed = functional.layer_norm(hidden, hidden.shape[-1:], eps=NORM_EPSILON)
        shift, scale = next(modulations), next(modulations)
        return self._packed.output_projection(torch.addcmul(shift, normed, scale))

    def _modulate(self, block: int) -> list[Tensor]:
        """Every modulation of a block of timesteps, each (steps, rows, inner)."""
        times = self._time_vectors[block * self._steps_per_block :][: self._steps_per_block]
        conditioning = functional.silu(times[:, None] + self._condition_vectors)
        rows = conditioning.flatten(0, 1)
        tables = []
        for modulation, memory in zip(self._packed.modulations, self._memory, strict=True):
            table = memory[: len(rows)]
            torch.addmm(modulation.bias, rows, modulation.weight.t(), out=table)
            tables.append(table.view_as(conditioning))
        return tables


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
