"""The configuration of a tokenizer's own training: `fluid tokenizer train`."""

from typing import Any

import attrs
from attrs.validators import gt

from fluid_core.configuration.course import TrainingCourse, not_blank
from fluid_core.configuration.sections import ComponentChoice


@attrs.frozen(kw_only=True)
class PerceptualTerm:
    """A term of the loss that compares pictures as a fixed network sees them."""

    network: str = attrs.field(validator=not_blank)
    """Name of a component of the kind `feature-network`."""

    options: dict[str, Any] = attrs.field(factory=dict)
    """Options of that component."""

    weight: float = attrs.field(default=0.1, validator=gt(0.0))
    """Weight of the distance, which is from 0 to 4, beside the tokenizer's own loss."""


@attrs.frozen(kw_only=True)
class TokenizerTrainingConfig(TrainingCourse):
    """How a tokenizer is trained. The weights of the terms of its own loss are options of the tokenizer."""

    perceptual: PerceptualTerm | None = None
    """None trains without."""


@attrs.frozen(kw_only=True)
class TokenizerRunConfig:
    """Everything the training of a tokenizer needs: the tokenizer, the data, and the course."""

    tokenizer: ComponentChoice
    data: ComponentChoice
    training: TokenizerTrainingConfig

    def choices(self) -> tuple[tuple[str, str, ComponentChoice], ...]:
        """Every component chosen, as (key in the configuration, kind of component, choice)."""
        return ("tokenizer", "tokenizer", self.tokenizer), ("data", "dataset", self.data)
