"""Prompts from a file: one per line of a text, or one JSON object per line with what belongs to each."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from fluid_core.errors import DataError, PromptError
from fluid_core.text.prompts import check_prompts

LARGEST_SEED = 2**63 - 1


@attrs.frozen(kw_only=True)
class Prompt:
    """What to draw, and what was said about it."""

    text: str
    negative: str | None = None
    """What to move away from under guidance; None: what the call says."""

    seed: int | None = None
    """Seed of its first picture, those after it count up; None: from the seed of the run."""

    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    """Whatever else the line of the file holds, for who reads the pictures later."""

    source: str | None = None
    """File and line it came from; None for a prompt that was given directly."""


def given_prompts(texts: Sequence[str]) -> list[Prompt]:
    """Prompts that were given one by one. Raises `PromptError` if there is none, or one of them says nothing."""
    return [Prompt(text=text) for text in check_prompts(texts)]


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file, in its order; blank lines are skipped.

    A `.txt` has one prompt per line. A `.jsonl` has one object per line with the key `prompt`, and optionally
    `negative_prompt` and `seed`; other keys are kept as they are, as those of GenEval's metadata. Raises `DataError`,
    naming file and line, for what can not be read so, and for a file without prompts.
    """
    kinds = {".txt": _from_text, ".jsonl": _from_json}
    if path.suffix.lower() not in kinds:
        raise DataError(f"Expected a file of prompts that ends in .txt or .jsonl, found {path}.")
    prompts = [kinds[path.suffix.lower()](line, place) for line, place in _lines(path)]
    if not prompts:
        raise DataError(f"Expected at least one prompt in {path}, found blank lines alone.")
    return prompts


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, and where they stand."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"There is no file of prompts at {path}.") from None
    except OSError as error:
        raise DataError(f"The prompts in {path} can not be read: {error.strerror or error}.") from error
    lines = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for number, line in enumerate(lines, start=1):
        place = f"{path}, line {number}"
        try:
            text = line.decode().strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: expected UTF-8, found {error.object[error.start : error.end]!r}.") from error
        if text:
            yield text, place


def _from_text(line: str, place: str) -> Prompt:
    return Prompt(text=line, source=place)


def _from_json(line: str, place: str) -> Prompt:
    def refuse(constant: str) -> None:
        raise DataError(f"{place}: expected numbers that JSON knows, found {constant}.")

    try:
        record = json.loads(line, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: expected a JSON object, found a line that is no valid JSON ({error}).") from error
    except DataError:
        raise
    except (ValueError, RecursionError):
        raise DataError(f"{place}: expected a JSON object, found numbers or lists beyond what can be read.") from None
    if not isinstance(record, dict) or "prompt" not in record:
        raise DataError(f'{place}: expected a JSON object with the key "prompt", found {_excerpt(line)}.')
    text, negative, seed = (record.pop(key, None) for key in ("prompt", "negative_prompt", "seed"))
    # An empty one is a habit from other programs: nothing to move away from but no text.
    negative = None if negative == "" else negative
    try:
        check_prompts([text, *([] if negative is None else [negative])])
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    except PromptError as error:
        raise DataError(f"{place}: {error}") from error
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: expected valid Unicode text, found half of a surrogate pair.") from error
    except ValueError:
        raise DataError(f"{place}: expected finite numbers, found one that is too large.") from None
    if seed is not None and not (type(seed) is int and 0 <= seed <= LARGEST_SEED):
        raise DataError(f"{place}: expected a seed from 0 to 2^63 - 1, found {seed!r}.")
    return Prompt(text=text, negative=negative, seed=seed, metadata=record, source=place)


def _excerpt(line: str) -> str:
    return line if len(line) <= 60 else line[:57] + "..."
