"""Fitting a codebook of vectors by k-means."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

MAX_VECTORS = 2**18
"""Vectors k-means works on; of more, a random sample is taken. Enough for 500 members per codeword of 512."""


def fit_codebook(vectors: "np.ndarray", vocabulary_size: int, *, seed: int) -> "np.ndarray":
    """At most `vocabulary_size` distinct codewords that represent `vectors` (count x channels) with small
    squared error.

    Where the data holds no more distinct vectors than that, they are the codewords themselves: fewer, and
    exact. The result depends on the data and `seed` alone.
    """
    # scikit-learn takes about a second to import, and only fitting needs it.
    import numpy as np
    from sklearn.cluster import MiniBatchKMeans

    random = np.random.RandomState(seed % 2**32)
    if len(vectors) > MAX_VECTORS:
        vectors = vectors[np.sort(random.choice(len(vectors), MAX_VECTORS, replace=False))]
    # Flat areas repeat the same patch many times. Weights give the same objective for less work, and let
    # k-means++ choose its seeds among different patches.
    distinct, counts = np.unique(vectors, axis=0, return_counts=True)
    if len(distinct) <= vocabulary_size:
        return distinct
    kmeans = MiniBatchKMeans(
        n_clusters=vocabulary_size,
        random_state=random,
        n_init=1,
        batch_size=4096,
        init_size=max(16384, 3 * vocabulary_size),
        # Counts are so unequal that moving rarely used centres onto frequent patches doubles the error.
        reassignment_ratio=0.0,
    )
    kmeans.fit(distinct, sample_weight=counts)
    return np.unique(kmeans.cluster_centers_.astype(vectors.dtype), axis=0)
