"""Bright spots: single tokens far outside what tokens of the data are (the paper saw them with random order)."""

from collections import Counter
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fluid_core.diagnosis.evidence import DrawnPictures, Evidence, steps_in_words
from fluid_core.diagnosis.finding import Finding, Verdict, not_looked, percent, places, several
from fluid_core.diagnosis.uncertainty import chance_of_more

MARGIN = 0.5
"""How far outside the values seen in real tokens a channel must be, in widths of that range.

The range of a thousand normal values is six to seven standard deviations wide, so this is beyond six of them, where no
further real picture gets. In pictures of a small model whose tokens are pixels, a third of the width outside was a
slight mottling of plain colours, and a whole width glaring spots.
"""

ENORMOUS = 2.0
"""The same for a token that needs no company: where one value is two whole ranges outside, one picture is enough."""

CHANCE = 0.005
"""How unlikely as many pictures with spots must be if drawn pictures were as real ones (Fisher's exact test)."""


def diagnose_bright_spots(evidence: Evidence) -> Finding:
    """Look for tokens outside the range of real ones, and in which steps they arise."""
    if evidence.real is None or not evidence.drawn:
        return not_looked(evidence.why_no_pictures)
    if evidence.discrete:
        return not_looked("Tokens are ids of a codebook, none of which is outside of it.")
    if evidence.real.tokens is None:
        return not_looked("Tokens of the pictures are not known: name the model that drew them with --model.")
    real = evidence.real.tokens.double()
    limits = _Range(real.flatten(0, -2))
    # How many real pictures fall outside the range of the others.
    odd, even = real[::2], real[1::2]
    if not len(even):
        return not_looked("There is one real picture: its tokens have no range that others could be compared with.")
    among_real = int(_Range(odd.flatten(0, -2)).outside(even, MARGIN).any(dim=1).sum())
    among_real += int(_Range(even.flatten(0, -2)).outside(odd, MARGIN).any(dim=1).sum())
    rows = [_measured(limits, one, among_real, len(real)) for one in evidence.drawn]
    found = [row for row in rows if row["is_found"]]
    shown = found[0] if found else max(rows, key=lambda row: row["num_tokens_outside"])
    return Finding(
        verdict=Verdict.FOUND if found else Verdict.NOT_FOUND,
        where=places(found, rows),
        found=several([_in_words(shown), _others(found, shown)]),
        expected=(
            "Tokens within the range of real ones and half of its width more on each side. Of real pictures, "
            f"{among_real} of {len(real)} leave that range of the others."
        ),
        advice=_advice(evidence, shown) if found else (),
        figures={
            "margin": MARGIN,
            "lowest_real": limits.low.tolist(),
            "highest_real": limits.high.tolist(),
            "real_pictures_outside": among_real,
            "num_real": len(real),
            "drawn": rows,
        },
    )


class _Range:
    """The least and the largest value of each channel."""

    def __init__(self, vectors: Float[Tensor, "tokens channels"]) -> None:
        self.low, self.high = vectors.amin(dim=0), vectors.amax(dim=0)
        # A channel that never varies has no width; the widest tells what a difference is.
        width = self.high - self.low
        self._width = torch.where(width > 0, width, width.max().clamp(min=1e-12))

    def beyond(self, tokens: Float[Tensor, "pictures length channels"]) -> Float[Tensor, "pictures length"]:
        """How far the worst channel of each token is outside, in widths; 0 or less inside."""
        return (torch.maximum(self.low - tokens, tokens - self.high) / self._width).amax(dim=2)

    def outside(
        self, tokens: Float[Tensor, "pictures length channels"], margin: float
    ) -> Bool[Tensor, "pictures length"]:
        """Which tokens are outside by more than the margin."""
        return self.beyond(tokens) > margin


def _measured(limits: _Range, drawn: DrawnPictures, among_real: int, num_real: int) -> dict[str, Any]:
    assert drawn.tokens is not None
    beyond = limits.beyond(drawn.tokens.double())
    outside = beyond > MARGIN
    num_affected = int(outside.any(dim=1).sum())
    chance = chance_of_more(num_affected, len(outside), among_real, num_real)
    return {
        "name": drawn.name,
        "guidance": drawn.guidance,
        "num_pictures": len(outside),
        "num_pictures_affected": num_affected,
        "num_tokens": outside.numel(),
        "num_tokens_outside": int(outside.sum()),
        "farthest": float(beyond.max()),
        "chance": chance,
        **_when(outside, drawn),
        "is_found": (num_affected > 0 and chance < CHANCE) or bool((beyond > ENORMOUS).any()),
    }


def _when(outside: Bool[Tensor, "pictures length"], drawn: DrawnPictures) -> dict[str, Any]:
    """In which steps the tokens arose, and whether that is another share of them than of all tokens."""
    if drawn.step is None or drawn.known_before is None or not bool(outside.any()):
        return {"steps": None, "by_third": None, "all_by_third": None}
    third = (drawn.known_before * 3).long().clamp(0, 2)
    counted = Counter(third[outside].tolist())
    return {
        "steps": steps_in_words(drawn.step[outside]),
        "by_third": [counted[part] / int(outside.sum()) for part in range(3)],
        "all_by_third": [float((third == part).double().mean()) for part in range(3)],
    }


def _in_words(row: dict[str, Any]) -> str:
    if not row["num_tokens_outside"]:
        return (
            f"No token of the {row['num_pictures']} pictures drawn {row['name']} is far outside the range of real ones."
        )
    words = (
        f"{row['num_tokens_outside']} of {row['num_tokens']} tokens, in {row['num_pictures_affected']} of "
        f"{row['num_pictures']} pictures drawn {row['name']}, are far outside the range of real ones, the farthest by "
        f"{row['farthest']:.1f} times its width."
    )
    if row["steps"] is not None:
        first, _, last = row["by_third"]
        words += f" They were drawn in {row['steps']}, {percent(first)} of them in the first third of the picture and "
        words += f"{percent(last)} in the last."
    return words


def _others(found: list[dict[str, Any]], shown: dict[str, Any]) -> str:
    others = [row for row in found if row is not shown]
    told = [f"{row['name']} {row['num_tokens_outside']} in {row['num_pictures_affected']} pictures" for row in others]
    return f"Further ones {'; '.join(told)}." if told else ""


def _advice(evidence: Evidence, row: dict[str, Any]) -> tuple[str, ...]:
    advice = []
    if row["guidance"] is not None and row["guidance"] > 1.0:
        advice.append("Draw with less guidance, or with --guidance-schedule linear.")
    if evidence.head in (None, "diffusion"):
        advice.append(
            "A diffusion head: start the reverse process later (--head-option first_timestep=960), limit its clean "
            "token (--head-option token_limit=4), or take more steps (--head-steps 100). Errors of the noisiest steps "
            "are the usual cause."
        )
    else:
        advice.append("Take more steps of the head (--head-steps).")
    by_third, shares = row["by_third"], row["all_by_third"]
    if by_third is not None and by_third[2] > max(0.5, 1.2 * shares[2]) and not evidence.one_after_the_other:
        advice.append(
            "They arise late, where many tokens are drawn at once without seeing each other: more order steps "
            "(--steps), or steps of equal size."
        )
    if by_third is not None and by_third[0] > max(0.5, 1.2 * shares[0]):
        advice.append("They arise early, where hardly anything is known: train longer, or lower --temperature.")
    advice.append("Lower --temperature to 0.9, and train longer: heads that were trained briefly have such tails.")
    return tuple(advice)
