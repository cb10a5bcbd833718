"""Findings in words. Every sentence is put together from numbers; none stands there whatever comes out."""

import math
from collections.abc import Sequence

from fluid_core.evaluation.fit_text import interval_text
from fluid_core.evaluation.plotting import counted
from fluid_core.study.comparisons import Difference, Row
from fluid_core.study.findings import Findings, PairFindings, VariantFindings, falls_with_size, overall_scores
from fluid_core.study.paper_results import PAPER_SIZES, PAPER_VARIANTS

_CHANGES = {
    ("continuous-random", "discrete-random"): "Continuous tokens against discrete ones, in random order",
    ("continuous-raster", "discrete-raster"): "Continuous tokens against discrete ones, in raster order",
    ("discrete-random", "discrete-raster"): "Random order against raster, with discrete tokens",
    ("continuous-random", "continuous-raster"): "Random order against raster, with continuous tokens",
}


def pair_statement(pair: PairFindings) -> str:
    """One comparison, the paper's beside it, and whether the two agree."""
    what = _CHANGES.get((pair.first, pair.second), f"{pair.first} against {pair.second}")
    told_up = sum(one.sign > 0 for one in pair.by_size)
    told_down = sum(one.sign < 0 for one in pair.by_size)
    better = sum(one.value > 0 for one in pair.by_size)
    here = (
        f"**{what}**: {_signed(pair.over_sizes)} in the overall score over {_sizes(len(pair.by_size))}; higher at "
        f"{better} of {len(pair.by_size)}, told from chance at {told_up + told_down}"
        f"{f' ({told_up} up, {told_down} down)' if told_up and told_down else ''}."
    )
    if pair.paper is None or pair.paper_mean is None:
        return here
    higher = sum(one > 0 for one in pair.paper)
    paper = f" In the paper it was {pair.paper_mean:+.3f}, higher at {higher} of {len(pair.paper)}."
    if pair.agreement == "undecided":
        needed = pair.over_sizes.prompts_needed
        budget = (
            f"a difference of this size would take about {counted(needed)} prompts instead of "
            f"{pair.over_sizes.num_prompts} to tell"
            if needed is not None
            else "a difference this small beside what chance and seeds change is not told by more prompts alone"
        )
        return f"{here}{paper} **Undecided**: the interval holds zero; {budget}."
    verdict = "**The two agree**" if pair.agreement == "agrees" else "**The two differ**"
    return f"{here}{paper} {verdict} on which is better."


def task_statements(pairs: Sequence[PairFindings]) -> list[str]:
    """In which tasks a change helps, hurts, or makes no difference that these prompts could tell."""
    lines = []
    for pair in pairs:
        told: dict[str, list[str]] = {"better": [], "worse": [], "not told apart": []}
        for task, (value, error) in pair.by_task.items():
            reach = 1.96 * error
            apart = not math.isnan(error) and abs(value) > reach
            word = "not told apart" if not apart else "better" if value > 0 else "worse"
            told[word].append(f"{task} ({value:+.2f} ± {reach:.2f})")
        parts = [f"{word} in {', '.join(group)}" for word, group in told.items() if group]
        lines.append(f"**{pair.first} against {pair.second}**: {'; '.join(parts)}.")
    return lines


def loss_statement(ours: VariantFindings, paper: VariantFindings | None) -> str:
    """Whether the loss falls with size, and as a power law."""
    fell, steps = falls_with_size(ours.points)
    if steps == 0:
        return f"**{ours.variant}**: one size, nothing to fit."
    text = f"**{ours.variant}** ({ours.loss_kind}): the loss fell at {fell} of {steps} steps up in size"
    if ours.fit is None:
        return f"{text}; too few sizes for a power law with an interval."
    text += (
        f"; exponent {ours.fit.law.exponent:.3f} (95%: {interval_text(ours.fit.exponent_interval)}), "
        f"R² {ours.fit.r_squared:.3f}, largest error {max(map(abs, ours.fit.relative_errors)):.1%}"
    )
    if ours.fit.repeat_deviation is not None:
        text += f" beside {ours.fit.repeat_deviation:.1%} between seeds"
    text += f". {_law_verdict(ours)}"
    if ours.held_out is not None:
        held = ours.held_out
        text += (
            f" Fitted without the largest size, the law foresaw {held.predicted:.4g} there"
            f"{f' ({interval_text(held.interval, 4)})' if held.interval is not None else ''} and "
            f"{held.found:.4g} was found, {held.relative_error:+.1%}"
            f"{'' if held.inside is None else ', as it expected' if held.inside else ', outside what it expected'}."
        )
    if paper is not None and paper.fit is not None and paper.held_out is not None:
        text += (
            f" Of the paper's numbers: exponent {paper.fit.law.exponent:.4f} "
            f"({interval_text(paper.fit.exponent_interval, 4)}), R² {paper.fit.r_squared:.3f}, its largest size off by "
            f"{paper.held_out.relative_error:+.2%} from the others' law."
        )
    return text


def _law_verdict(ours: VariantFindings) -> str:
    """Whether a straight line between logarithms describes the losses."""
    assert ours.fit is not None
    interval = ours.fit.exponent_interval
    if interval is None:
        return "Two sizes always lie on a line."
    if interval.low is not None and interval.low > 0:
        if ours.fit_with_floor is not None and (ours.fit_with_floor.floor_p_value or 1.0) < 0.05:
            floor = ours.fit_with_floor.law.floor
            return f"It falls, but levels off: a law with an irreducible loss of {floor:.4g} fits better."
        return "That is a power law as far as these sizes tell."
    return "These sizes do not tell the exponent from zero: no power law is shown."


def correlation_statement(ours: VariantFindings, paper: VariantFindings | None) -> str | None:
    """How loss and score go together."""
    found = ours.correlation
    if found is None:
        return None
    bounds = found.pearson_interval
    text = f"**{ours.variant}**: Pearson {found.pearson:+.2f}"
    text += f" ({interval_text(bounds, 2)})" if bounds is not None else ""
    text += f", Spearman {found.spearman:+.2f} over {found.num_points} runs"
    if bounds is None or bounds.low is None or bounds.high is None or bounds.holds(0.0):
        text += ", not told from none"
    else:
        text += ", lower loss, better pictures" if found.pearson < 0 else ", lower loss, worse pictures"
    if paper is not None and paper.correlation is not None:
        text += f" (paper, over its five sizes: {paper.correlation.pearson:+.2f})"
    return f"{text}."


def best_statement(rows: Sequence[Row]) -> str | None:
    """Which variant is best at the largest size, here and in the paper."""
    scores = overall_scores(rows)
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    largest = [size for size in sizes if any(key[1] == size for key in scores)]
    if not largest:
        return None
    here = {variant: score for (variant, size), score in scores.items() if size == largest[-1]}
    ranked = sorted(here, key=lambda name: -here[name])
    text = f"Best to worst at the size {largest[-1]}: " + ", ".join(f"{name} {here[name]:.2f}" for name in ranked)
    shared = [name for name in ranked if name in PAPER_VARIANTS]
    if len(shared) < 2:
        return f"{text}."
    paper = sorted(shared, key=lambda name: -PAPER_VARIANTS[name].geneval[-1])
    listed = ", ".join(f"{name} {PAPER_VARIANTS[name].geneval[-1]:.2f}" for name in paper)
    if paper == shared:
        same = "the same order"
    else:
        same = f"another order, with {'the same' if paper[0] == shared[0] else 'another'} best"
    return f"{text}. The paper's GenEval at {PAPER_SIZES[-1].upper()}: {listed}; {same}."


def statements(findings: Findings, rows: Sequence[Row]) -> dict[str, list[str]]:
    """All sentences, by the heading they belong under."""
    paper = {one.variant: one for one in findings.paper}
    found = {
        "Which is better": [pair_statement(pair) for pair in findings.pairs],
        "In which tasks": task_statements(findings.pairs),
        "Loss and size": [loss_statement(one, paper.get(one.variant)) for one in findings.variants],
        "Loss and scores": [
            text for one in findings.variants if (text := correlation_statement(one, paper.get(one.variant)))
        ],
    }
    best = best_statement(rows)
    if best is not None and len(findings.variants) > 1:
        found["Which is better"].insert(0, best)
    return {heading: lines for heading, lines in found.items() if lines}


def _signed(one: Difference) -> str:
    return f"{one.value:+.3f} ± {one.reach:.3f}"


def _sizes(number: int) -> str:
    return "one size" if number == 1 else f"{number} sizes"
