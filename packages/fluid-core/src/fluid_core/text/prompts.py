"""Checks of prompts that every text encoder makes, in words for the person who wrote them."""

from collections.abc import Sequence
from typing import Any

from fluid_core.errors import PromptError
from fluid_core.text.options import Overlong
from fluid_core.text.truncation_warnings import count_texts, warn_truncated

_EXCERPT_LENGTH = 60
_CUT_LENGTH = 300


def check_prompts(prompts: Sequence[Any]) -> list[str]:
    """The prompts as a list. Raises `PromptError` naming the first that is not text, or only white space."""
    if isinstance(prompts, str):
        raise PromptError(
            f"Expected a list of prompts, found one string {_excerpt(prompts)!r}. Put it in a list: [prompt]."
        )
    if len(prompts) == 0:
        raise PromptError("Expected at least one prompt, found none.")
    for index, prompt in enumerate(prompts):
        where = place(index, len(prompts))
        if not isinstance(prompt, str):
            raise PromptError(f"Expected {where} to be a string, found {type(prompt).__name__}: {prompt!r}.")
        if not prompt.strip():
            raise PromptError(f"Expected {where} to say something, found an empty text. Describe the picture.")
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise PromptError(
                f"Expected {where} to be valid Unicode text, found half of a surrogate pair in {prompt!r}. "
                "Read the text with the encoding it was written in."
            ) from None
    count_texts(len(prompts))
    return list(prompts)


def place(index: int, num_prompts: int) -> str:
    """Words for one prompt of several, counted from 1."""
    return "the prompt" if num_prompts == 1 else f"prompt {index + 1} of {num_prompts}"


def report_overlong(
    prompt: str, where: str, *, length: int, limit: int, unit: str, overlong: Overlong, cut: str
) -> None:
    """Deal with a prompt of `length` units where `limit` is the most: refuse it, or warn of what is cut from it.

    `where` says which prompt it is and `cut` is the text that truncation loses. Raises `PromptError` if
    `overlong` is `error`.
    """
    if overlong == "error":
        raise PromptError(
            f"Expected {where} to have at most {limit} {unit}, found {length}: {_excerpt(prompt)!r}. Shorten "
            "it, or choose overlong = 'truncate' among the options of the text encoder a model is built with."
        )
    warn_truncated(
        f"Truncated {where} from {length} to {limit} {unit}: {_excerpt(cut, _CUT_LENGTH)!r} was cut from the end."
    )


def _excerpt(text: str, length: int = _EXCERPT_LENGTH) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
