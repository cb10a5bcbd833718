"""One call of a pipeline, prepared: text aligned, seeds drawn, sampler built, and all that can be refused refused."""

from collections.abc import Callable, Sequence

import attrs
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from fluid_core.errors import InvalidRequestError, PromptError
from fluid_core.evaluation_mode import evaluation_mode
from fluid_core.generation import GenerationProgress, GenerationSettings, check_order, generate
from fluid_core.keyed_random import KeyedRandom
from fluid_core.model import FluidModel
from fluid_core.pipeline.call_settings import CallSettings
from fluid_core.pipeline.given_text import GivenText
from fluid_core.pipeline.image_seeds import image_seeds
from fluid_core.protocols import OrderPolicy
from fluid_core.sampler_choice import ChosenSampler, build_sampler
from fluid_core.text.text_aligner import AlignedText


@attrs.frozen(kw_only=True, eq=False)
class Drawing:
    """Images about to be drawn, one for each row of `text` and each of `seeds`."""

    model: FluidModel
    text: AlignedText
    negative: AlignedText | None
    seeds: tuple[int, ...]
    settings: GenerationSettings
    order: OrderPolicy
    sampler: ChosenSampler
    callback: Callable[[GenerationProgress], None] | None

    @property
    def random(self) -> KeyedRandom:
        """The random numbers of each image, from their beginning."""
        return KeyedRandom(torch.tensor(self.seeds, device=self.model.device))

    def tokens(self) -> Shaped[Tensor, "images length *token"]:
        """Tokens of new images."""
        return generate(
            self.model,
            self.text,
            negative=self.negative,
            random=self.random,
            settings=self.settings,
            order=self.order,
            sampler=self.sampler,
            callback=self.callback,
        )

    def tokens_around(
        self, tokens: Shaped[Tensor, "images length *token"], known: Bool[Tensor, "images length"]
    ) -> Shaped[Tensor, "images length *token"]:
        """The same tokens where they are `known`, and new ones elsewhere.

        Images with the same number of known tokens are drawn together, and the callback is told of each such group in
        turn. Where fewer tokens are unknown than steps were asked for, there is one step for each of them.
        """
        # A tokenizer whose weights were cast may give tokens of another type.
        result = tokens.to(self.model.tokenizer.token_space.dtype, copy=True)
        groups = self._groups(known)
        for rows, num_steps in groups:
            # What the order refuses for one group, it refuses before another is drawn.
            grid, random = self.model.tokenizer.token_space.grid, self.random.rows(rows)
            self.order.generation(~known[rows], grid, num_steps=num_steps, random=random)
        for rows, num_steps in groups:
            result[rows] = generate(
                self.model,
                _rows(self.text, rows),
                negative=None if self.negative is None else _rows(self.negative, rows),
                random=self.random.rows(rows),
                settings=attrs.evolve(self.settings, num_steps=num_steps),
                order=self.order,
                sampler=self.sampler,
                tokens=tokens[rows],
                known=known[rows],
                callback=self.callback,
            )
        return result

    def _groups(self, known: Bool[Tensor, "images length"]) -> list[tuple[Int[Tensor, "rows"], int | None]]:
        """Images with equally many unknown tokens, where there are any, and the steps to draw those in."""
        num_unknown = (~known).sum(dim=1)
        counts = sorted(set(num_unknown.tolist()) - {0})
        wanted = self.settings.num_steps
        return [
            ((num_unknown == count).nonzero()[:, 0], None if wanted is None else min(wanted, count)) for count in counts
        ]


def prepare_drawing(
    model: FluidModel,
    prompt: str | Sequence[str] | None,
    settings: CallSettings,
    *,
    num_pictures: int | None = None,
) -> Drawing:
    """What `settings` ask of `model`, checked before anything is computed that takes long.

    With `num_pictures` given pictures are changed: one of them for all prompts, one prompt for all of them, or one for
    each. Then no prompt stands for no text. Raises `PromptError`, `InvalidRequestError` and
    `IncompatibleComponentsError` as `FluidPipeline.__call__` does.
    """
    width = model.text_encoder.width
    wanted = GivenText.of(prompt, settings.prompt_embeds, name="prompt", width=width)
    if wanted is None and num_pictures is None:
        raise PromptError("Expected a prompt, or prompt_embeds, found neither.")
    num_rows = _num_rows(None if wanted is None else wanted.num_prompts, num_pictures)
    unwanted = GivenText.of(
        _unless_empty(settings.negative_prompt),
        settings.negative_prompt_embeds,
        name="negative_prompt",
        width=width,
        num_prompts=num_rows,
    )
    generation = settings.generation()
    seeds = image_seeds(num_rows * settings.num_images_per_prompt, settings.seed, settings.generator)
    order = settings.order or model.order
    check_order(model, order)
    with torch.no_grad(), evaluation_mode(model):
        # Before the text, which may take seconds to encode: what the head refuses is refused at once.
        sampler = build_sampler(model.head, generation.sampler_settings, order=order)  # type: ignore[arg-type]
        text = model.unconditional_text(len(seeds)) if wanted is None else _aligned(model, wanted, len(seeds))
        negative = _aligned(model, unwanted, len(seeds)) if unwanted and generation.guidance.active else None
    return Drawing(
        model=model,
        text=text,
        negative=negative,
        seeds=tuple(seeds),
        settings=generation,
        order=order,
        sampler=sampler,
        callback=settings.callback_on_step_end,
    )


def _unless_empty(negative: str | Sequence[str] | None) -> str | Sequence[str] | None:
    """None for nothing but empty texts, which move away from no text, as guidance does without a negative prompt.

    Raises `PromptError` for empty ones among others.
    """
    listed = [negative] if isinstance(negative, str) else negative
    if not isinstance(listed, Sequence) or "" not in listed:
        return negative
    if all(one == "" for one in listed):
        return None
    raise PromptError(
        f"Expected negative prompts that all say something, or are all empty, found both: {list(listed)!r}. Draw those "
        "without one in a call of their own."
    )


def _num_rows(num_prompts: int | None, num_pictures: int | None) -> int:
    """How many different things are drawn. Raises `InvalidRequestError` for numbers that do not go together."""
    counts = {count for count in (num_prompts, num_pictures) if count is not None and count != 1}
    if len(counts) > 1:
        raise InvalidRequestError(
            f"Expected one picture for all prompts, one prompt for all pictures, or as many of both, found "
            f"{num_prompts} prompts and {num_pictures} pictures."
        )
    return counts.pop() if counts else 1


def _aligned(model: FluidModel, given: GivenText, count: int) -> AlignedText:
    """Text as the backbone sees it, each row repeated in place for `count` images: it is encoded once."""
    aligned: AlignedText = model.aligner(given.features(model))
    times = count // given.num_prompts
    return AlignedText(states=aligned.states.repeat_interleave(times, 0), mask=aligned.mask.repeat_interleave(times, 0))


def _rows(text: AlignedText, rows: Tensor) -> AlignedText:
    return AlignedText(states=text.states[rows], mask=text.mask[rows])
