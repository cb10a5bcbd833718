"""The fast denoiser for CPUs: the same network, with everything that does not depend on the noisy token hoisted.

At few tokens per call the network is bound by reading its weights, and most of them (three fifths in the paper's
head) serve the modulations, which depend on timestep and condition alone. They are computed for several timesteps in
one product, so their weights are read once per block of timesteps instead of once per timestep. What remains per step
is two linear layers a block with weights laid out for speed, and three elementwise passes.

Products are written in the way that is fastest for their number of rows (`fluid_heads.denoising.repeated_linear`).
"""

import math
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

ROWS_PER_CHUNK = 1024
"""Rows of modulations that exist at a time, one per timestep, token and condition: so many meet a weight whenever it is
read, and more gain nothing."""


class FusedDenoiser:
    """The network along a list of timesteps, prepared for repeated use on a CPU, in float32.

    `rows_per_chunk` bounds the memory of a call: modulations of as many rows (timesteps times conditions) exist at a
    time, or one token's if those are more. More tokens than that are evaluated one chunk after the other in the same
    memory.
    """

    backend = SamplerBackend.FUSED

    def __init__(
        self,
        packed: PackedNetwork,
        timesteps: Sequence[int | float],
        *,
        rows_per_chunk: int = ROWS_PER_CHUNK,
    ) -> None:
        self._packed = packed
        self._rows_per_chunk = rows_per_chunk
        with torch.no_grad():
            self._time_vectors = packed.network.embed_timesteps(torch.tensor(timesteps, device="cpu"))

    @torch.no_grad()
    def begin(self, condition: Float[Tensor, "tokens width"], guidance: Guidance | None) -> "FusedEvaluation":
        """Project the conditions, once for all steps."""
        conditions = [condition] if guidance is None else [condition, guidance.negative]
        with without_autocast(condition.device):
            vectors = [self._packed.condition_projection(each.float().contiguous()) for each in conditions]
        return FusedEvaluation(self._packed, self._time_vectors, vectors, rows_per_chunk=self._rows_per_chunk)


class FusedEvaluation:
    """The network with conditions and timesteps given; one set of condition vectors, or two under guidance."""

    def __init__(
        self,
        packed: PackedNetwork,
        time_vectors: Float[Tensor, "steps inner"],
        condition_vectors: list[Float[Tensor, "tokens inner"]],
        *,
        rows_per_chunk: int,
    ) -> None:
        num_halves, num_tokens = len(condition_vectors), len(condition_vectors[0])
        self._guided = num_halves == 2
        # Both halves of a token stay in one chunk: they share what comes before the first modulation.
        num_chunks = max(1, math.ceil(num_tokens / max(1, rows_per_chunk // num_halves)))
        self._tokens_per_chunk = max(1, math.ceil(num_tokens / num_chunks))
        parts = zip(*(torch.split(each, self._tokens_per_chunk) for each in condition_vectors), strict=True)
        chunks = [torch.cat(halves) for halves in parts]
        num_rows = len(chunks[0])
        # Several chunks take turns in the memory for modulations, so none of them keeps more than the present step's.
        num_steps = max(1, rows_per_chunk // max(1, num_rows)) if len(chunks) == 1 else 1
        num_steps = min(num_steps, len(time_vectors))
        # Written anew for every block: fresh memory would cost as much as a tenth of the products.
        shape = (packed.num_modulations, num_steps * num_rows, chunks[0].shape[1])
        memory = torch.empty(math.prod(shape), dtype=torch.float32, device=chunks[0].device)
        self._chunks = [
            _Chunk(
                packed,
                time_vectors,
                vectors,
                memory,
                guided=self._guided,
                steps_per_block=num_steps,
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
        self._tables = self._output_shifts = memory

    def __call__(self, step: int, x: Tensor) -> Tensor:
        block, place = divmod(step, self._steps_per_block)
        if block != self._block or not self._keeps_block:
            self._modulate(block)
            self._block = block
        num_rows = len(self._condition_vectors)
        modulations = iter(self._tables[:, place * num_rows : (place + 1) * num_rows].unbind())
        # Contiguous once, so that no norm has to copy it.
        hidden = self._packed.input_projection(x).contiguous()
        for index, (first, second) in enumerate(self._packed.layers):
            normed = _normed(hidden)
            if index == 0 and self._guided:
                hidden, normed = torch.cat([hidden, hidden]), torch.cat([normed, normed])
            shift, scale, gate = next(modulations), next(modulations), next(modulations)
            torch.addcmul(shift, normed, scale, out=normed)
            hidden.addcmul_(gate, second(functional.silu(first(normed), inplace=True)))
        shift = self._output_shifts[place * num_rows : (place + 1) * num_rows]
        output: Tensor = self._packed.output_projection(_normed(hidden).mul_(next(modulations))) + shift
        return output

    def _modulate(self, block: int) -> None:
        """Every modulation of a block of timesteps; rows are those of the first timestep, of the next, and so on."""
        times = self._time_vectors[block * self._steps_per_block :][: self._steps_per_block]
        rows = functional.silu(times[:, None] + self._condition_vectors).flatten(0, 1)
        # The last block may be shorter.
        shape = (self._packed.num_modulations, *rows.shape)
        self._tables = self._packed.modulations(rows, out=self._memory[: math.prod(shape)].view(shape))
        self._output_shifts = self._packed.output_shifts(rows)


def _normed(hidden: Float[Tensor, "rows inner"]) -> Float[Tensor, "rows inner"]:
    return torch.layer_norm(hidden, hidden.shape[-1:], eps=NORM_EPSILON)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
