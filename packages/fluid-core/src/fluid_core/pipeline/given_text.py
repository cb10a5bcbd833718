"""Prompts as a caller gives them: as text, or already encoded."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import torch

from fluid_core.errors import InvalidRequestError, PromptError
from fluid_core.exchange import TextFeatures

if TYPE_CHECKING:
    from fluid_core.model import FluidModel


@attrs.frozen(kw_only=True)
class GivenText:
    """Either prompts, or their states."""

    prompts: tuple[str, ...]
    embeds: TextFeatures | None

    @classmethod
    def of(
        cls,
        prompt: str | Sequence[str] | None,
        embeds: TextFeatures | None,
        *,
        name: str,
        width: int,
        num_prompts: int | None = None,
    ) -> "GivenText | None":
        """What was given under `name` and `name_embeds`, checked; None if nothing was.

        `width` is that of the text encoder. Where `num_prompts` is known, there is one row, or one for each of them.
        Raises `PromptError` for a wrong number, and `InvalidRequestError` if both were given, or states of a wrong
        shape or with a mask of another type.
        """
        if prompt is not None and embeds is not None:
            raise InvalidRequestError(f"Expected {name} or {name}_embeds, found both. Leave one of them out.")
        if prompt is None and embeds is None:
            return None
        if prompt is not None and not isinstance(prompt, Sequence):
            raise PromptError(
                f"Expected a {name.replace('_', ' ')} as a text or a list of texts, found {type(prompt).__name__}."
            )
        prompts = () if prompt is None else (prompt,) if isinstance(prompt, str) else tuple(prompt)
        if embeds is not None:
            _check_embeds(embeds, name=name, width=width)
        given = cls(prompts=prompts, embeds=embeds)
        if given.num_prompts == 0:
            raise PromptError(f"Expected at least one {name.replace('_', ' ')}, found an empty list.")
        if num_prompts is not None and given.num_prompts not in (1, num_prompts):
            raise PromptError(
                f"Expected one {name.replace('_', ' ')} or one per prompt ({num_prompts}), found {given.num_prompts}."
            )
        return given

    @property
    def num_prompts(self) -> int:
        """How many prompts these are."""
        return len(self.prompts) if self.embeds is None else len(self.embeds.states)

    def features(self, model: "FluidModel") -> TextFeatures:
        """The states, on the device of the model. Raises `PromptError` for prompts the text encoder refuses."""
        if self.embeds is None:
            return model.encode_text(self.prompts)
        return TextFeatures(states=self.embeds.states.to(model.device), mask=self.embeds.mask.to(model.device))


def _check_embeds(embeds: TextFeatures, *, name: str, width: int) -> None:
    """Refuse what was not made by the model's own kind of text encoder, as far as that shows."""
    if not isinstance(embeds, TextFeatures):
        raise InvalidRequestError(
            f"Expected {name}_embeds to be TextFeatures, as encode_prompts makes them, found {type(embeds).__name__}."
        )
    states, mask = embeds.states, embeds.mask
    if mask.dtype != torch.bool:
        raise InvalidRequestError(
            f"Expected {name}_embeds with a mask of True and False, found one of "
            f"{str(mask.dtype).removeprefix('torch.')}. Convert it with mask.bool(), where True is a state to look at."
        )
    if states.ndim != 3 or states.shape[2] != width or states.shape[:2] != mask.shape:
        raise InvalidRequestError(
            f"Expected {name}_embeds with states of shape (prompts, text length, {width}) and a mask of the first two, "
            f"found {tuple(states.shape)} and {tuple(mask.shape)}. Encode the prompts with this model."
        )
    if not bool(mask.any(dim=1).all()):
        raise InvalidRequestError(
            f"Expected every row of {name}_embeds to have at least one state that its mask shows, found a row without."
        )
