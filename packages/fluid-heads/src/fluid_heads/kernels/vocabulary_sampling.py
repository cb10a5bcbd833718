"""Draws ids from softmax(W h + b) without ever writing logits, probabilities or noise to memory.

The Gumbel-max trick turns sampling into argmax(logits + temperature * Gumbel noise). A program takes some tokens and
some rows of W, multiplies them block by block, adds noise made in registers, and keeps the largest sum and its id;
a second, small kernel compares what the programs found. Logits are linear in the hidden vector, so guidance mixes
hidden vectors first, which halves the product.

Numbers of a draw that come from the same Philox counter lie a quarter of the vocabulary apart. A program takes runs of
ids within one quarter, so that all ids of a run use the same word of their counters.
"""

from typing import no_type_check

import attrs
import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import Guidance
from fluid_core.keyed_random import KeyedRandom
from fluid_heads.kernels.counter_noise import gumbel_number, philox_words, word_of_lane
from fluid_heads.kernels.launching import launch
from fluid_heads.kernels.noise_streams import NoiseStreams

LARGEST_MATRIX = 2**31 - 1
"""Values of the output matrix, and of the hidden vectors: places in them are 32-bit numbers, which saves registers."""

MOST_REGISTERS = 255
"""Said to the assembler, which otherwise may spill a few for the sake of more programs at a time."""

_PROGRAMS_WANTED = 264
"""Two for each of the 132 multiprocessors of an H100; an A100 has 108."""

_NO_ID = tl.constexpr(2**31 - 1)


@attrs.frozen(kw_only=True)
class VocabularyTiling:
    """How the product is cut into programs."""

    block_tokens: int
    block_ids: int
    block_width: int
    num_warps: int
    num_stages: int
    num_splits: int
    """Programs that share the vocabulary of a block of tokens."""

    @classmethod
    def choose(cls, num_tokens: int, vocabulary: int) -> "VocabularyTiling":
        """Narrow blocks in many programs for few tokens, which wait for weights; wide ones for many."""
        few = num_tokens <= 32
        block_tokens, block_ids = (16, 32) if few else (64, 32)
        num_runs = 4 * triton.cdiv(triton.cdiv(vocabulary, 4), block_ids)
        token_blocks = triton.cdiv(num_tokens, block_tokens)
        return cls(
            block_tokens=block_tokens,
            block_ids=block_ids,
            block_width=32,
            num_warps=4 if few else 8,
            num_stages=4 if few else 2,
            num_splits=min(num_runs, triton.cdiv(_PROGRAMS_WANTED, token_blocks)),
        )


@triton.jit
@no_type_check
def vocabulary_kernel(
    condition_pointer,
    negative_pointer,
    scale_pointer,
    weight_pointer,
    bias_pointer,
    keys_pointer,
    best_pointer,
    best_id_pointer,
    num_tokens,
    vocabulary,
    width,
    temperature,
    draw,
    num_splits,
    GUIDED: tl.constexpr,
    RANDOM: tl.constexpr,
    HIDDEN_IN_TWO: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_IDS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """The best id of some tokens within every `num_splits`-th run of ids."""
    split = tl.program_id(0)
    tokens = tl.program_id(1) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    inside_tokens = tokens < num_tokens
    rows = tokens[:, None] * width
    quarter = (vocabulary + 3) // 4
    best = tl.full((BLOCK_TOKENS,), float("-inf"), tl.float32)
    best_id = tl.full((BLOCK_TOKENS,), _NO_ID, tl.int32)

    runs_per_quarter = tl.cdiv(quarter, BLOCK_IDS)
    for run in range(split, 4 * runs_per_quarter, num_splits):
        lane = run // runs_per_quarter
        block = (run % runs_per_quarter) * BLOCK_IDS + tl.arange(0, BLOCK_IDS)
        ids = block + lane * quarter
        inside_ids = (block < quarter) & (ids < vocabulary)
        weight_rows = ids[:, None] * width
        sums = tl.zeros((BLOCK_TOKENS, BLOCK_IDS), tl.float32)
        for first in range(0, width, BLOCK_WIDTH):
            columns = first + tl.arange(0, BLOCK_WIDTH)
            inside = inside_tokens[:, None] & (columns < width)[None, :]
            hidden = tl.load(condition_pointer + rows + columns[None, :], mask=inside, other=0.0).to(tl.float32)
            if GUIDED:
                scale = tl.load(scale_pointer + tokens, mask=inside_tokens, other=1.0)[:, None]
                negative = tl.load(negative_pointer + rows + columns[None, :], mask=inside, other=0.0)
                negative = negative.to(tl.float32)
                hidden = negative + scale * (hidden - negative)
            inside = inside_ids[:, None] & (columns < width)[None, :]
            weight = tl.trans(tl.load(weight_pointer + weight_rows + columns[None, :], mask=inside, other=0.0))
            if HIDDEN_IN_TWO:
                # Two halves of a float32 in the type of the weights: nearly as exact, on the fast units.
                high = hidden.to(weight.dtype)
                low = (hidden - high.to(tl.float32)).to(weight.dtype)
                sums = tl.dot(high, weight, sums)
                sums = tl.dot(low, weight, sums)
            else:
                sums = tl.dot(hidden, weight, sums, input_precision=PRECISION)

        sums += tl.load(bias_pointer + ids, mask=inside_ids, other=0.0).to(tl.float32)[None, :]
        if RANDOM:
            # Volatile, so that the compiler does not keep ten rounds of keys in registers through all products.
            keys = tl.load(keys_pointer + tokens, mask=inside_tokens, other=0, volatile=True)
            word_0, word_1, word_2, word_3 = philox_words(keys[:, None], block[None, :], draw)
            sums += temperature * gumbel_number(word_of_lane(lane, word_0, word_1, word_2, word_3))
        sums = tl.where(inside_ids[None, :], sums, float("-inf"))
        largest = tl.max(sums, axis=1)
        # The smallest id where several sums are largest.
        is_largest = (sums == largest[:, None]) & inside_ids[None, :]
        first_id = tl.min(tl.where(is_largest, ids[None, :], _NO_ID), axis=1)
        better = (largest > best) | ((largest == best) & (first_id < best_id))
        best = tl.where(better, largest, best)
        best_id = tl.where(better, first_id, best_id)

    at = split.to(tl.int64) * num_tokens + tokens
    tl.store(best_pointer + at, best, mask=inside_tokens)
    tl.store(best_id_pointer + at, best_id, mask=inside_tokens)


@triton.jit
@no_type_check
def best_of_splits_kernel(
    best_pointer,
    best_id_pointer,
    id_pointer,
    num_tokens,
    num_splits,
    vocabulary,
    BLOCK_SPLITS: tl.constexpr,
):
    """The best id over all splits, one token per program."""
    token = tl.program_id(0)
    splits = tl.arange(0, BLOCK_SPLITS)
    inside = splits < num_splits
    at = splits.to(tl.int64) * num_tokens + token
    best = tl.load(best_pointer + at, mask=inside, other=float("-inf"))
    best_id = tl.load(best_id_pointer + at, mask=inside, other=_NO_ID)
    largest = tl.max(best, axis=0)
    chosen = tl.min(tl.where(best == largest, best_id, _NO_ID), axis=0)
    # Logits that are no numbers win no comparison; the id must still be one of the vocabulary.
    tl.store(id_pointer + token, tl.minimum(chosen, vocabulary - 1).to(tl.int64))


@torch.no_grad()
def draw_from_vocabulary(
    condition: Float[Tensor, "tokens width"],
    weight: Float[Tensor, "vocabulary width"],
    bias: Float[Tensor, "vocabulary"],
    *,
    random: KeyedRandom,
    temperature: float = 1.0,
    guidance: Guidance | None = None,
    precision: str = "tf32x3",
) -> Int[Tensor, "tokens"]:
    """One id per hidden vector: argmax of guided logits + temperature * Gumbel noise, as the softmax head's reference.

    Takes one draw of `random`, none at temperature 0, which takes the likeliest id. Products are as exact as float32:
    half-precision weights meet hidden vectors split in two halves, float32 weights are multiplied in three passes
    (`tf32x3`; `ieee` is exact to the last digit and slow, `tf32` fast and coarse). Ids can differ from the reference
    only where two sums lie within rounding of each other. Hidden vectors that are not finite give some id. Raises
    `InvalidRequestError` for shapes that do not fit or a negative temperature.
    """
    num_tokens, width = condition.shape
    vocabulary = weight.shape[0]
    _check(condition, weight, bias, random, temperature, guidance)
    ids = torch.empty(num_tokens, dtype=torch.int64, device=condition.device)
    # Without noise the keys are not used, but their place is still read.
    streams = NoiseStreams.taken_from(random, num_draws=0 if temperature == 0.0 else 1)
    if num_tokens == 0:
        return ids
    condition = condition.contiguous()
    negative = condition if guidance is None else guidance.negative.contiguous()
    scale = bias if guidance is None else guidance.scale.float().contiguous()
    tiling = VocabularyTiling.choose(num_tokens, vocabulary)
    best = torch.empty(tiling.num_splits, num_tokens, dtype=torch.float32, device=condition.device)
    best_id = torch.empty(tiling.num_splits, num_tokens, dtype=torch.int32, device=condition.device)
    weight, bias = weight.contiguous(), bias.contiguous()
    launch(
        vocabulary_kernel,
        (tiling.num_splits, triton.cdiv(num_tokens, tiling.block_tokens)),
        condition,
        negative,
        scale,
        weight,
        bias,
        streams.keys,
        best,
        best_id,
        num_tokens,
        vocabulary,
        width,
        temperature,
        streams.first_draw,
        tiling.num_splits,
        reads=(condition, *(() if guidance is None else (negative, scale)), weight, bias, streams.keys),
        writes=(best, best_id),
        GUIDED=guidance is not None,
        RANDOM=temperature > 0.0,
        HIDDEN_IN_TWO=weight.dtype != torch.float32,
        PRECISION=precision,
        BLOCK_TOKENS=tiling.block_tokens,
        BLOCK_IDS=tiling.block_ids,
        BLOCK_WIDTH=tiling.block_width,
        num_warps=tiling.num_warps,
        num_stages=tiling.num_stages,
        maxnreg=MOST_REGISTERS,
    )
    launch(
        best_of_splits_kernel,
        (num_tokens,),
        best,
        best_id,
        ids,
        num_tokens,
        tiling.num_splits,
        vocabulary,
        reads=(best, best_id),
        writes=(ids,),
        BLOCK_SPLITS=triton.next_power_of_2(tiling.num_splits),
        num_warps=1,
    )
    return ids


def _check(
    condition: Tensor,
    weight: Tensor,
    bias: Tensor,
    random: KeyedRandom,
    temperature: float,
    guidance: Guidance | None,
) -> None:
    num_tokens, width = condition.shape
    if weight.shape[1] != width or tuple(bias.shape) != (weight.shape[0],):
        raise InvalidRequestError(
            f"Expected a matrix (vocabulary, {width}) and a bias as long as the vocabulary, found shapes "
            f"{tuple(weight.shape)} and {tuple(bias.shape)}."
        )
    if max(num_tokens, weight.shape[0]) * width > LARGEST_MATRIX:
        raise InvalidRequestError(
            f"Expected matrices of at most {LARGEST_MATRIX} values, found {num_tokens} hidden vectors and "
            f"{weight.shape[0]} ids of width {width}. Draw fewer tokens at a time."
        )
    if random.num_rows != num_tokens:
        raise InvalidRequestError(f"Expected {num_tokens} rows of random numbers, found {random.num_rows}.")
    if not temperature >= 0.0:
        raise InvalidRequestError(f"Expected a temperature of 0 or more, found {temperature}.")
    if guidance is not None and (
        guidance.negative.shape != condition.shape or tuple(guidance.scale.shape) != (num_tokens,)
    ):
        raise InvalidRequestError(
            f"Expected guidance with negative vectors of shape {tuple(condition.shape)} and one scale per token, found "
            f"shapes {tuple(guidance.negative.shape)} and {tuple(guidance.scale.shape)}."
        )
