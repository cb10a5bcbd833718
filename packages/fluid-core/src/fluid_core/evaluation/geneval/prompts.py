"""GenEval's metadata: one JSON object per line, with a prompt, its task and what a picture must show."""

import json
from pathlib import Path
from typing import Any

import attrs

from fluid_core.data.facts import Facts
from fluid_core.errors import DataError, did_you_mean, listing
from fluid_core.evaluation.geneval.words import COLORS, OBJECT_NAMES, RELATIONS, TASKS


@attrs.frozen(kw_only=True)
class GenEvalPrompt:
    """One line of the metadata."""

    text: str
    task: str
    """`tag` in the file: one of the six tasks."""

    facts: Facts
    line: str
    """The line as it stands in the file."""

    source: str
    """File and line, for messages."""

    @property
    def metadata(self) -> dict[str, Any]:
        """The object on the line."""
        return dict(json.loads(self.line))


def read_prompts(path: Path) -> list[GenEvalPrompt]:
    """The prompts of a file such as the official `evaluation_metadata.jsonl`, in its order.

    Raises `DataError`, naming file and line, for a missing file, for lines that are not of this form, and for objects,
    colours and relations that the judge does not know.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise DataError(
            f"Expected GenEval's prompts at {path}, found no such file. The official one is "
            "prompts/evaluation_metadata.jsonl of the repository djghosh13/geneval."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The prompts in {path} can not be read: {error}.") from error
    prompts = [
        parse_prompt(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if not prompts:
        raise DataError(f"Expected at least one prompt in {path}, found blank lines alone.")
    return prompts


def parse_prompt(line: str, source: str) -> GenEvalPrompt:
    """The prompt on one line. Raises `DataError` as `read_prompts` does."""
    line = line.strip()
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{source}: expected a JSON object, found a line that is no valid JSON ({error}).") from error
    if not isinstance(record, dict):
        raise DataError(f"{source}: expected a JSON object, found {type(record).__name__}.")
    text, task = record.get("prompt"), record.get("tag")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{source}: expected a text under 'prompt', found {text!r}.")
    if task not in TASKS:
        raise DataError(f"{source}: expected one of the tags {listing(TASKS)}, found {task!r}.")
    try:
        facts = Facts.from_json(record)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    _check_known(facts, source)
    return GenEvalPrompt(text=text, task=task, facts=facts, line=line, source=source)


def _check_known(facts: Facts, source: str) -> None:
    for name in (*(one.class_name for one in facts.include), *(one.class_name for one in facts.exclude)):
        if name not in OBJECT_NAMES:
            raise DataError(f"{source}: GenEval knows no object '{name}'.{did_you_mean(name, OBJECT_NAMES)}")
    for index, objects in enumerate(facts.include):
        if objects.color not in (None, *COLORS):
            raise DataError(f"{source}: GenEval knows the colors {listing(COLORS)}, found {objects.color!r}.")
        if objects.position is None:
            continue
        relation, target = objects.position
        if relation not in RELATIONS:
            raise DataError(f"{source}: GenEval knows the positions {listing(RELATIONS)}, found {relation!r}.")
        if target >= index:
            raise DataError(
                f"{source}: a position must refer to an entry before its own, found {target} for entry {index}."
            )
