"""Files and folders appear whole or not at all, and damaged ones are refused in words."""

import json
import os
import stat

import pytest
import torch
from torch import nn

from fluid_core import atomic_files
from fluid_core.atomic_files import (
    check_writable,
    load_state,
    new_folder,
    read_json,
    read_safetensors,
    remove_unfinished,
    write_bytes,
    write_json,
    write_safetensors,
)
from fluid_core.errors import CheckpointError, CheckpointMismatchError, OutputError


def contents(folder):
    """Every file below a folder, hidden ones as well, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_file_is_replaced_whole(tmp_path):
    """A new content takes the place of the old, in folders made as needed, and nothing else is left."""
    path = tmp_path / "deep" / "er" / "file"
    for content in (b"old", b"new and longer", b""):
        write_bytes(path, content)
        assert contents(tmp_path) == {"deep/er/file": content}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    """When the disk is full the old file stays, no half file is left, and the error says which file."""
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"file can not be written: No space left"):
        write_bytes(path, b"new")
    assert contents(tmp_path) == {"file": b"old"}


def test_what_json_can_not_hold_touches_no_file(tmp_path):
    """Infinities and objects are refused before anything is written."""
    path = tmp_path / "data.json"
    write_json(path, {"kept": [1, None, "ü"]})
    for data in ({"x": float("nan")}, {"x": object()}):
        with pytest.raises((ValueError, TypeError)):
            write_json(path, data)
    assert read_json(path) == {"kept": [1, None, "ü"]}
    assert list(contents(tmp_path)) == ["data.json"]


def test_tensors_come_back_equal(tmp_path):
    """Types, shapes and values survive, for views and shared storage too."""
    base = torch.arange(12.0).view(3, 4)
    tensors = {
        "whole": base,
        "view": base[:, 1:3],
        "transposed": base.T,
        "shared": base,
        "half": torch.ones(2, dtype=torch.bfloat16),
        "number": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    write_safetensors(tmp_path / "t.safetensors", tensors)
    read = read_safetensors(tmp_path / "t.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_tensors_are_refused(tmp_path, share):
    """A file cut anywhere is called truncated, with its name."""
    path = tmp_path / "t.safetensors"
    write_safetensors(path, {"x": torch.randn(100), "y": torch.randn(10, 10)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"t\.safetensors is truncated or damaged"):
        read_safetensors(path)


def test_foreign_and_missing_files_are_refused(tmp_path):
    """What is not there, not ours, or a folder gets a message with its name."""
    (tmp_path / "text").write_text("hello, I am no tensor file at all")
    (tmp_path / "cut.json").write_text('{"a": [1, 2')
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder").mkdir()
    for name in ("text", "folder"):
        with pytest.raises(CheckpointError, match=f"{name} is truncated or damaged"):
            read_safetensors(tmp_path / name)
    for name in ("cut.json", "binary.json"):
        with pytest.raises(CheckpointError, match=rf"{name} is damaged: it is not valid JSON"):
            read_json(tmp_path / name)
    with pytest.raises(CheckpointError, match="folder can not be read"):
        read_json(tmp_path / "folder")
    for read in (read_json, read_safetensors):
        with pytest.raises(CheckpointError, match=r"Expected a file .*none\. Is this the folder"):
            read(tmp_path / "none")


def test_a_new_folder_appears_when_it_is_complete(tmp_path):
    """Until the block ends there is no folder of that name; then it replaces the old one with all it held."""
    folder = tmp_path / "a" / "model"
    with new_folder(folder) as new:
        (new / "first").write_text("1")
        assert not folder.exists()
        assert new.parent == folder.parent
    with new_folder(folder) as new:
        (new / "second").write_text("2")
        assert contents(folder) == {"first": b"1"}
    assert contents(tmp_path) == {"a/model/second": b"2"}
    assert os.listdir(tmp_path / "a") == ["model"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_inside_leaves_the_old_folder(tmp_path, error):
    """An error or Ctrl-C while a folder is filled leaves the old one bit-equal and nothing beside it."""
    folder = tmp_path / "model"
    with new_folder(folder) as new:
        (new / "weights").write_bytes(b"old")

    def interrupted():
        with new_folder(folder) as new:
            (new / "weights").write_bytes(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert contents(tmp_path) == {"model/weights": b"old"}
    assert os.listdir(tmp_path) == ["model"]


def test_a_failed_swap_brings_the_old_folder_back(tmp_path, monkeypatch):
    """If the new folder can not take the name after the old one left it, the old one returns."""
    folder = tmp_path / "model"
    with new_folder(folder) as new:
        (new / "weights").write_bytes(b"old")
    rename = os.replace

    def failing(source, target):
        if str(source).endswith(".unfinished"):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(atomic_files.os, "replace", failing)
    with pytest.raises(OutputError, match="model can not be written: Input/output"), new_folder(folder) as new:
        (new / "weights").write_bytes(b"new")
    monkeypatch.undo()
    assert contents(tmp_path) == {"model/weights": b"old"}


def test_a_place_that_can_not_be_written_is_named(tmp_path):
    """A file where a folder should be stops writing with a message, and stays."""
    (tmp_path / "file").write_text("mine")
    for write in (
        lambda: write_bytes(tmp_path / "file" / "x", b""),
        lambda: new_folder(tmp_path / "file" / "x").__enter__(),
        lambda: check_writable(tmp_path / "file"),
    ):
        with pytest.raises(OutputError, match=r"can not be written: .*Choose another place"):
            write()
    assert contents(tmp_path) == {"file": b"mine"}


def test_asking_whether_a_folder_is_writable_leaves_it_empty(tmp_path):
    """The folder is made, and nothing stays in it."""
    check_writable(tmp_path / "new" / "run")
    assert os.listdir(tmp_path / "new" / "run") == []


def test_leavings_of_a_killed_process_are_removed(tmp_path):
    """Unfinished files and folders go; everything else stays, hidden files of others as well."""
    (tmp_path / ".step-00000004.abc.unfinished").mkdir()
    (tmp_path / ".step-00000004.abc.unfinished" / "model.safetensors").write_text("half")
    (tmp_path / ".step-00000004.def.replaced" / "old").mkdir(parents=True)
    (tmp_path / ".state.json.ghi.unfinished").write_text("{")
    (tmp_path / ".hidden").write_text("mine")
    (tmp_path / "step-00000002").mkdir()
    remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "step-00000002"]
    remove_unfinished(tmp_path / "nothing")


def test_a_state_that_does_not_fit_is_listed_and_changes_nothing():
    """Missing, unexpected and misshapen tensors are listed together, and no weight changes."""
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    del state["1.bias"]
    state["0.weight"] = torch.zeros(4, 5)
    state["2.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointMismatchError) as caught:
        load_state(module, state, source="here.safetensors", expected=before)
    message = str(caught.value)
    assert message.startswith("here.safetensors does not fit the model it is loaded into; nothing was changed:")
    assert "1.bias: missing" in message
    assert "2.weight: not part of this model" in message
    assert "0.weight: shape (4, 5), expected (4, 3)" in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_many_problems_are_cut_short():
    """Eight problems are shown, the others counted."""
    module = nn.ModuleList(nn.Linear(2, 2) for _ in range(10))
    with pytest.raises(CheckpointMismatchError, match="and 12 more"):
        load_state(module, {}, source="x", expected=module.state_dict())


def test_a_state_that_fits_is_loaded():
    """Only what was expected needs to be there: other parts of the module keep their weights."""
    module = nn.ModuleDict({"trained": nn.Linear(2, 2), "frozen": nn.Linear(2, 2)})
    frozen = module["frozen"].weight.clone()
    expected = {name: tensor for name, tensor in module.state_dict().items() if name.startswith("trained")}
    load_state(module, {name: torch.ones_like(t) for name, t in expected.items()}, source="x", expected=expected)
    assert torch.equal(module["trained"].weight, torch.ones(2, 2))
    assert torch.equal(module["frozen"].weight, frozen)


def test_json_is_readable_text(tmp_path):
    """Written for people and version control: indented, ending with a line break."""
    write_json(tmp_path / "x.json", {"b": 1, "a": [2]})
    text = (tmp_path / "x.json").read_text()
    assert text.startswith('{\n  "b": 1')
    assert text.endswith("}\n")
    assert json.loads(text) == {"b": 1, "a": [2]}
