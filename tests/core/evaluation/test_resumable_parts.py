"""Long measurements in parts: the same results however often they were interrupted."""

import pytest
import torch

from fluid_core.errors import InvalidRequestError, OutputError
from fluid_core.evaluation.resumable_parts import ResumableParts


def parts(folder, **others):
    """Seven items in parts of three."""
    return ResumableParts(**{"folder": folder, "description": {"a": 1}, "num_items": 7, "part_size": 3, **others})


def squares(numbers):
    """A result for each item."""
    return {"square": torch.tensor([number**2 for number in numbers])}


def test_parts_are_joined_in_order(tmp_path):
    """Every item is computed once, and the results stand in the order of the items."""
    told = []
    found = parts(tmp_path).computed(squares, told=lambda done, total: told.append((done, total)))
    assert found["square"].tolist() == [0, 1, 4, 9, 16, 25, 36]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_only_what_is_missing_is_computed_again(tmp_path):
    """After an interruption, parts that are whole stay; what a killed write left goes."""
    seen = []

    def interrupted(numbers):
        seen.append(list(numbers))
        if numbers.start == 3:
            raise KeyboardInterrupt
        return squares(numbers)

    with pytest.raises(KeyboardInterrupt):
        parts(tmp_path).computed(interrupted)
    (tmp_path / ".000001.safetensors.x.unfinished").write_text("half")
    again = []
    found = parts(tmp_path).computed(lambda numbers: again.append(list(numbers)) or squares(numbers))
    assert seen == [[0, 1, 2], [3, 4, 5]]
    assert again == [[3, 4, 5], [6]]
    assert found["square"].tolist() == [0, 1, 4, 9, 16, 25, 36]
    assert not list(tmp_path.glob(".*"))


def test_parts_without_items_are_left_out(tmp_path):
    """A part may have nothing to say; if none has, there are no tensors."""
    found = parts(tmp_path / "some").computed(lambda numbers: squares(numbers) if numbers.start else {})
    assert found["square"].tolist() == [9, 16, 25, 36]
    assert parts(tmp_path / "none").computed(lambda numbers: {}) == {}


def test_other_results_are_not_continued(tmp_path):
    """Another description is refused with what differs, and replaced only on request."""
    parts(tmp_path).computed(squares)
    with pytest.raises(OutputError, match="a: 1 before, 2 now"):
        parts(tmp_path, description={"a": 2}).computed(squares)
    cubes = parts(tmp_path, description={"a": 2}, overwrite=True).computed(
        lambda numbers: {"square": torch.tensor([number**3 for number in numbers])}
    )
    assert cubes["square"].tolist()[-1] == 216
    with pytest.raises(OutputError, match="num_items: 7 before, 8 now"):
        parts(tmp_path, description={"a": 2}, num_items=8).computed(squares)


def test_files_of_somebody_else_are_left_alone(tmp_path):
    """A folder with tensors of unknown origin is refused."""
    (tmp_path / "weights.safetensors").write_text("precious")
    with pytest.raises(OutputError, match=r"no parts\.json"):
        parts(tmp_path).computed(squares)


def test_a_damaged_part_is_named(tmp_path):
    """The message says which file to delete."""
    parts(tmp_path).computed(squares)
    (tmp_path / "000001.safetensors").write_bytes(b"damaged")
    with pytest.raises(OutputError, match=r"delete .*000001\.safetensors"):
        parts(tmp_path).computed(squares)


def test_nothing_to_measure_is_an_error(tmp_path):
    """There must be at least one item, in parts of at least one."""
    for wrong in ({"num_items": 0}, {"part_size": 0}):
        with pytest.raises(InvalidRequestError, match="at least one"):
            parts(tmp_path, **wrong)
