"""Options of the softmax head; loads no torch."""

import attrs
from attrs.validators import instance_of

from fluid_heads.option_checks import finite_number


@attrs.frozen(kw_only=True)
class SoftmaxOptions:
    """How the softmax head is built.

    Raises `ValueError` or `TypeError` for values out of range or of a wrong type.
    """

    tied_weights: bool = attrs.field(default=True, validator=instance_of(bool))
    """Use the table that embeds tokens at the backbone's input as the output matrix (paper, section 3)."""

    label_smoothing: float = attrs.field(default=0.0, validator=finite_number(at_least=0.0, below=1.0))
    """Share of the target's probability spread evenly over the vocabulary while training, in [0, 1)."""
