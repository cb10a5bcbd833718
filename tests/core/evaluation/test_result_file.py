"""The record of a result: what it holds, and what it refuses."""

import json
from datetime import datetime
from pathlib import Path

import attrs
import pytest
import torch

from fluid_core.errors import CheckpointError, InvalidRequestError
from fluid_core.evaluation.result_file import MeasuredModel, ResultRecord, device_name, read_result, write_result

RECORD = ResultRecord(
    what="fid",
    values={"fid": 6.16, "by_task": {"counting": 0.5}, "rows": [1, None]},
    settings={"folder": Path("some/where"), "size": (256, 256)},
    seeds={"sampling": 3, "real": None},
    num_images=30_000,
    model=MeasuredModel(folder="run/model", identity="ab12", weights="ema", num_parameters=5),
    device="cpu",
    dtype="float32",
)


def test_a_record_comes_back_as_it_was(tmp_path):
    """All fields survive the file, as plain data, with a version of the format."""
    write_result(tmp_path / "deep" / "fid.json", RECORD)
    found = read_result(tmp_path / "deep" / "fid.json")
    assert found.model == RECORD.model
    assert found.values == RECORD.values
    assert found.settings == {"folder": str(Path("some/where")), "size": [256, 256]}
    assert (found.seeds, found.num_images, found.date) == (RECORD.seeds, 30_000, RECORD.date)
    assert json.loads((tmp_path / "deep" / "fid.json").read_text())["format_version"] == 1


def test_it_says_what_measured_and_when(monkeypatch):
    """Versions, the moment in UTC and the command are there without being asked for."""
    monkeypatch.setattr("sys.argv", ["/some/folder/fluid", "evaluate", "fid"])
    record = attrs.evolve(RECORD, command=ResultRecord.__attrs_attrs__.command.default.factory())
    assert list(record.command) == ["fluid", "evaluate", "fid"]
    assert record.packages["torch"] == torch.__version__
    assert {"python", "fluid-core", "numpy"} <= record.packages.keys()
    assert datetime.fromisoformat(record.date).utcoffset().total_seconds() == 0
    assert device_name(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(1.0), {1, 2}])
def test_figures_that_are_none_are_refused(value, tmp_path):
    """A record says which figure is not finite or no plain data, and writes nothing."""
    with pytest.raises(InvalidRequestError, match=r"values\.fid\[0\]"):
        write_result(tmp_path / "fid.json", attrs.evolve(RECORD, values={"fid": [value]}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["[]", "{}", '{"format_version": 2}', '{"format_version": 1, "what": "fid"}'])
def test_other_files_are_refused(content, tmp_path):
    """A JSON that is no record of this format is an error that names the file."""
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"other\.json"):
        read_result(tmp_path / "other.json")
