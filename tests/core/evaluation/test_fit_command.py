"""`fluid fit`: rows from files of any maker, fits by group, and what is said about them."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fluid_core.commands.program import app
from fluid_core.errors import DataError, InvalidRequestError
from fluid_core.evaluation.figures_table import chosen_rows, column, grouped, read_rows
from fluid_core.evaluation.fit_run import FitRequest, fit_figures

SIZES = [3e5, 8e5, 2e6, 4e6, 8e6]


def rows():
    """Two variants with exact laws of their own, the loss of one in other units."""
    made = []
    for variant, scale, exponent in (("a", 5.0, 0.1), ("b", 0.2, 0.03)):
        for size in SIZES:
            loss = scale * (size / 1e6) ** -exponent
            made.append(
                {"variant": variant, "parameters": size, "validation_loss": loss, "scores": {"overall": 1 - loss / 10}}
            )
    return made


@pytest.fixture
def json_file(tmp_path):
    """The rows as a study writes them."""
    path = tmp_path / "report.json"
    path.write_text(json.dumps(rows()))
    return path


@pytest.fixture
def csv_file(tmp_path):
    """The rows as a spreadsheet writes them."""
    path = tmp_path / "figures.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "N", "loss"])
        writer.writerows([row["variant"], row["parameters"], row["validation_loss"]] for row in rows())
    return path


def test_each_variant_is_fitted_apart(json_file):
    """Rows of a study are grouped by variant without being asked, and correlated with a nested score."""
    groups = fit_figures(FitRequest(figures=json_file, score="scores.overall", hold_out_largest=True))
    assert [group.label for group in groups] == ["a", "b"]
    assert [group.fits["plain"].law.exponent for group in groups] == pytest.approx([0.1, 0.03])
    assert groups[0].scores.pearson == pytest.approx(-1.0)
    assert groups[0].extrapolations["plain"].relative_error == pytest.approx(0.0, abs=1e-9)


def test_csv_files_and_conditions_work(csv_file):
    """Any columns will do, and a condition leaves the rows that meet it."""
    request = FitRequest(figures=csv_file, x="N", y="loss", where={"model": "b"})
    (group,) = fit_figures(request)
    assert group.label == ""
    assert group.fits["plain"].law.exponent == pytest.approx(0.03)


def test_the_command_says_and_writes_what_it_found(json_file, tmp_path):
    """Exponent, interval, prediction and truth are printed; the JSON holds them and the plot opens."""
    arguments = ["fit", str(json_file), "--law", "both", "--hold-out-largest", "--out", str(tmp_path / "fit")]
    ran = CliRunner().invoke(app, [*arguments, "--score", "scores.overall"])
    assert ran.exit_code == 0, ran.output
    assert "exponent 0.1000 (95%: 0.1000 to 0.1000)" in ran.output
    assert "held out 8M: predicted" in ran.output
    assert "inside the interval" in ran.output
    assert "Pearson -1.000" in ran.output
    document = json.loads((tmp_path / "fit" / "fit.json").read_text())
    assert [group["group"] for group in document["groups"]] == ["a", "b"]
    assert document["groups"][0]["fits"]["plain"]["law"]["exponent"] == pytest.approx(0.1)
    assert document["groups"][1]["held_out"]["plain"]["inside"] is True
    with Image.open(tmp_path / "fit" / "fit.png") as plot:
        plot.load()
        # Losses of different units stand in panels side by side.
        assert plot.width > 1.8 * plot.height
        assert np.asarray(plot.convert("L")).std() > 5


def test_tables_that_can_not_be_read_are_named(tmp_path, json_file):
    """No file, no list, no rows, an unknown column, words for numbers: each is said."""
    with pytest.raises(DataError, match=r"missing\.json"):
        read_rows(tmp_path / "missing.json")
    (tmp_path / "object.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="list of objects"):
        read_rows(tmp_path / "object.json")
    (tmp_path / "empty.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="found none"):
        read_rows(tmp_path / "empty.csv")
    read = read_rows(json_file)
    with pytest.raises(InvalidRequestError, match="Did you mean 'parameters'"):
        column(read, "parameter")
    with pytest.raises(InvalidRequestError, match="found 'a' in row 1"):
        column(read, "variant")
    with pytest.raises(InvalidRequestError, match="found none among 10"):
        chosen_rows(read, {"variant": "c"})
    assert list(grouped(read, "variant")) == ["a", "b"]
