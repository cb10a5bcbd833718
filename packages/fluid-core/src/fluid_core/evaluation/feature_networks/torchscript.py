"""A feature network of the user's in a TorchScript file, such as the Inception of the Frechet Inception Distance."""

import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.errors import CheckpointError, InvalidComponentError, InvalidRequestError
from fluid_core.evaluation.feature_networks.frozen_network import FrozenFeatureNetwork, resized
from fluid_core.evaluation.feature_networks.options import TorchScriptOptions


class TorchScriptNetwork(FrozenFeatureNetwork):
    """Calls the program with images and takes what it returns as features: `batch width`, or `batch width 1 1`.

    A program with an exported method `maps` that returns several activations serves perceptual losses as well. Raises
    `CheckpointError` for a file that is missing or no TorchScript.
    """

    def __init__(self, options: TorchScriptOptions) -> None:
        super().__init__()
        self.options = options
        self.name = options.description
        self.width = options.width
        self.program = _loaded(options.path)
        self.requires_grad_(False)
        self.eval()

    def _features(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        side = self.options.image_size
        scaled = self._scaled(images if side is None else resized(images, side))
        try:
            found: Any = self.program(scaled, **self.options.arguments)
        except RuntimeError as error:
            # Schemas are checked before anything runs; what else goes wrong is the network's own matter.
            if "nknown keyword argument" not in str(error):
                raise
            raise InvalidComponentError(
                f"The TorchScript file {self.options.path} takes no such arguments as {self.options.arguments}. "
                "Correct the option 'arguments'."
            ) from error
        if isinstance(found, Tensor) and found.ndim == 4 and tuple(found.shape[2:]) == (1, 1):
            found = found.flatten(1)
        if not isinstance(found, Tensor) or tuple(found.shape) != (len(images), self.width):
            shape = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InvalidComponentError(
                f"Expected the TorchScript file {self.options.path} to return features of shape ({len(images)}, "
                f"{self.width}), found {shape}. Set width to what the network returns, or export one that "
                "returns features alone."
            )
        return found.float()

    def _maps(self, images: Float[Tensor, "batch 3 height width"]) -> tuple[Float[Tensor, "batch _ _ _"], ...]:
        if not hasattr(self.program, "maps"):
            raise InvalidRequestError(
                f"The TorchScript file {self.options.path} has no method 'maps', which a perceptual loss needs. Export "
                "one that returns several activations, from fine to coarse, or choose another feature network."
            )
        return tuple(self.program.maps(self._scaled(images)))

    def _scaled(self, images: Tensor) -> Tensor:
        if self.options.value_range == "minus-one-to-one":
            return images
        share = (images + 1.0) / 2.0
        return share if self.options.value_range == "zero-to-one" else share * 255.0


def _loaded(path: str) -> Any:
    file = Path(path).expanduser()
    if not file.is_file():
        raise CheckpointError(f"Expected a TorchScript file at {file}, found none. Correct the option 'path'.")
    try:
        with warnings.catch_warnings():
            # The format is superseded by torch.export, and still what published Inceptions come in.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"Expected a TorchScript file at {file}, found one that can not be loaded: {str(error).splitlines()[0]} "
            "Write it with torch.jit.save."
        ) from error


def build_torchscript_network(options: TorchScriptOptions) -> TorchScriptNetwork:
    """The network in the file that the options name."""
    return TorchScriptNetwork(options)


class _GridOfColours(torch.nn.Module):
    """What the example holds: mean colours over a grid as features, and the grid itself as a map."""

    def forward(self, images: Tensor) -> Tensor:
        """Features."""
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """A fine and a coarse map."""
        fine = torch.nn.functional.avg_pool2d(images, 2)
        return fine, torch.nn.functional.avg_pool2d(fine, 4)


def example_torchscript_options(folder: Path) -> TorchScriptOptions:
    """Options of a tiny network without weights, which is written to `folder`, for tests."""
    file = folder / "grid_of_colours.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        images = torch.zeros(1, 3, 64, 64)
        traced = torch.jit.trace_module(  # type: ignore[no-untyped-call]
            _GridOfColours(), {"forward": images, "maps": images}
        )
        traced.save(str(file))
    return TorchScriptOptions(path=str(file), description="mean colours over a grid of 4 x 4", width=48)
