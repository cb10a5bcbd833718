"""Grey patches: parts of drawn pictures that went flat (the paper saw them with raster order and continuous tokens)."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fluid_core.diagnosis.evidence import (
    THIRDS,
    DrawnPictures,
    Evidence,
    RealPictures,
    parts,
    patches,
    third_of,
    unequal_channels,
)
from fluid_core.diagnosis.finding import Finding, Verdict, not_looked, percent, places, several
from fluid_core.diagnosis.uncertainty import Estimate, as_plain, difference_of
from fluid_core.token_space import Grid

FLAT_CONTRAST = 0.25
"""A patch is flat if the spread of its pixels is below this share of that of real patches (root mean square).

At a quarter of the usual contrast, detail is gone to the eye; noise of a trained head on a plain background is below.
"""

EXTRA_FLAT = 0.1
"""Flat patches that drawn pictures have beyond real ones before it counts, as a share of all patches.

Real pictures differ that much with their subject; a tenth of a picture is what a viewer notices as a patch.
"""

FOREIGN_COLOUR = 0.15
"""How far a flat patch is at least from every colour of flat patches in real pictures to count as foreign.

In the cube of red, green and blue from 0 to 1: 38 of 255 in one of them. Below, shades of one surface differ.
"""

FOREIGN_QUANTILE = 0.995
"""Of the same distance between flat patches of real pictures, from one picture to the others: the line is not below."""

EXTRA_FOREIGN = 0.05
"""Flat patches in colours the data does not have that count, as a share of all patches: half of `EXTRA_FLAT`, since
real pictures have hardly any.
"""

GROWTH = 0.05
"""How much more the excess is in the last third of the way than in the first to say that it grows."""

NOISY = 0.3
"""Flat patches that drawn pictures lack before the words speak of noise, as a share of all patches."""

_MOST_COLOURS = 2000


def diagnose_flat_patches(evidence: Evidence) -> Finding:
    """Compare the share of flat patches of drawn pictures with that of real ones that the tokenizer gave back."""
    if evidence.real is None or evidence.grid is None or not evidence.drawn:
        return not_looked(evidence.why_no_pictures)
    flatness = _Flatness(evidence.real, evidence.grid)
    if flatness.contrast <= 0:
        return not_looked("All real pictures are flat: there is no contrast to compare with.")
    rows = [_measured(flatness, one) for one in evidence.drawn]
    found = [row for row in rows if row["is_found"]]
    worst = max(rows, key=lambda row: max(row["extra"].value / EXTRA_FLAT, row["extra_foreign"].value / EXTRA_FOREIGN))
    shown = found[0] if found else worst
    return Finding(
        verdict=Verdict.FOUND if found else Verdict.NOT_FOUND,
        where=places(found, rows),
        found=several([_in_words(shown, flatness, one_of=len(rows)), *(_others(rows, shown)), _growth_in_words(shown)]),
        expected=(
            f"At most {percent(EXTRA_FLAT)} more flat patches than in real pictures, and at most "
            f"{percent(EXTRA_FOREIGN)} in colours that flat parts of real pictures do not have."
        ),
        advice=_advice(evidence, shown) if found else (),
        figures={
            "reference_contrast": flatness.contrast,
            "flat_below": flatness.limit,
            "foreign_beyond": flatness.foreign_limit,
            "flat_share_real": float(flatness.real_flat.double().mean()),
            "drawn": as_plain(rows),
        },
    )


class _Flatness:
    """What is flat, and what is foreign, by the measure of real pictures."""

    def __init__(self, real: RealPictures, grid: Grid) -> None:
        self.grid = grid
        cells = patches(real.pictures.double(), grid)
        spread = contrasts(cells)
        self.contrast = float(spread.square().mean().sqrt())
        self.limit = FLAT_CONTRAST * self.contrast
        self.real_flat = spread < self.limit
        picture = torch.arange(len(spread))[:, None].expand_as(spread)[self.real_flat]
        # Evenly over all pictures where there are too many to compare each with each.
        stride = max(1, -(-len(picture) // _MOST_COLOURS))
        self._colours = cells.mean(dim=3)[self.real_flat][::stride]
        self._picture = picture[::stride]
        among_real = self._distances(self._colours, self._picture)
        finite = among_real[among_real.isfinite()]
        usual = float(finite.quantile(FOREIGN_QUANTILE)) if len(finite) else 0.0
        self.foreign_limit = max(FOREIGN_COLOUR, usual)

    def _distances(self, colours: Tensor, own_picture: Tensor | None) -> Tensor:
        """To the nearest colour of another real picture; infinite if there is none."""
        nearest = []
        for first in range(0, len(colours), 1024):
            distance = torch.cdist(colours[first : first + 1024], self._colours)
            if own_picture is not None:
                distance[own_picture[first : first + 1024, None] == self._picture] = torch.inf
            full = torch.nn.functional.pad(distance, (0, 1), value=torch.inf)
            nearest.append(full.min(dim=1).values)
        return torch.cat(nearest) if nearest else torch.zeros(0, dtype=torch.float64)

    def flat_and_foreign(
        self, pictures: Float[Tensor, "pictures 3 height width"]
    ) -> tuple[Bool[Tensor, "pictures length"], Bool[Tensor, "pictures length"]]:
        """Which patches are flat, and which of these have a colour that no flat part of a real picture has."""
        cells = patches(pictures.double(), self.grid)
        flat = contrasts(cells) < self.limit
        foreign = torch.zeros_like(flat)
        foreign[flat] = self._distances(cells.mean(dim=3)[flat], None) > self.foreign_limit
        return flat, foreign


def contrasts(cells: Float[Tensor, "pictures length 3 area"]) -> Float[Tensor, "pictures length"]:
    """Spread of the pixels of each patch about their mean colour: root mean square over the three channels."""
    return cells.var(dim=3, correction=0).mean(dim=2).sqrt()


def _measured(flatness: _Flatness, drawn: DrawnPictures) -> dict[str, Any]:
    flat, foreign = flatness.flat_and_foreign(drawn.pictures)
    extra = difference_of(flat.double().mean(dim=1), flatness.real_flat.double().mean(dim=1))
    # Of real pictures hardly any is foreign, by the quantile that drew the line.
    extra_foreign = difference_of(foreign.double().mean(dim=1), torch.zeros(len(flatness.real_flat)))
    return {
        "name": drawn.name,
        "guidance": drawn.guidance,
        "num_pictures": len(drawn.pictures),
        "flat_share": float(flat.double().mean()),
        "foreign_share": float(foreign.double().mean()),
        "extra": extra,
        "extra_foreign": extra_foreign,
        **_along_the_order(flat, flatness.real_flat, drawn),
        "is_found": extra.above(EXTRA_FLAT) or extra_foreign.above(EXTRA_FOREIGN),
    }


def _along_the_order(flat: Tensor, real_flat: Tensor, drawn: DrawnPictures) -> dict[str, Any]:
    """Flat patches beyond real ones at the same positions, by how far the picture was; growth from first to last."""
    # Without the same captions at the same places, a part of the way has no counterpart in real pictures.
    if drawn.known_before is None or len(real_flat) != len(flat):
        return {"extra_by_third": None, "growth": None}
    third = third_of(drawn.known_before)
    difference = flat.double() - real_flat.double()
    extra = [parts(difference, third, part) for part in range(len(THIRDS))]
    values = [float(one.mean()) if len(one) else None for one in extra]
    growth = difference_of(extra[-1], extra[0]) if len(extra[0]) > 1 and len(extra[-1]) > 1 else None
    return {"extra_by_third": values, "growth": growth}


def _in_words(row: dict[str, Any], flatness: _Flatness, *, one_of: int) -> str:
    where = f" {row['name']}" if one_of > 1 or row["guidance"] is not None else ""
    words = (
        f"Of the patches of pictures drawn{where}, {percent(row['flat_share'])} are flat, of real pictures "
        f"{percent(float(flatness.real_flat.double().mean()))} ({_signed(row['extra'])} points, {row['num_pictures']} "
        "pictures)."
    )
    if -row["extra"].value > NOISY:
        words += " Where real pictures are plain, drawn ones are full of noise."
    if row["foreign_share"] > 0:
        words += f" {percent(row['foreign_share'])} are flat in a colour that no flat part of a real picture has."
    return words


def _others(rows: list[dict[str, Any]], shown: dict[str, Any]) -> list[str]:
    others = [row for row in rows if row is not shown]
    if not others:
        return []
    return ["; ".join(f"{row['name']} {percent(row['flat_share'])}" for row in others).capitalize() + "."]


def _growth_in_words(row: dict[str, Any]) -> str:
    values, growth = row["extra_by_third"], row["growth"]
    if values is None or growth is None or not row["is_found"]:
        return ""
    told = ", ".join(
        f"{name} {100 * value:+.0f}" for name, value in zip(THIRDS, values, strict=True) if value is not None
    )
    if growth.above(GROWTH):
        return f"They become more along the order (points beyond real ones: {told}): errors add up from token to token."
    return f"They do not become more along the order (points beyond real ones: {told})."


def _signed(estimate: Estimate) -> str:
    return f"{100 * estimate.value:+.1f} +- {100 * estimate.error:.1f}"


def _advice(evidence: Evidence, row: dict[str, Any]) -> tuple[str, ...]:
    advice = []
    if row["guidance"] is not None and row["guidance"] > 1.0:
        advice.append(
            "Draw with less guidance, or let it grow along the picture (--guidance-schedule linear): it stretches "
            "tokens away from what was trained."
        )
    if evidence.one_after_the_other and not evidence.discrete:
        advice.append(
            "Raster order with continuous tokens is known for this (paper, failure cases): every error stays in view "
            "of all later tokens. Train with [order] name = 'random', which looks at the whole picture."
        )
    if unequal_channels(evidence):
        advice.append(
            "Give tokens zero mean and unit variance in each channel, which they are far from (fluid tokenizer "
            "measure): unequal channels let small errors grow."
        )
    advice.append("Train longer, or a larger model: short trainings draw flat pictures first.")
    return tuple(advice)
