"""Real pictures measured once and kept: mean and covariance of their features, and for precision and recall these.

A folder with `reference.json`, which says what was measured and how, `statistics.safetensors`, and where wanted
`features.safetensors`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from jaxtyping import Float
from torch import Tensor

from fluid_core.atomic_files import new_folder, read_json, read_safetensors, write_json, write_safetensors
from fluid_core.errors import CheckpointError, CheckpointMismatchError
from fluid_core.evaluation.frechet_distance import FeatureStatistics
from fluid_core.evaluation.picture_features import NamedNetwork, PictureFeatures
from fluid_core.evaluation.result_file import versions

_FORMAT_VERSION = 1
_DESCRIPTION, _STATISTICS, _FEATURES = "reference.json", "statistics.safetensors", "features.safetensors"


@attrs.frozen(kw_only=True, eq=False)
class ReferencePictures:
    """Statistics of real pictures, with what they are of."""

    statistics: FeatureStatistics
    description: Mapping[str, Any]
    """Where the pictures come from, how they were prepared, how many they are and their hash."""

    features: Float[Tensor, "pictures width"] | None = None
    """None where they were not kept."""


def reference_of(found: PictureFeatures, source: Mapping[str, Any]) -> ReferencePictures:
    """What is kept of the features of real pictures; `source` is what their source says of itself."""
    statistics = FeatureStatistics(found.features.shape[1])
    for features in found.features.split(4096):  # type: ignore[no-untyped-call]
        statistics.update(features)
    description = {
        **source,
        "num_images": len(found.features),
        "num_skipped": found.num_skipped,
        "sha256": found.sha256,
    }
    return ReferencePictures(statistics=statistics, description=description, features=found.features)


def save_reference(
    reference: ReferencePictures, network: NamedNetwork, folder: Path, *, with_features: bool = False
) -> None:
    """Write the folder, whole or not at all; what was there is replaced.

    Raises `CheckpointError` for a folder that holds anything else, and `OutputError` if it can not be written.
    """
    others = [path.name for path in folder.glob("*")] if folder.exists() else []
    if others and not (folder / _DESCRIPTION).is_file():
        raise CheckpointError(
            f"{folder} holds {others[0]!r}, which saving a reference would delete. Save it to a new folder."
        )
    statistics = reference.statistics
    with new_folder(folder) as new:
        write_json(
            new / _DESCRIPTION,
            {
                "format_version": _FORMAT_VERSION,
                "pictures": dict(reference.description),
                "network": network.as_json(),
                "packages": versions(),
            },
        )
        write_safetensors(
            new / _STATISTICS,
            {"mean": statistics.mean, "covariance": statistics.covariance()},
        )
        if with_features and reference.features is not None:
            write_safetensors(new / _FEATURES, {"features": reference.features})


def load_reference(folder: Path, network: NamedNetwork, *, with_features: bool = False) -> ReferencePictures:
    """The reference in a folder. Raises `CheckpointError` for one that is missing, damaged or without the features that
    are wanted, and `CheckpointMismatchError` for features of another network.
    """
    described = read_json(folder / _DESCRIPTION)
    if not isinstance(described, dict) or described.get("format_version") != _FORMAT_VERSION:
        raise CheckpointError(f"Expected {folder / _DESCRIPTION} to be a reference of this version. Measure it anew.")
    if described["network"]["sha256"] != network.identity:
        raise CheckpointMismatchError(
            f"The reference in {folder} was measured in another network: {described['network']['description']} there, "
            f"{network.network.name} here, or other weights or options of it. Name that network, or measure it anew."
        )
    if with_features and not (folder / _FEATURES).is_file():
        raise CheckpointError(
            f"The reference in {folder} holds no features, which precision and recall need: leave those out, or save "
            "the reference anew together with them."
        )
    tensors = read_safetensors(folder / _STATISTICS)
    return ReferencePictures(
        statistics=FeatureStatistics.of(
            tensors["mean"], tensors["covariance"], count=int(described["pictures"]["num_images"])
        ),
        description=described["pictures"],
        features=read_safetensors(folder / _FEATURES)["features"] if with_features else None,
    )
