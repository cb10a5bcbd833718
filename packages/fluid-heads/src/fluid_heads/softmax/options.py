"""Options of the softmax head; loads no torch."""

import attrs
from attrs.validators import instance_of

from fluid_heads.option_checks import finite_number, whole_number


@attrs.frozen(kw_only=True)
class SoftmaxOptions:
    """How the softmax head is built, trained and sampled.

    Raises `ValueError` or `TypeError` for values out of range or of a wrong type.
    """

    tied_weights: bool = attrs.field(default=True, validator=instance_of(bool))
    """Use the table that embeds tokens at the backbone's input as the output matrix (paper, section 3)."""

    label_smoothing: float = attrs.field(default=0.0, validator=finite_number(at_least=0.0, below=1.0))
    """Share of the target's probability spread evenly over the vocabulary while training, in [0, 1)."""

    top_k: int | None = attrs.field(default=None, validator=whole_number(at_least=1, or_none=True))
    """Sample among the k likeliest ids only; None, or a number above the vocabulary, is all of them."""

    top_p: float | None = attrs.field(default=None, validator=finite_number(above=0.0, at_most=1.0, or_none=True))
    """Sample among the likeliest ids that together reach this probability, in (0, 1]; None is all of them."""


SAMPLING_OPTIONS = frozenset({"top_k", "top_p"})
"""What of it may change from one generation to the next."""
