"""What is said about a study, against made-up studies whose truth is known."""

import numpy as np
import pytest

from fluid_core.study.comparisons import difference, mean_difference, seed_deviation
from fluid_core.study.findings import PAIRS, find, findings_document, paper_findings
from fluid_core.study.paper_results import PAPER_CORRELATION_WITH_GENEVAL, PAPER_VARIANTS
from fluid_core.study.plots import correlation_figure, loss_figure, scores_figure, steps_figure
from fluid_core.study.statements import statements

LIKE_THE_PAPER = {
    "discrete-raster": 0.3,
    "discrete-random": 0.42,
    "continuous-raster": 0.15,
    "continuous-random": 0.55,
}
AGAINST_THE_PAPER = {
    "discrete-raster": 0.5,
    "discrete-random": 0.35,
    "continuous-raster": 0.4,
    "continuous-random": 0.15,
}


def all_said(rows):
    """Every sentence about rows, as one text for each heading."""
    return {heading: "\n".join(lines) for heading, lines in statements(find(rows), rows).items()}


def test_a_study_like_the_paper_agrees_with_it(make_rows):
    """Where the same variants are better, every comparison says that the two agree."""
    rows = make_rows(LIKE_THE_PAPER)
    found = find(rows)
    assert [(pair.first, pair.second) for pair in found.pairs] == list(PAIRS)
    assert [pair.agreement for pair in found.pairs] == ["agrees"] * 4
    assert found.pairs[3].over_sizes.value == pytest.approx(0.4, abs=0.05)
    said = all_said(rows)
    assert said["Which is better"].count("**The two agree**") == 4
    assert "differ**" not in said["Which is better"]
    assert "the same order" in said["Which is better"]


def test_a_study_unlike_the_paper_says_so(make_rows):
    """Where the signs are the other way round, the report says that the two differ."""
    rows = make_rows(AGAINST_THE_PAPER)
    agreements = {(pair.first, pair.second): pair.agreement for pair in find(rows).pairs}
    assert set(agreements.values()) == {"agrees", "differs"}
    assert agreements["discrete-random", "discrete-raster"] == "differs"
    # The paper's raster-order continuous models are worse than its discrete ones, too.
    assert agreements["continuous-raster", "discrete-raster"] == "agrees"
    said = all_said(rows)["Which is better"]
    assert said.count("**The two differ**") == 3
    assert "another order, with another best" in said


def test_what_can_not_be_told_is_undecided_with_its_price(make_rows):
    """A small difference on few prompts is undecided, and the report says how many prompts would tell it."""
    rows = make_rows(
        {"continuous-random": 0.46, "discrete-random": 0.4}, prompts_per_task=10, sizes=("xs", "s"), seed=2
    )
    (pair,) = find(rows).pairs
    assert pair.agreement == "undecided"
    assert pair.over_sizes.sign == 0
    assert pair.over_sizes.prompts_needed > pair.over_sizes.num_prompts == 60
    said = all_said(rows)["Which is better"]
    assert "**Undecided**" in said
    assert "prompts instead of 60 to tell" in said


def test_intervals_of_differences_hold_the_truth(make_rows):
    """Of 200 studies whose variants are equally good, about 95% of the intervals hold zero, seeds included."""
    held = {"one seed": 0, "seeds that matter": 0}
    for seed in range(200):
        same = {"continuous-random": 0.4, "discrete-random": 0.4}
        one = make_rows(same, sizes=("xs",), prompts_per_task=30, seed=seed)
        held["one seed"] += difference(one, *same, "xs").sign == 0
        more = make_rows(
            same, sizes=("xs", "s", "m"), prompts_per_task=30, seeds=(0, 1), seed_deviation=0.05, seed=seed
        )
        held["seeds that matter"] += difference(more, *same, "s").sign == 0
    assert held["one seed"] / 200 == pytest.approx(0.95, abs=0.047)
    # Scores of seeds differ by their pictures as well, which counts twice: intervals may be too wide, never too narrow.
    assert held["seeds that matter"] / 200 > 0.9


def test_seeds_widen_intervals(make_rows):
    """What another seed changes is part of the error, also of runs with one seed."""
    scores = {"continuous-random": 0.5, "discrete-random": 0.4}
    rows = make_rows(scores, seeds=(0, 1), seed_deviation=0.1, sizes=("xs", "s", "m"))
    assert seed_deviation(rows) == pytest.approx(0.1, abs=0.06)
    found = difference(rows, *scores, "m")
    assert found.error > found.of_prompts
    alone = make_rows(scores, sizes=("m",))
    assert difference(alone, *scores, "m").error == difference(alone, *scores, "m").of_prompts
    assert difference(alone, *scores, "xs") is None
    assert mean_difference([]) is None


def test_power_laws_of_losses_are_found(make_rows):
    """Exponents come back, the largest size is foreseen, and losses correlate with scores that grow with size."""
    rows = make_rows(LIKE_THE_PAPER)
    found = {one.variant: one for one in find(rows).variants}
    assert found["discrete-raster"].fit.exponent_interval.holds(0.08)
    assert found["continuous-random"].fit.exponent_interval.holds(0.03)
    assert found["discrete-raster"].held_out.relative_error == pytest.approx(0.0, abs=0.03)
    assert found["discrete-raster"].correlation.pearson < -0.9
    said = all_said(rows)
    assert "the loss fell at 4 of 4 steps up in size" in said["Loss and size"]
    assert "lower loss, better pictures" in said["Loss and scores"]


def test_a_loss_that_rises_is_no_power_law(make_rows):
    """Nothing is shown where the loss does not fall with size, and the sentence says that."""
    rows = make_rows({"continuous-random": 0.5})
    for index, row in enumerate(rows):
        row["validation_loss"] = 0.3 + 0.01 * (index % 2)
    said = all_said(rows)["Loss and size"]
    assert "the loss fell at 2 of 4 steps" in said
    assert "no power law is shown" in said


def test_tasks_are_told_apart(make_rows):
    """A change that helps in one task alone is said to help there."""
    rows = make_rows({"continuous-random": 0.4, "continuous-raster": 0.4})
    for row in rows:
        if row["variant"] == "continuous-random":
            row["verdicts"] = [
                right or task == "position" for right, task in zip(row["verdicts"], row["tasks"], strict=True)
            ]
    said = all_said(rows)["In which tasks"]
    better = said.split("better in ")[1].split(";")[0]
    assert better.startswith("position (+0.")
    assert "counting" not in better


def test_the_papers_numbers_are_what_its_figures_show():
    """Its losses are power laws, their correlation with GenEval is near the one it states, and Fluid leads."""
    found = {one.variant: one for one in paper_findings()}
    for one in found.values():
        assert one.fit.r_squared > 0.98
        assert one.fit.exponent_interval.low > 0
        assert one.held_out.inside
    fluid = found["continuous-random"]
    assert fluid.correlation.pearson == pytest.approx(PAPER_CORRELATION_WITH_GENEVAL, abs=0.03)
    assert max(PAPER_VARIANTS, key=lambda name: PAPER_VARIANTS[name].geneval[-1]) == "continuous-random"
    assert fluid.fit.law.exponent == pytest.approx(0.0148, abs=0.001)


def test_findings_are_plain_data(make_rows):
    """Everything found can be written as JSON, also where there is little to find."""
    for rows in (make_rows(LIKE_THE_PAPER), make_rows({"continuous-random": 0.4}, sizes=("xs",), prompts_per_task=1)):
        import json

        assert json.loads(json.dumps(findings_document(find(rows)), allow_nan=False))["variants"]


def test_plots_show_what_there_is(make_rows):
    """Every plot has its panels; with a single size there is none of losses, without scores none of scores."""
    rows = make_rows(LIKE_THE_PAPER)
    found = find(rows)
    figure = loss_figure(found)
    # Two kinds of loss, the paper beside each.
    assert len(figure.axes) == 4
    assert figure.axes[0].get_ylabel() == "cross-entropy"
    assert figure.axes[2].get_ylabel() == "noise-prediction loss"
    assert [axis.get_title(loc="left") for axis in scores_figure(rows).axes[2:]] == list(
        dict.fromkeys(rows[0]["tasks"])
    )
    steps = steps_figure(rows)
    assert [axis.get_xlabel() for axis in steps.axes] == ["steps of the order", "steps of the head for a token"]
    assert len(correlation_figure(rows, found).axes) == 4
    single = make_rows(LIKE_THE_PAPER, sizes=("xs",))
    assert loss_figure(find(single)) is None
    assert correlation_figure(single, find(single)) is None
    for row in single:
        row.update(scores={}, verdicts=[], tasks=[], chance={}, by_order_steps={}, by_head_steps={})
    assert scores_figure(single) is None
    assert steps_figure(single) is None
    assert statements(find(single), single).keys() == {"Loss and size"}


def test_more_prompts_tell_more(make_rows):
    """The number of prompts that a difference needs is about right: with it the interval leaves out zero."""
    scores = {"continuous-random": 0.5, "discrete-random": 0.4}
    few = difference(make_rows(scores, sizes=("xs",), prompts_per_task=20), *scores, "xs")
    needed = [
        difference(make_rows(scores, sizes=("xs",), prompts_per_task=20, seed=seed), *scores, "xs").prompts_needed
        for seed in range(30)
    ]
    # 0.1 with about 0.7 of deviation of a paired difference: (1.96 * 0.7 / 0.1)^2 is 190.
    assert np.median([one for one in needed if one is not None]) == pytest.approx(190, rel=0.6)
    assert few.num_prompts == 120
