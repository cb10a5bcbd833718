"""Plain data (as TOML and JSON give it) to attrs classes and back, strictly.

Nothing is guessed: `"7"` and `7.9` are not the integer 7, `true` is not 1, a text is not a list of letters,
and a key that the class does not have is an error. The one convenience is that a whole number may stand for a
real one. Since TOML has no null, the word `"none"` stands for None where a field may be None and takes no
other text.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn

from fluid_core.errors import ConfigurationError, did_you_mean, listing

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]

_SEQUENCES: tuple[Any, ...] = (list, tuple, set, frozenset, Sequence)


def structure(data: Any, cls: type[T], *, root: str = "$", subject: str = "configuration") -> T:
    """An instance of `cls` from plain data.

    `root` is the place of `data` in its file and `subject` what to call it in the message. Raises
    `ConfigurationError` that lists every problem as `message @ $.path`.
    """
    try:
        return _CONVERTER.structure(data, cls)
    except cattrs.BaseValidationError as error:
        problems = cattrs.transform_error(error, root, _explain)
    except (cattrs.StructureHandlerNotFoundError, ValueError, TypeError) as error:
        problems = [f"{_explain(error, None)} @ {root}"]
    lines = "".join(f"\n  - {problem}" for problem in problems)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise ConfigurationError(f"Invalid {subject}: {count}.{lines}")


def unstructure(value: Any) -> Any:
    """Plain data from an instance: dictionaries, lists, texts, numbers, truth values and None."""
    return _CONVERTER.unstructure(value)


def describe(value: Any) -> str:
    """A value of a configuration file in words, for messages: `the text '7'`."""
    if isinstance(value, str):
        return f"the text {value!r}"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    return f"a value of type {type(value).__name__}"


def _text(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, found {describe(value)}")
    return value


def _truth_value(value: Any, _: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, found {describe(value)}")
    return value


def _integer(value: Any, _: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"expected an integer, found {describe(value)}")
    return value


def _number(value: Any, _: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"expected a number, found {describe(value)}")
    if not isfinite(value):
        raise ValueError(f"expected a finite number, found {value!r}")
    return float(value)


def _path(value: Any, _: Any) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected a path, found {describe(value)}")
    return Path(value)


def _one_of(value: Any, choices: Mapping[Any, Any]) -> Any:
    """The member of `choices` under the key `value`, where true and 1.0 are not 1."""
    for key, member in choices.items():
        if type(key) is type(value) and key == value:
            return member
    names = ", ".join(repr(key) for key in choices)
    words = [key for key in choices if isinstance(key, str)]
    hint = did_you_mean(value, words) if isinstance(value, str) else ""
    raise ValueError(f"expected one of {names}, found {describe(value)}.{hint}".removesuffix("."))


def _literal_hook(cls: Any) -> Hook:
    choices = {choice: choice for choice in get_args(cls)}
    return lambda value, _: _one_of(value, choices)


def _enum_member(value: Any, cls: Any) -> Any:
    return value if isinstance(value, cls) else _one_of(value, {member.value: member for member in cls})


def _plain_hook(hook: Hook) -> Hook:
    """A hook that leaves enumerations of integers and texts alone: cattrs finds hooks by inheritance."""
    return lambda value, cls: _enum_member(value, cls) if _is_enum(cls) else hook(value, cls)


def _sequence_hook(cls: Any, converter: cattrs.Converter) -> Hook:
    """Lists, tuples and sets from lists, each element with its own place in the message."""
    origin, arguments = get_origin(cls) or cls, get_args(cls)
    fixed = origin is tuple and arguments and arguments[-1] is not Ellipsis
    result = list if origin is Sequence else origin

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, list | tuple | set | frozenset):
            raise ValueError(f"expected a list, found {describe(value)}")
        if fixed and len(value) != len(arguments):
            raise ValueError(f"expected a list of {len(arguments)} values, found {len(value)}")
        element_types = arguments if fixed else (arguments[:1] or (Any,)) * len(value)
        elements, errors = [], []
        for index, (element, element_type) in enumerate(zip(value, element_types, strict=True)):
            try:
                elements.append(converter.structure(element, element_type))
            except Exception as error:
                error.add_note(cattrs.IterableValidationNote(f"element {index}", index, element_type))
                errors.append(error)
        if errors:
            raise cattrs.IterableValidationError(f"invalid elements of {cls}", errors, cls)
        return result(elements)

    return hook


def _union_hook(cls: Any, converter: cattrs.Converter) -> Hook:
    """`X | None` and unions of plain types: the first member that takes the value as it is."""
    members = tuple(member for member in get_args(cls) if member is not types.NoneType)
    optional = len(members) < len(get_args(cls))
    takes_text = any(member in (str, Path, Any) or _is_literal(member) or _is_enum(member) for member in members)

    def hook(value: Any, _: Any) -> Any:
        if optional and (value is None or (value == "none" and not takes_text)):
            return None
        if len(members) == 1:
            return converter.structure(value, members[0])
        problems = []
        for member in members:
            try:
                return converter.structure(value, member)
            except (cattrs.BaseValidationError, ValueError, TypeError) as error:
                problems.append(_explain(error, None))
        raise ValueError(", or ".join(problems))

    return hook


def _class_hook(cls: Any, converter: cattrs.Converter) -> Hook:
    """An attrs class from a table; an instance is taken as it is."""
    from_table = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)

    def hook(value: Any, target: Any) -> Any:
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a table, found {describe(value)}")
        return from_table(value, target)

    return hook


def _is_enum(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Enum)


def _is_literal(cls: Any) -> bool:
    return get_origin(cls) is Literal


def _is_sequence(cls: Any) -> bool:
    return (get_origin(cls) or cls) in _SEQUENCES


def _is_union(cls: Any) -> bool:
    return get_origin(cls) in (Union, types.UnionType)


def _is_attrs_class(cls: Any) -> bool:
    return isinstance(cls, type) and attrs.has(cls)


def _strict_converter() -> cattrs.Converter:
    converter = cattrs.Converter(
        forbid_extra_keys=True, unstruct_collection_overrides={tuple: list, set: sorted, frozenset: sorted}
    )
    plain: dict[Any, Hook] = {str: _text, bool: _truth_value, int: _integer, float: _number, Path: _path}
    for cls, hook in plain.items():
        converter.register_structure_hook(cls, _plain_hook(hook))
    converter.register_structure_hook(Enum, _enum_member)
    converter.register_structure_hook_factory(_is_literal, _literal_hook)
    converter.register_structure_hook_factory(_is_sequence, lambda cls: _sequence_hook(cls, converter))
    converter.register_structure_hook_factory(_is_union, lambda cls: _union_hook(cls, converter))
    converter.register_structure_hook_factory(_is_attrs_class, lambda cls: _class_hook(cls, converter))
    converter.register_unstructure_hook(Path, str)
    return converter


def _explain(error: BaseException, _: Any) -> str:
    """One problem in words. The texts of attrs validators and of our own errors are kept."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        known = [field.alias for field in attrs.fields(error.cl) if field.init]
        unknown = [f"unknown key '{key}'.{did_you_mean(key, known)}" for key in sorted(error.extra_fields)]
        return f"{' '.join(unknown)} Known keys: {listing(known)}"
    if isinstance(error, cattrs.StructureHandlerNotFoundError):
        return f"a value of type {error.type_} can not be read from a configuration"
    if isinstance(error, KeyError):
        return "this key is missing and has no default"
    if isinstance(error, cattrs.BaseValidationError):
        return "; ".join(cattrs.transform_error(error, "$", _explain))
    if isinstance(error, AttributeError) and str(error).endswith("no attribute 'items'"):
        return "expected a table"
    # Validators of attrs put the attribute, the bounds and the value behind their text.
    text = str(error.args[0]) if error.args else ""
    return text.rstrip(".") or type(error).__name__


_CONVERTER = _strict_converter()
