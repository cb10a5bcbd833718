"""Parameters of a configuration's model, part by part, counted in the real modules."""

import attrs

from fluid_core.planning.frozen_parts import num_parameters
from fluid_core.planning.skeleton import Skeleton


@attrs.frozen(kw_only=True)
class ParameterCounts:
    """Numbers in the weights of each part. None: not counted, for want of a configuration to count from."""

    token_embedding: int
    """With positions and the placeholder for unknown tokens; a table that a softmax head shares counts here."""

    aligner: int
    transformer: int
    head: int
    """What the head has of its own."""

    trained_text_encoder: int
    """0 for a frozen one."""

    frozen_text_encoder: int | None
    """0 for one that trains."""

    frozen_tokenizer: int | None

    @property
    def trained(self) -> int:
        """All that the optimizer updates."""
        return self.as_named + self.aligner + self.trained_text_encoder

    @property
    def as_named(self) -> int:
        """What the named sizes count: token embedding, transformer and head (`fluid_core.backbone.sizes`)."""
        return self.token_embedding + self.transformer + self.head


def count_parameters(skeleton: Skeleton) -> ParameterCounts:
    """The parameters of a model that `build_skeleton` made."""
    model, text = skeleton.model, skeleton.text
    return ParameterCounts(
        token_embedding=num_parameters(model.token_embedding),
        aligner=num_parameters(model.aligner),
        transformer=num_parameters(model.transformer),
        head=num_parameters(model.head),  # type: ignore[arg-type]
        trained_text_encoder=num_parameters(model.text_encoder) if text is None else 0,  # type: ignore[arg-type]
        frozen_text_encoder=0 if text is None else text.num_parameters,
        frozen_tokenizer=skeleton.tokenizer.num_parameters,
    )
