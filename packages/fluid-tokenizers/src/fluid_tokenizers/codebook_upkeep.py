"""Looking after a codebook while it trains: how much of it is used, and what becomes of codes that nothing uses."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluid_core.evaluation.reconstruction import codebook_use
from fluid_core.exchange import BatchShare
from fluid_core.training.processes import copy_tensors_from_first, rows_of_all
from fluid_tokenizers.single_precision_buffers import SinglePrecisionBuffers
from fluid_tokenizers.training_options import VQTrainingOptions


class CodebookUpkeep(SinglePrecisionBuffers):
    """Counts which codes are taken, window by window, and moves dead ones onto present outputs of the encoder.

    Its buffers are part of a training run but not of the tokenizer: they are in no state dict, and a trainer that
    wants to resume exactly keeps all buffers of the module. `observe` is called with every batch, `after_step` after
    every update of the weights.
    """

    counts: Tensor
    assigned: Tensor
    sums: Tensor
    figures: Tensor
    num_steps: Tensor

    def __init__(self, num_codes: int, channels: int, options: VQTrainingOptions) -> None:
        super().__init__()
        self.options = options
        state = {
            "counts": torch.zeros(num_codes),  # positions that took each code, in the window so far
            "assigned": torch.zeros(num_codes),  # moving averages: how many outputs a code takes in a step ...
            "sums": torch.zeros(num_codes, channels),  # ... and their sum
            "figures": torch.zeros(3),  # of the last whole window, and the codes revived in all
            "num_steps": torch.zeros((), dtype=torch.int64),  # taken altogether
        }
        for name, tensor in state.items():
            self.register_buffer(name, tensor, persistent=False)
        self._has_company = False
        self._batch: tuple[Float[Tensor, "positions channels"], Int[Tensor, "positions"]] | None = None
        self._errors: Float[Tensor, "positions"] | None = None

    @torch.no_grad()
    def observe(
        self,
        outputs: Float[Tensor, "positions channels"],
        ids: Int[Tensor, "positions"],
        codebook: Float[Tensor, "codes channels"],
        *,
        share: BatchShare | None = None,
    ) -> None:
        """Count the codes that a batch took, and remember its outputs until `after_step`.

        Where `share` says that there are several processes, each brings its rows, and all of them see all rows.
        """
        outputs = outputs.detach().float()
        self._has_company = share is not None and share.num_processes > 1
        if self._has_company:
            outputs, ids = rows_of_all(outputs), rows_of_all(ids)
        self.counts += torch.bincount(ids, minlength=len(self.counts)).to(self.counts)
        self._batch = (outputs, ids)
        self._errors = (outputs - codebook.detach().float()[ids]).square().sum(dim=1)

    @torch.no_grad()
    def after_step(self, codebook: Float[Tensor, "codes channels"], *, generator: torch.Generator) -> dict[str, float]:
        """Change `codebook` in place as the options say, and give figures to log.

        `codebook_perplexity` and `codes_used` (a share) are those of the last whole window, before there is one those
        of the steps so far; `codes_revived` counts since the beginning. `generator` lives on the CPU.
        """
        self.num_steps += 1
        if self.options.codebook == "average":
            self._follow(codebook)
        use = codebook_use(self.counts.long())
        ends = int(self.num_steps) % self.options.window_steps == 0
        if ends or int(self.num_steps) < self.options.window_steps:
            self.figures[0], self.figures[1] = use.perplexity, use.num_used / use.vocabulary_size
        if ends:
            if self.options.revive_dead_codes:
                self.figures[2] += self._revive(codebook, self.counts == 0, generator)
            self.counts.zero_()
        if self._has_company:
            # Sums on a GPU are rounded in no fixed order: without this, the codebooks would drift apart.
            copy_tensors_from_first([codebook, *self.buffers()])
        self._batch = self._errors = None
        measured, share, revived = self.figures.tolist()
        return {"codebook_perplexity": measured, "codes_used": share, "codes_revived": revived}

    def _follow(self, codebook: Float[Tensor, "codes channels"]) -> None:
        """Codes as moving averages of what is assigned to them; codes that never took anything stay as they are."""
        if self._batch is None:
            return
        outputs, ids = self._batch
        new = 1.0 - self.options.codebook_decay
        assigned = torch.bincount(ids, minlength=len(self.assigned)).to(self.assigned)
        sums = torch.zeros_like(self.sums).index_add_(0, ids, outputs)
        self.assigned.lerp_(assigned, new)
        self.sums.lerp_(sums, new)
        # Numerator and denominator forget at the same rate, so that rare codes keep their place; below this they
        # are rounding noise.
        known = self.assigned > 1e-6
        codebook[known] = (self.sums[known] / self.assigned[known, None]).to(codebook.dtype)

    def _revive(
        self, codebook: Float[Tensor, "codes channels"], dead: Bool[Tensor, "codes"], generator: torch.Generator
    ) -> int:
        """Move dead codes onto outputs of the present batch; how many were moved."""
        if self._batch is None or self._errors is None or not bool(dead.any()):
            return 0
        outputs, _ = self._batch
        # In proportion to the squared distance from their codes (as k-means++ seeds): in proportion to frequency, flat
        # backgrounds would get one code after the other and use none of them.
        weights = self._errors.double().cpu()
        weights = torch.where(weights.isfinite(), weights, 0.0)
        count = min(int(dead.sum()), int((weights > 0).sum()))
        if count == 0:
            return 0
        drawn = torch.multinomial(weights, count, generator=generator).to(outputs.device)
        chosen = dead.nonzero().squeeze(1)[:count]
        codebook[chosen] = outputs[drawn].to(codebook.dtype)
        self.assigned[chosen] = 1.0
        self.sums[chosen] = outputs[drawn]
        return count
