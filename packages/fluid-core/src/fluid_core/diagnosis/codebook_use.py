"""Codebook collapse: few codes are used, by the tokenizer of real pictures or by the model that draws."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluid_core.diagnosis.evidence import Evidence
from fluid_core.diagnosis.finding import Finding, Verdict, not_looked, percent, places, several
from fluid_core.diagnosis.uncertainty import Estimate, as_plain, bootstrap_weights
from fluid_core.token_space import DiscreteTokens

USED_BY_TOKENIZER = 0.25
"""Codes that real pictures use at least, as a share of those that as many tokens would use if all were equally likely.

Good codebooks use nearly all, and plain data (many empty backgrounds) half; collapsed ones a tenth and less.
"""

MODEL_VARIETY = 0.5
"""Perplexity of drawn ids at least, as a share of that of as many real ones.

Sampling below the learned distribution (temperature, top_k, guidance) takes some of it away; half is another picture.
"""


def diagnose_codebook_use(evidence: Evidence) -> Finding:
    """Count codes: of real pictures against the size of the codebook, of drawn ones against those of real ones."""
    space = evidence.token_space
    if space is not None and not isinstance(space, DiscreteTokens):
        return not_looked("Tokens are continuous: there is no codebook.")
    if evidence.real is None or evidence.real.tokens is None or space is None:
        return not_looked(evidence.why_no_pictures or "The tokenizer is not known: name the model with --model.")
    ids = evidence.real.tokens if evidence.real_ids is None else evidence.real_ids
    tokenizer = _use(ids, space.vocabulary_size)
    dead = tokenizer["num_used"] < USED_BY_TOKENIZER * tokenizer["num_used_if_even"]
    rows = [
        {
            "name": one.name,
            "guidance": one.guidance,
            **_compared(one.tokens, evidence.real.tokens, space.vocabulary_size),
        }
        for one in evidence.drawn
        if one.tokens is not None
    ]
    poor = [row for row in rows if row["is_found"]]
    shown = poor or rows[:1]
    return Finding(
        verdict=Verdict.FOUND if dead or poor else Verdict.NOT_FOUND,
        where="" if dead else places(poor, rows),
        found=several(
            [
                f"The tokenizer uses {tokenizer['num_used']} of {space.vocabulary_size} codes on {len(ids)} real "
                f"pictures (perplexity {tokenizer['perplexity']:.1f}); as many tokens would use "
                f"{tokenizer['num_used_if_even']:.0f} if codes were equally likely. {_never(tokenizer)}",
                *(_in_words(row) for row in shown),
            ]
        ),
        expected=(
            f"A tokenizer that uses {percent(USED_BY_TOKENIZER)} of those codes or more, and a model whose ids have "
            f"{percent(MODEL_VARIETY)} of the perplexity of real ones or more."
        ),
        advice=_advice(dead, poor),
        figures={"vocabulary_size": space.vocabulary_size, "tokenizer": tokenizer, "drawn": as_plain(rows)},
    )


def _use(ids: Int[Tensor, "pictures length"], size: int) -> dict[str, Any]:
    counts = torch.bincount(ids.flatten(), minlength=size).double()
    return {
        "num_tokens": ids.numel(),
        "num_used": int((counts > 0).sum()),
        "num_used_if_even": size * (1.0 - (1.0 - 1.0 / size) ** ids.numel()),
        "perplexity": float(perplexities(counts[None])[0]),
        "most_frequent_share": float(counts.max() / counts.sum()),
    }


def perplexities(counts: Float[Tensor, "samples codes"]) -> Float[Tensor, "samples"]:
    """How many equally likely codes are as uncertain as those that were counted: e to the entropy in nats."""
    shares = counts / counts.sum(dim=1, keepdim=True)
    entropy: Tensor = -torch.special.xlogy(shares, shares).sum(dim=1)
    return entropy.exp()


def _compared(drawn: Tensor, real: Tensor, size: int) -> dict[str, Any]:
    """Of as many pictures of both: perplexity grows with the number of tokens."""
    count = min(len(drawn), len(real))
    of_drawn, of_real = _by_picture(drawn[:count], size), _by_picture(real[:count], size)
    value = float(perplexities(of_drawn.sum(dim=0)[None]) / perplexities(of_real.sum(dim=0)[None]))
    weights = bootstrap_weights(count)
    ratios = perplexities(weights @ of_drawn) / perplexities(weights @ of_real)
    missing = Estimate(value=1.0 - value, error=float(ratios.std()))
    return {
        "num_pictures": count,
        "num_used": int((of_drawn.sum(dim=0) > 0).sum()),
        "num_used_real": int((of_real.sum(dim=0) > 0).sum()),
        "perplexity": float(perplexities(of_drawn.sum(dim=0)[None])),
        "perplexity_real": float(perplexities(of_real.sum(dim=0)[None])),
        "perplexity_ratio": Estimate(value=value, error=missing.error),
        "is_found": count > 1 and missing.above(1.0 - MODEL_VARIETY),
    }


def _by_picture(ids: Int[Tensor, "pictures length"], size: int) -> Float[Tensor, "pictures codes"]:
    counts = torch.zeros(len(ids), size, dtype=torch.float64)
    counts.scatter_add_(1, ids.long(), torch.ones(ids.shape, dtype=torch.float64))
    return counts


def _never(tokenizer: dict[str, Any]) -> str:
    return f"The most frequent code is {percent(tokenizer['most_frequent_share'])} of all tokens."


def _in_words(row: dict[str, Any]) -> str:
    ratio = row["perplexity_ratio"]
    return (
        f"Pictures drawn {row['name']} use {row['num_used']} codes where as many real ones use {row['num_used_real']}, "
        f"with {ratio.value:.2f} +- {ratio.error:.2f} times their perplexity ({row['num_pictures']} pictures)."
    )


def _advice(dead: bool, poor: list[dict[str, Any]]) -> tuple[str, ...]:
    advice = []
    if dead:
        advice += [
            "Train the tokenizer with revive_dead_codes, or longer, and look at its codes_used.",
            "Take a smaller codebook: unused codes cost the softmax head and give nothing.",
        ]
    if poor:
        advice += [
            "Draw with --temperature 1, without top_k or top_p, and with less guidance: each takes variety away.",
            "If it stays at guidance 1, train longer: what the model learns first are the most frequent codes.",
        ]
    return tuple(advice)
