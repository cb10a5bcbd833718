"""The report of a study: tables, sentences, plots and samples, from what its runs hold."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fluid_core.atomic_files import write_bytes, write_json
from fluid_core.catalog import ComponentCatalog
from fluid_core.errors import CheckpointError
from fluid_core.evaluation.plotting import counted, save_figure
from fluid_core.evaluation.result_file import versions
from fluid_core.study.findings import Findings, find, findings_document
from fluid_core.study.grid import Cell
from fluid_core.study.paper_results import PAPER_SIZES, PAPER_VARIANTS
from fluid_core.study.plots import correlation_figure, loss_figure, scores_figure, steps_figure
from fluid_core.study.rows import CROSS_ENTROPY, study_rows
from fluid_core.study.sample_sheet import write_samples
from fluid_core.study.settings import StudySettings
from fluid_core.study.statements import statements

Row = Mapping[str, Any]

_NOT_IN_JSON = ("verdicts", "tasks")


def write_report(
    study: StudySettings, cells: Sequence[Cell], out: Path, catalog: ComponentCatalog | None = None
) -> list[Path]:
    """Write `report.json`, `findings.json`, `report.md`, plots and `comparison.png`; return what was written.

    Runs that are not measured yet are left out and named. Raises `CheckpointError` if none is measured,
    `MissingPackageError` without matplotlib, and `OutputError` if a file can not be written.
    """
    rows = study_rows(cells, out, catalog)
    if not rows:
        raise CheckpointError(f"Expected measured runs of the study in {out}, found none. Nothing is reported.")
    findings = find(rows)
    plots = {
        "loss.png": loss_figure(findings),
        "scores.png": scores_figure(rows),
        "steps.png": steps_figure(rows),
        "correlation.png": correlation_figure(rows, findings),
    }
    written = []
    for name, figure in plots.items():
        if figure is not None:
            save_figure(figure, out / name)
            written.append(out / name)
        else:
            (out / name).unlink(missing_ok=True)
    if write_samples(rows, out, out / "comparison.png", title=study.title):
        written.append(out / "comparison.png")
    write_json(out / "report.json", [{k: v for k, v in row.items() if k not in _NOT_IN_JSON} for row in rows])
    write_json(
        out / "findings.json",
        {**findings_document(findings), "statements": statements(findings, rows), "packages": versions()},
    )
    missing = [cell.name for cell in cells if cell.name not in {row["run"] for row in rows}]
    page = _page(study, rows, findings, missing, {path.name for path in written})
    write_bytes(out / "report.md", page.encode())
    return [out / "report.md", out / "report.json", out / "findings.json", *written]


def _page(
    study: StudySettings, rows: Sequence[Row], findings: Findings, missing: Sequence[str], plots: set[str]
) -> str:
    lines = [f"# {study.title}", "", *_setting(study, rows, missing), "", *_table(rows), ""]
    said = statements(findings, rows)
    pictures = {
        "Which is better": ("scores.png", "Scores over size, by task"),
        "In which tasks": ("", ""),
        "Scores and steps": ("steps.png", "Overall score over steps"),
        "Loss and size": ("loss.png", "Validation loss over parameters, and the paper's"),
        "Loss and scores": ("correlation.png", "Overall score over validation loss"),
    }
    for heading, (name, text) in pictures.items():
        if heading in said or name in plots:
            lines += [f"## {heading}", ""]
            lines += [f"![{text}]({name})", ""] if name in plots else []
            lines += [f"- {sentence}" for sentence in said.get(heading, ())] + [""]
    if "comparison.png" in plots:
        lines += ["## The same prompts", "", "![The same prompts drawn by each model](comparison.png)", ""]
        lines += ["The first prompt of each task, chosen before anything was drawn; bars say what the judge saw.", ""]
    lines += _paper_table(rows)
    lines += ["## How to read it", "", *_notes(rows), ""]
    return "\n".join(lines)


def _setting(study: StudySettings, rows: Sequence[Row], missing: Sequence[str]) -> list[str]:
    images = {row["images_seen"] for row in rows}
    seen = " or ".join(counted(one) for one in sorted(images))
    hours = sum(row["training_seconds"] for row in rows) / 3600
    took = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
    evaluation = study.evaluation
    text = (
        f"{len(rows)} runs, each on {seen} images in {' or '.join(str(s) for s in sorted({r['steps'] for r in rows}))} "
        f"steps: the same batches of the same data for all variants of a seed. Training took {took} in all. Scores: "
        f"{evaluation.prompts_per_task} prompts for each task, temperature {evaluation.temperature:g}, guidance "
    )
    scales = evaluation.guidance_scales
    text += (
        f"{scales[0]:g}."
        if len(scales) == 1
        else f"the best of {', '.join(f'{one:g}' for one in scales)} for each run, chosen on other prompts."
    )
    chance = next((row["chance"] for row in rows if row["chance"]), None)
    if chance is not None:
        text += f" Random pictures of the data set score {chance['overall']:.2f} overall."
    lines = [text]
    if missing:
        lines += [
            "",
            f"**{len(missing)} runs are not there yet**: {', '.join(missing[:6])}{' …' if len(missing) > 6 else ''}.",
        ]
    return lines


def _table(rows: Sequence[Row]) -> list[str]:
    """A line for each run. Losses of different kinds stand in columns of their own."""
    kinds = sorted({row["validation_loss_kind"] for row in rows}, key=lambda kind: (kind != CROSS_ENTROPY, kind))
    tasks = list(dict.fromkeys(task for row in rows for task in row["scores"]))
    head = ["variant", "size", "seed", "parameters", *kinds, *tasks, "guidance", "images/s"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for row in rows:
        cells = [row["variant"], row["size"], str(row["seed"]), counted(row["parameters"])]
        cells += [f"{row['validation_loss']:#.4g}" if row["validation_loss_kind"] == kind else "" for kind in kinds]
        cells += [f"{row['scores'][task]:.2f}" if task in row["scores"] else "" for task in tasks]
        cells += ["" if row["guidance_scale"] is None else f"{row['guidance_scale']:g}"]
        lines.append("| " + " | ".join([*cells, f"{row['images_per_second']:.0f}"]) + " |")
    return lines


def _paper_table(rows: Sequence[Row]) -> list[str]:
    """The paper's numbers for those of its variants that the study has."""
    names = [name for name in PAPER_VARIANTS if any(row["variant"] == name for row in rows)]
    if not names:
        return []
    lines = ["## The paper's own numbers", "", f"| variant | figure | {' | '.join(s.upper() for s in PAPER_SIZES)} |"]
    lines.append("|---|---|" + "---:|" * len(PAPER_SIZES))
    for name in names:
        one = PAPER_VARIANTS[name]
        digits = 3 if one.loss_kind == CROSS_ENTROPY else 4
        lines.append(f"| {name} | {one.loss_kind} | {' | '.join(f'{v:.{digits}f}' for v in one.validation_loss)} |")
        lines.append(f"| | GenEval | {' | '.join(f'{value:.3f}' for value in one.geneval)} |")
        lines.append(f"| | FID-30K | {' | '.join(f'{value:.2f}' for value in one.fid)} |")
    return [
        *lines,
        "",
        "Read off figures 5 and 6 of arXiv 2410.13863 (loss to 0.1%, GenEval to 0.003, FID to 0.02): 256 x 256 pixels, "
        "a million steps of 2048 images. Its scores are GenEval's on photographs, ours those of the data set's own "
        "judge: signs and shapes compare, values do not.",
        "",
    ]


def _notes(rows: Sequence[Row]) -> list[str]:
    return [
        "- Losses of different kinds (columns) have different units. Losses of different orders do not compare either: "
        "raster predicts every token from those before it, random order the masked ones from the rest.",
        "- Parameters are all that train, without the text encoder's own tables, which are the same at every size.",
        "- Intervals are of 95%. Differences are paired over the prompts"
        + (
            ", and hold what training with another seed changes."
            if _has_seeds(rows)
            else "; with one seed for each run they leave out what another seed would change."
        ),
        "- Fits take every size once, the mean of its seeds; their intervals are those of Student's t, with two sizes "
        "less as degrees of freedom.",
        "- Every figure of every run is in `report.json`, fits and comparisons in `findings.json`, and each run's own "
        "record, with seeds, settings and versions, in `runs/*/evaluation.json`. To train one run alone: "
        "`fluid train configs/NAME.toml`.",
    ]


def _has_seeds(rows: Sequence[Row]) -> bool:
    return len({(row["variant"], row["size"]) for row in rows}) < len(rows)
