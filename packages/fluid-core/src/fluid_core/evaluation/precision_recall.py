"""Precision and recall of a set of pictures, by which quality and variety are told apart.

Kynkaanniemi et al. (arXiv 1904.06991): around each feature vector of a set lies a ball that reaches to its k-th nearest
neighbour in the set, and all balls together stand for the set. Precision is the share of generated pictures inside the
real set's balls, recall the share of real pictures inside the generated set's.
"""

import attrs
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fluid_core.errors import InvalidRequestError

NUM_NEIGHBOURS = 3
"""As in the paper, and everywhere since."""

_ROWS = 1024
_ROUNDING = 1e-12
"""Relative to squared lengths: what float64 loses, so that equal vectors are at distance zero."""


@attrs.frozen(kw_only=True)
class PrecisionRecall:
    """Both shares, from 0 to 1, with what they were measured with."""

    precision: float
    recall: float
    num_neighbours: int
    num_images: tuple[int, int]
    """Real and generated: figures compare only between equal numbers."""


def precision_recall(
    real: Float[Tensor, "real width"],
    generated: Float[Tensor, "generated width"],
    *,
    num_neighbours: int = NUM_NEIGHBOURS,
) -> PrecisionRecall:
    """Precision and recall of feature vectors, with distances in float64.

    A vector on the surface of a ball is inside. Raises `InvalidRequestError` for sets of no more vectors than
    neighbours, less than one neighbour, or values that are not finite.
    """
    if num_neighbours < 1 or min(len(real), len(generated)) <= num_neighbours:
        raise InvalidRequestError(
            f"Expected two sets of more vectors than neighbours, of which there is at least 1, found {len(real)} and "
            f"{len(generated)} vectors and {num_neighbours} neighbours."
        )
    if not bool(torch.isfinite(real).all() and torch.isfinite(generated).all()):
        raise InvalidRequestError("Expected finite feature vectors, found NaN or infinity.")
    one, other = real.double(), generated.double()
    # Distances do not change, and rounding gets smaller.
    centre = one.mean(dim=0)
    one, other = one - centre, other - centre
    return PrecisionRecall(
        precision=float(_inside(other, one, num_neighbours).double().mean()),
        recall=float(_inside(one, other, num_neighbours).double().mean()),
        num_neighbours=num_neighbours,
        num_images=(len(real), len(generated)),
    )


def _inside(
    vectors: Float[Tensor, "vectors width"], of_set: Float[Tensor, "members width"], num_neighbours: int
) -> Bool[Tensor, "vectors"]:
    """Which vectors are in at least one ball of a set."""
    # The nearest is the vector itself.
    radii = torch.cat(
        [_squared_distances(rows, of_set).kthvalue(num_neighbours + 1, dim=1).values for rows in of_set.split(_ROWS)]  # type: ignore[no-untyped-call]
    )
    slack = _ROUNDING * max(float(vectors.square().sum(dim=1).max()), float(of_set.square().sum(dim=1).max()))
    return torch.cat(
        [(_squared_distances(rows, of_set) <= radii + slack).any(dim=1) for rows in vectors.split(_ROWS)]  # type: ignore[no-untyped-call]
    )


def _squared_distances(
    rows: Float[Tensor, "rows width"], others: Float[Tensor, "others width"]
) -> Float[Tensor, "rows others"]:
    lengths = rows.square().sum(dim=1)[:, None] + others.square().sum(dim=1)
    return (lengths - 2.0 * rows @ others.T).clamp(min=0.0)
