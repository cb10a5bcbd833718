"""Options of the built-in orders. No torch here: listing components must stay fast."""

import attrs


@attrs.frozen(kw_only=True)
class RasterOrderOptions:
    """Raster order has nothing to choose: row by row, one token a step."""


@attrs.frozen(kw_only=True)
class RandomOrderOptions:
    """Options of the random order.

    `num_steps` is the number of generation steps when a call names none; fewer are taken where fewer
    positions are unknown. None means 64, as the paper.
    """

    num_steps: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional([attrs.validators.instance_of(int), attrs.validators.ge(1)]),
    )
