"""Features of a set of pictures in a named network, computed in resumable parts by several processes."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.configuration import ComponentChoice
from fluid_core.errors import DataError
from fluid_core.evaluation.item_digest import joint_digest
from fluid_core.evaluation.picture_sources import PictureSource
from fluid_core.evaluation.result_file import versions
from fluid_core.evaluation.resumable_parts import ResumableParts
from fluid_core.identity import identity_of
from fluid_core.protocols import FeatureNetwork
from fluid_core.training.processes import Processes

InceptionResize = Literal["bicubic", "inside"]

KNOWN_FILES = {
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4": (
        "inception-2015-12-05.pt, NVIDIA's TorchScript of the Inception of the FID"
    ),
}
"""Published files by their SHA-256."""


@attrs.frozen(kw_only=True, eq=False)
class NamedNetwork:
    """A feature network, with what tells it from others."""

    network: FeatureNetwork
    choice: ComponentChoice
    identity: str
    """SHA-256 of its weights, its name and its options, but not of where its file lies."""

    is_inception: bool
    """Whether its user says that it is the Inception of the FID: distances in any other network are no FID."""

    file_sha256: str | None = None
    """Of the option `path`, for networks that are a file."""

    def as_json(self) -> dict[str, Any]:
        """What a record says about the network."""
        return {
            "name": self.choice.name,
            "options": dict(self.choice.options),
            "description": self.network.name,
            "width": self.network.width,
            "sha256": self.identity,
            "file_sha256": self.file_sha256,
            "inception_of_the_fid": self.is_inception,
            "recognised_as": KNOWN_FILES.get(self.file_sha256 or ""),
        }


def named_network(
    choice: ComponentChoice,
    device: torch.device,
    catalog: ComponentCatalog | None = None,
    *,
    is_inception: bool = False,
) -> NamedNetwork:
    """The network on its device. Raises what building it raises."""
    catalog = catalog or installed_components()
    network: Any = catalog.build("feature-network", choice.name, choice.options, root="$.feature_network.options")
    assert isinstance(network, nn.Module)
    options = {name: value for name, value in choice.options.items() if name != "path"}
    path = choice.options.get("path")
    file = None if path is None else hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()
    # Weights alone do not tell programs apart.
    identity = identity_of({"name": choice.name, "options": options, "file": file}, network.state_dict())
    return NamedNetwork(
        network=network.to(device),  # type: ignore[arg-type]
        choice=choice,
        identity=identity,
        is_inception=is_inception,
        file_sha256=file,
    )


def inception_choice(file: Path, resize: InceptionResize) -> ComponentChoice:
    """The Inception of the FID in its published TorchScript, which takes bytes, and gives 2048 features when told to.

    It resizes pictures to 299 pixels `inside` as the first FID did, bilinearly and without antialiasing, unless they
    come at that size: `bicubic` resizes them before, with antialiasing, as clean-fid does.
    """
    options = {
        "path": str(file),
        "description": f"Inception of the FID (resized {'inside' if resize == 'inside' else 'before, bicubic'})",
        "width": 2048,
        "value_range": "zero-to-255",
        "arguments": {"return_features": True},
        **({"image_size": 299} if resize == "bicubic" else {}),
    }
    return ComponentChoice(name="torchscript", options=options)


@attrs.frozen(kw_only=True, eq=False)
class PictureFeatures:
    """Features of a set, and what tells the set from others."""

    features: Float[Tensor, "pictures width"]
    sha256: str
    """Of the files or pictures, in their order."""

    num_skipped: int


def picture_features(
    source: PictureSource,
    network: NamedNetwork,
    folder: Path,
    *,
    batch_size: int,
    device: torch.device,
    processes: Processes | None = None,
    overwrite: bool = False,
    told: Callable[[int, int], None] | None = None,
) -> PictureFeatures:
    """Features of all pictures of a source, in float32 on the CPU, in all processes; parts are kept in `folder`.

    Raises `DataError` if not one picture can be read, and `OutputError` for a folder that holds something else, unless
    that may be overwritten.
    """

    def compute(numbers: range) -> dict[str, Tensor]:
        read = source.read(numbers)
        if read is None:
            return {}
        features = network.network.features(read.images.to(device))
        return {"features": features.float().cpu(), "number": read.numbers, "digest": read.digests}

    parts = ResumableParts(
        folder=folder,
        description={
            "what": "features",
            "network": network.identity,
            "pictures": source.as_json(),
            "fingerprint": source.fingerprint(),
            "packages": {name: version for name, version in versions().items() if name.startswith(("fluid", "torch"))},
        },
        num_items=source.count,
        part_size=batch_size,
        processes=processes or Processes(),
        overwrite=overwrite,
    )
    found = parts.computed(compute, told=told)
    if not found:
        raise DataError("Expected at least one picture that can be read, found none.")
    return PictureFeatures(
        features=found["features"],
        sha256=joint_digest(found["digest"]),
        num_skipped=source.count - len(found["number"]),
    )
