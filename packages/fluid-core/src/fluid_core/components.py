"""What a plugin returns to the catalog: declarations of components, light enough to list without loading torch.

A declaration names a component and tells how to build it. The build function is where heavy imports belong: it runs
only when somebody uses the component.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import attrs

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@attrs.frozen(kw_only=True)
class Component:
    """Declaration of one component.

    `options` is an attrs class (keyword-only fields with defaults wherever a default makes sense); `build` receives an
    instance of it. `example`, where the defaults alone can not be built, returns options of a small instance for tests
    and may write files it needs into the folder it is given.
    """

    kind: ClassVar[str] = "component"

    name: str
    """Lower-case words joined by hyphens; unique among the installed components of this kind."""

    summary: str
    """One line for `fluid components`."""

    options: type
    build: Callable[..., Any]
    example: Callable[[Path], Any] | None = None

    def problems(self) -> list[str]:
        """Everything that is wrong with this declaration, in words; empty if it is valid."""
        found = []
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            found.append(f"its name must be lower-case words joined by hyphens, found {self.name!r}")
        if not isinstance(self.summary, str) or not self.summary.strip() or "\n" in self.summary:
            found.append(f"its summary must be one line of text, found {self.summary!r}")
        if not isinstance(self.options, type) or not attrs.has(self.options):
            found.append(f"its options must be an attrs class, found {self.options!r}")
        if not _is_function(self.build):
            found.append(f"its build must be a function, found {self.build!r}")
        if self.example is not None and not _is_function(self.example):
            found.append(f"its example must be a function or None, found {self.example!r}")
        return found


@attrs.frozen(kw_only=True)
class TokenizerComponent(Component):
    """A tokenizer: `build(options) -> Tokenizer`."""

    kind: ClassVar[str] = "tokenizer"

    produces: str
    """Kind of its token space: `continuous`, `discrete`, or a word of the plugin's own."""

    outline: Callable[[Any], Any] | None = None
    """For tokenizers with weights from elsewhere: `outline(options)` gives the `TokenizerOutline`
    (`fluid_core.planning.outlines`) that `fluid plan` goes by, without loading or downloading weights."""

    def problems(self) -> list[str]:
        """Everything that is wrong with this declaration, in words; empty if it is valid."""
        found = Component.problems(self) + _token_kind_problems("produces", self.produces)
        return found + _outline_problems(self.outline)


@attrs.frozen(kw_only=True)
class HeadComponent(Component):
    """A head: `build(options, context: HeadContext) -> Head`."""

    kind: ClassVar[str] = "head"

    predicts: str
    """Kind of the token space it predicts; it joins with tokenizers that produce the same kind."""

    tells_confidence: bool = False
    """Whether it is a `ConfidentHead`, for orders that keep what the head is surest of."""

    def problems(self) -> list[str]:
        """Everything that is wrong with this declaration, in words; empty if it is valid."""
        return Component.problems(self) + _token_kind_problems("predicts", self.predicts)


@attrs.frozen(kw_only=True)
class OrderComponent(Component):
    """An order: `build(options) -> OrderPolicy`."""

    kind: ClassVar[str] = "order"

    needs_confidence: bool = False
    """Whether it samples only with heads that can tell how sure they are of each token."""


@attrs.frozen(kw_only=True)
class TextEncoderComponent(Component):
    """A text encoder: `build(options) -> TextEncoder`."""

    kind: ClassVar[str] = "text-encoder"

    outline: Callable[[Any], Any] | None = None
    """For frozen encoders with weights from elsewhere: `outline(options)` gives the `TextEncoderOutline`
    (`fluid_core.planning.outlines`) that `fluid plan` goes by, without loading or downloading weights."""

    def problems(self) -> list[str]:
        """Everything that is wrong with this declaration, in words; empty if it is valid."""
        return Component.problems(self) + _outline_problems(self.outline)


@attrs.frozen(kw_only=True)
class DatasetComponent(Component):
    """A data set: `build(options, context: DatasetContext)` gives a `CaptionedImages` or a `CaptionedStream`."""

    kind: ClassVar[str] = "dataset"

    encoded: bool = False
    """Whether its items went through a tokenizer already: it is then an `EncodedImages`, to train on and for nothing
    that needs pictures."""


@attrs.frozen(kw_only=True)
class FeatureNetworkComponent(Component):
    """A feature network: `build(options) -> FeatureNetwork`."""

    kind: ClassVar[str] = "feature-network"


def _token_kind_problems(field: str, value: object) -> list[str]:
    if isinstance(value, str) and value.strip():
        return []
    return [f"its {field} must be a kind of token such as 'continuous' or 'discrete', found {value!r}"]


def _outline_problems(outline: object) -> list[str]:
    if outline is None or _is_function(outline):
        return []
    return [f"its outline must be a function or None, found {outline!r}"]


def _is_function(value: object) -> bool:
    """Whether a declared function is one: plugins are not type-checked before they are loaded."""
    return callable(value)
