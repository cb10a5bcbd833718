"""Drift: mean and spread of drawn tokens leave those of the data, under strong guidance or along the picture."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.diagnosis.evidence import THIRDS, DrawnPictures, Evidence, third_of, token_values, unequal_channels
from fluid_core.diagnosis.finding import Finding, Verdict, names_of, not_looked, places, several
from fluid_core.diagnosis.uncertainty import Estimate, as_plain, bootstrap_weights

MEAN_SHIFT = 0.3
"""How far means of channels may be from those of the data, in standard deviations (root mean square over channels).

A shift of brightness by as much is seen at once. Sampled data of a few dozen pictures come to 0.1.
"""

SPREAD_RATIO = 1.25
"""How many times larger, or smaller, the spread of tokens may be than that of the data.

Decoders are trained on tokens of the data; from a quarter more on, colours saturate, and at a quarter less they fade.
"""


def diagnose_token_drift(evidence: Evidence) -> Finding:
    """Compare mean and spread of tokens, or for ids of colours of patches, with the data's at every guidance scale."""
    if evidence.real is None or evidence.grid is None or not evidence.drawn:
        return not_looked(evidence.why_no_pictures)
    real = token_values(evidence.real.pictures, evidence.real.tokens, evidence.grid)
    if len(real) < 2:
        return not_looked("There is one real picture: nobody knows how others differ from it.")
    measure = _Statistics(real)
    rows = [_measured(measure, one, evidence) for one in evidence.drawn]
    found = [row for row in rows if row["is_found"]]
    what = "Tokens" if measure_is_of_tokens(evidence) else "Colours of patches"
    return Finding(
        verdict=Verdict.FOUND if found else Verdict.NOT_FOUND,
        where=places(found, rows),
        found=several([_which(rows, found), *(_in_words(row, what) for row in (found[:2] or rows[-1:]))]),
        expected=(
            f"Means within {MEAN_SHIFT:g} standard deviations of the data's, and a spread from {1 / SPREAD_RATIO:.2g} "
            f"to {SPREAD_RATIO:g} times the data's."
        ),
        advice=_advice(evidence, rows, found) if found else (),
        figures={
            "of": "tokens" if measure_is_of_tokens(evidence) else "mean colours of patches",
            "drawn": as_plain(rows),
        },
    )


def measure_is_of_tokens(evidence: Evidence) -> bool:
    """Whether tokens themselves are measured, rather than colours of patches."""
    return evidence.real is not None and evidence.real.tokens is not None and not evidence.discrete


class _Statistics:
    """Mean and spread in units of the data's own, with their standard errors."""

    def __init__(self, real: Float[Tensor, "pictures length channels"]) -> None:
        self._real = real
        vectors = real.flatten(0, 1)
        self._mean, std = vectors.mean(dim=0), vectors.std(dim=0)
        # A channel that never varies would blow up the least difference.
        self._std = torch.where(std > 1e-6 * std.max().clamp(min=1e-12), std, std.max().clamp(min=1e-12))

    def compared(
        self, drawn: Float[Tensor, "pictures length channels"], chosen: Tensor | None = None
    ) -> dict[str, Any]:
        """Shift of means and ratio of spreads; with `chosen`, of some tokens of each picture, and real ones there."""
        sampled = _moments((drawn - self._mean) / self._std, chosen)
        # Positions that were drawn early differ from others, as the sky does from the ground.
        paired = chosen is not None and len(drawn) == len(self._real)
        data = _moments((self._real - self._mean) / self._std, chosen if paired else None)
        shift, ratio, norm = _summary(sampled, torch.ones(1, len(sampled)), data, torch.ones(1, len(data)))
        weights = bootstrap_weights(len(sampled), seed=0)
        weights_of_data = weights if paired else bootstrap_weights(len(data), seed=1)
        shifts, ratios, norms = _summary(sampled, weights, data, weights_of_data)
        # Chance alone makes a distance, and the resamples have that twice.
        by_chance = float((shifts.square().mean() - shift.square().mean()).clamp(min=0.0))
        value = max(0.0, float(shift.square()) - by_chance) ** 0.5
        return {
            "mean_shift": Estimate(value=value, error=float(shifts.std())),
            "spread_ratio": Estimate(value=float(ratio), error=float(ratios.std())),
            "norm_ratio": Estimate(value=float(norm), error=float(norms.std())),
        }


def _moments(
    scaled: Float[Tensor, "pictures length channels"], chosen: Tensor | None
) -> Float[Tensor, "some 2 channels"]:
    """Mean and mean square of each channel over the tokens of each picture that are chosen."""
    values = torch.stack([scaled, scaled.square()], dim=2)
    if chosen is None:
        return values.mean(dim=1)
    counts = chosen.sum(dim=1)
    sums = (values * chosen[:, :, None, None]).sum(dim=1)
    return (sums / counts.clamp(min=1)[:, None, None])[counts > 0]


def _summary(sampled: Tensor, weights: Tensor, data: Tensor, weights_of_data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each row of weights: distance of means, ratio of spreads, ratio of norms."""

    def weighted(moments: Tensor, by: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        by = by.double() / by.double().sum(dim=1, keepdim=True)
        mean, square = torch.einsum("rp,pkc->krc", by, moments.double())
        return mean, (square - mean.square()).clamp(min=0.0).mean(dim=1).sqrt(), square.mean(dim=1).sqrt()

    mean, spread, norm = weighted(sampled, weights)
    other_mean, other_spread, other_norm = weighted(data, weights_of_data)
    shift = (mean - other_mean).square().mean(dim=1).sqrt()
    return shift, spread / other_spread.clamp(min=1e-12), norm / other_norm.clamp(min=1e-12)


def _measured(measure: _Statistics, drawn: DrawnPictures, evidence: Evidence) -> dict[str, Any]:
    assert evidence.grid is not None
    values = token_values(drawn.pictures, drawn.tokens, evidence.grid)
    row = {"name": drawn.name, "guidance": drawn.guidance, "num_pictures": len(values), **measure.compared(values)}
    by_third: list[dict[str, Any] | None] | None = None
    if drawn.known_before is not None:
        third = third_of(drawn.known_before)
        by_third = [
            measure.compared(values, third == part) if bool((third == part).any()) else None
            for part in range(len(THIRDS))
        ]
    return {**row, "by_third": by_third, "is_found": _drifted(row)}


def _drifted(row: dict[str, Any]) -> bool:
    if row["num_pictures"] < 2:
        return False
    ratio = row["spread_ratio"]
    wider = Estimate(value=ratio.value - 1.0, error=ratio.error)
    narrower = Estimate(value=1.0 - ratio.value, error=ratio.error)
    return bool(
        row["mean_shift"].above(MEAN_SHIFT)
        or wider.above(SPREAD_RATIO - 1.0)
        or narrower.above(1.0 - 1.0 / SPREAD_RATIO)
    )


def _which(rows: list[dict[str, Any]], found: list[dict[str, Any]]) -> str:
    """At which scales there is drift."""
    if not found or len(rows) == 1:
        return ""
    if rows[0]["is_found"]:
        return f"There is drift {names_of(found)}; {rows[0]['name']} it is not guidance that makes it."
    return f"There is none {names_of([row for row in rows if not row['is_found']])}, and there is {names_of(found)}."


def _in_words(row: dict[str, Any], what: str) -> str:
    ratio, shift = row["spread_ratio"], row["mean_shift"]
    words = (
        f"{what} of pictures drawn {row['name']} have {ratio.value:.2f} +- {ratio.error:.2f} times the spread of the "
        f"data's, and means {shift.value:.2f} +- {shift.error:.2f} standard deviations from them "
        f"({row['num_pictures']} pictures)."
    )
    if row["by_third"] is not None and row["is_found"]:
        told = ", ".join(
            f"{name} {one['spread_ratio'].value:.2f}"
            for name, one in zip(THIRDS, row["by_third"], strict=True)
            if one is not None
        )
        words += f" Spread along the picture, in times the data's at the same places: {told}."
    return words


def _advice(evidence: Evidence, rows: list[dict[str, Any]], found: list[dict[str, Any]]) -> tuple[str, ...]:
    advice = []
    if not rows[0]["is_found"]:
        advice += [
            f"Stay below guidance {found[0]['guidance']:g}, or let it grow along the picture (--guidance-schedule "
            "linear), or act in a part of it (--guidance-schedule interval).",
        ]
        if evidence.head in (None, "diffusion"):
            advice.append(
                "A diffusion head: take back the spread that guidance adds (--head-option guidance_rescale=0.7)."
            )
    else:
        narrow = found[0]["spread_ratio"].value < 1.0
        advice.append(
            "Train longer, or a larger model: too little spread is what a short training leaves."
            if narrow
            else "Train longer, take more head steps (--head-steps), or lower --temperature."
        )
    if unequal_channels(evidence):
        advice.append(
            "Give tokens zero mean and unit variance in each channel, which they are far from (fluid tokenizer "
            "measure): with equal channels, drift under guidance is much smaller."
        )
    return tuple(advice)
