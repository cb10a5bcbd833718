"""Plain data becomes typed values: which types a configuration may hold, what is refused and in which words."""

import enum
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest

from fluid_core.configuration import ComponentChoice, FluidConfig, structure, unstructure
from fluid_core.errors import ConfigurationError


class Colour(enum.StrEnum):
    """An enumeration of texts."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """An enumeration of integers."""

    LOW = 1
    HIGH = 2


@attrs.frozen(kw_only=True)
class Inner:
    """A class within another."""

    share: float = attrs.field(default=0.5, validator=[attrs.validators.ge(0.0), attrs.validators.le(1.0)])
    mode: str = attrs.field(default="fast", validator=attrs.validators.in_(("fast", "exact")))


@attrs.frozen(kw_only=True)
class Everything:
    """One field of every type that a configuration may hold."""

    integer: int = 1
    real: float = 1.0
    truth: bool = False
    text: str = ""
    path: Path = Path()
    pair: tuple[int, int] = (1, 2)
    many: tuple[float, ...] = ()
    words: list[str] = attrs.field(factory=list)
    table: dict[str, float] = attrs.field(factory=dict)
    choice: Literal["a", "b", 1] = "a"
    colour: Colour = Colour.RED
    level: Level = Level.LOW
    perhaps: int | None = None
    perhaps_text: str | None = None
    device: int | Literal["auto"] = "auto"
    inner: Inner = Inner()
    inners: tuple[Inner, ...] = ()
    anything: Any = None
    function: Callable[[], int] | None = None


def problem(**values: Any) -> str:
    """The single problem that `Everything` has with these values."""
    with pytest.raises(ConfigurationError) as raised:
        structure(values, Everything)
    first, *lines = str(raised.value).splitlines()
    assert first == "Invalid configuration: 1 problem."
    assert len(lines) == 1
    return lines[0].removeprefix("  - ")


WRONG_VALUES = [
    ({"integer": "7"}, "expected an integer, found the text '7' @ $.integer"),
    ({"integer": 7.9}, "expected an integer, found 7.9 @ $.integer"),
    ({"integer": 7.0}, "expected an integer, found 7.0 @ $.integer"),
    ({"integer": True}, "expected an integer, found true @ $.integer"),
    ({"real": "1.5"}, "expected a number, found the text '1.5' @ $.real"),
    ({"real": False}, "expected a number, found false @ $.real"),
    ({"real": float("nan")}, "expected a finite number, found nan @ $.real"),
    ({"truth": 1}, "expected true or false, found 1 @ $.truth"),
    ({"truth": "true"}, "expected true or false, found the text 'true' @ $.truth"),
    ({"text": 7}, "expected a text, found 7 @ $.text"),
    ({"text": None}, "expected a text, found None @ $.text"),
    ({"path": 7}, "expected a path, found 7 @ $.path"),
    ({"pair": [1]}, "expected a list of 2 values, found 1 @ $.pair"),
    ({"pair": [1, "2"]}, "expected an integer, found the text '2' @ $.pair[1]"),
    ({"many": 3}, "expected a list, found 3 @ $.many"),
    ({"words": "ab"}, "expected a list, found the text 'ab' @ $.words"),
    ({"table": [1]}, "expected a table @ $.table"),
    ({"table": {"x": "1"}}, "expected a number, found the text '1' @ $.table['x']"),
    ({"choice": "c"}, "expected one of 'a', 'b', 1, found the text 'c' @ $.choice"),
    ({"choice": True}, "expected one of 'a', 'b', 1, found true @ $.choice"),
    ({"colour": "rad"}, "expected one of 'red', 'blue', found the text 'rad'. Did you mean 'red'? @ $.colour"),
    ({"level": True}, "expected one of 1, 2, found true @ $.level"),
    ({"perhaps": "many"}, "expected an integer, found the text 'many' @ $.perhaps"),
    (
        {"device": 1.5},
        "expected an integer, found 1.5, or expected one of 'auto', found 1.5 @ $.device",
    ),
    ({"inner": 3}, "expected a table, found 3 @ $.inner"),
    ({"inner": {"share": 1.5}}, "'share' must be <= 1.0: 1.5 @ $.inner"),
    ({"inner": {"mode": "slow"}}, "'mode' must be in ('fast', 'exact') (got 'slow') @ $.inner"),
    ({"inner": {"shar": 1}}, "unknown key 'shar'. Did you mean 'share'? Known keys: 'mode', 'share' @ $.inner"),
    ({"inners": [{}, {"share": "1"}]}, "expected a number, found the text '1' @ $.inners[1].share"),
]


@pytest.mark.parametrize(("values", "message"), WRONG_VALUES, ids=lambda value: str(value)[:40])
def test_wrong_value(values, message):
    """Nothing is converted by guess; the message says what was expected, what was found, and where."""
    assert problem(**values) == message


def test_right_values():
    """Every type from what TOML and JSON can write."""
    values = {
        "integer": 7,
        "real": 7,
        "truth": True,
        "text": "7",
        "path": "a/b",
        "pair": [3, 4],
        "many": [1, 2.5],
        "words": ["x"],
        "table": {"x": 1},
        "choice": 1,
        "colour": "blue",
        "level": 2,
        "perhaps": 5,
        "perhaps_text": "none",
        "device": 0,
        "inner": {"share": 1},
        "inners": [{"mode": "exact"}],
        "anything": {"x": [1, "2"]},
    }
    made = structure(values, Everything)
    assert made == Everything(
        integer=7,
        real=7.0,
        truth=True,
        text="7",
        path=Path("a/b"),
        pair=(3, 4),
        many=(1.0, 2.5),
        words=["x"],
        table={"x": 1.0},
        choice=1,
        colour=Colour.BLUE,
        level=Level.HIGH,
        perhaps=5,
        perhaps_text="none",
        device=0,
        inner=Inner(share=1.0),
        inners=(Inner(mode="exact"),),
        anything={"x": [1, "2"]},
    )
    assert type(made.real) is float
    assert type(made.colour) is Colour
    assert type(made.level) is Level
    assert structure(json.loads(json.dumps(unstructure(made))), Everything) == made


def test_none_can_be_written_in_toml():
    """The word "none" stands for None where no other text could be meant."""
    assert structure({"perhaps": "none"}, Everything).perhaps is None
    assert structure({"perhaps": None}, Everything).perhaps is None
    assert structure({"perhaps_text": "none"}, Everything).perhaps_text == "none"


def test_type_that_no_file_can_hold():
    """A field that only a program can fill is refused in words, not with a failure of the converter."""
    assert problem(function=3).startswith("a value of type ")
    assert problem(function=3).endswith(" can not be read from a configuration @ $.function")


def test_root_that_is_not_a_table():
    """The whole data may be of a wrong type as well."""
    with pytest.raises(ConfigurationError) as raised:
        structure([1], FluidConfig, root="$.x", subject="thing")
    assert str(raised.value) == "Invalid thing: 1 problem.\n  - expected a table, found a list @ $.x"


def test_options_are_plain_copies():
    """Options equal what a file would give back, and do not change with the dictionary they came from."""
    given_options = {"size": (3, 4), "path": Path("x"), "colour": Colour.RED, "level": Level.LOW, "deep": {"a": [1]}}
    choice = ComponentChoice(name="x", options=given_options)
    assert choice.options == {"size": [3, 4], "path": "x", "colour": "red", "level": 1, "deep": {"a": [1]}}
    assert type(choice.options["colour"]) is str
    given_options["deep"]["a"].append(2)
    assert choice.options["deep"] == {"a": [1]}
    with pytest.raises(ConfigurationError, match=r"options must be texts, finite numbers, .*, found <object"):
        ComponentChoice(name="x", options={"a": object()})
    with pytest.raises(ConfigurationError, match=r"options must be a table, found \[1\]"):
        ComponentChoice(name="x", options=[1])
