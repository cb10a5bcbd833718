"""Tables of figures, one row for each model, read from JSON or CSV that people and programs wrote."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fluid_core.errors import DataError, InvalidRequestError, did_you_mean, listing

Row = Mapping[str, Any]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, their nested tables flattened: `scores.overall` is a key.

    A JSON file holds a list of objects, or an object with such a list under `rows`; a CSV file names its columns in
    the first line. Raises `DataError` for a file that is missing or holds no such table.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can not be read: {error}. Expected a JSON or CSV file of figures.") from error
    rows = _from_csv(text) if path.suffix.lower() == ".csv" else _from_json(text, path)
    if not rows:
        raise DataError(f"Expected rows of figures in {path}, found none.")
    return [_flat(row) for row in rows]


def chosen_rows(rows: Sequence[Row], conditions: Mapping[str, Any]) -> list[Row]:
    """Rows whose columns have the given values, compared as texts.

    Raises `InvalidRequestError` for a column that no row has, and where no row is left.
    """
    for name in conditions:
        _check_column(rows, name)
    kept = [row for row in rows if all(_as_text(row.get(name)) == _as_text(v) for name, v in conditions.items())]
    if not kept:
        wanted = ", ".join(f"{name} = {value}" for name, value in conditions.items())
        raise InvalidRequestError(f"Expected rows with {wanted}, found none among {len(rows)}.")
    return kept


def grouped(rows: Sequence[Row], name: str) -> dict[str, list[Row]]:
    """Rows by their value of a column, in the order in which values appear. Raises as `column` does."""
    _check_column(rows, name)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_as_text(row.get(name)), []).append(row)
    return groups


def column(rows: Sequence[Row], name: str) -> list[float]:
    """The numbers of a column. Raises `InvalidRequestError` for a missing column or what is no number."""
    _check_column(rows, name)
    values = []
    for index, row in enumerate(rows):
        try:
            values.append(float(row[name]))
        except (KeyError, TypeError, ValueError):
            found = repr(row[name]) if name in row else "nothing"
            raise InvalidRequestError(
                f"Expected a number in the column '{name}' of every row, found {found} in row {index + 1}. Choose rows "
                "by a condition, such as --where order=random."
            ) from None
    return values


def _check_column(rows: Sequence[Row], name: str) -> None:
    names = dict.fromkeys(key for row in rows for key in row)
    if name not in names:
        raise InvalidRequestError(
            f"There is no column '{name}'.{did_you_mean(name, names)} Columns: {listing(list(names))}."
        )


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _from_csv(text: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key is not None} for row in csv.DictReader(text.splitlines())]


def _from_json(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from error
    if isinstance(data, dict):
        data = data.get("rows")
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise DataError(f"Expected {path} to hold a list of objects, or an object with one under 'rows'.")
    return data


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
