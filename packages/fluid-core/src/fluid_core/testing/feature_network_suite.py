"""The suite for feature networks."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.model import check_component
from fluid_core.protocols import FeatureNetwork
from fluid_core.testing.conformance_suite import ConformanceSuite
from fluid_core.testing.example_tokens import assert_same_tokens
from fluid_core.testing.global_random_state import seeded, without_global_random_numbers


class FeatureNetworkSuite(ConformanceSuite):
    """Tests that every feature network must pass.

    For a network that is installed, its name is enough; `options` where its declaration has no `example`:

        class TestMyNetwork(FeatureNetworkSuite):
            component = "my-network"

    For a network built by hand, say how:

        class TestMyNetwork(FeatureNetworkSuite):
            def feature_network(self):
                return MyNetwork()
    """

    kind = "feature-network"
    supplier = "feature_network"

    tolerance: float = 1e-4
    """How far features may differ when only the batch around an image changes."""

    def feature_network(self) -> FeatureNetwork:
        """The network to test. By default the installed one called `component`."""
        built: FeatureNetwork = self.build()
        return built

    def test_is_a_feature_network(self) -> None:
        """It is a module with everything the protocol asks for, and a name for people.

        If this fails: inherit from `torch.nn.Module` beside implementing `fluid_core.protocols.FeatureNetwork`; `name`
        says which network and which weights, in one line.
        """
        network = self._network()
        check_component(network, FeatureNetwork, needs_module=True)
        assert isinstance(network.width, int)
        assert network.width > 0
        assert isinstance(network.name, str)
        assert network.name.strip()
        assert "\n" not in network.name

    def test_features_fit(self) -> None:
        """Images of several sizes, square or not, have finite features of the width that the network states.

        If this fails: resize or average over the picture, so that `features` returns `batch width`.
        """
        network = self._network()
        for size in ((32, 32), (64, 64), (48, 80)):
            features = network.features(_pictures(3, size))
            assert tuple(features.shape) == (3, network.width)
            assert features.is_floating_point()
            assert bool(torch.isfinite(features).all())

    def test_an_image_does_not_depend_on_its_neighbours(self) -> None:
        """An image alone has the features it has beside others.

        If this fails: stay in evaluation mode, so that batch normalisation uses its own statistics.
        """
        network, pictures = self._network(), _pictures(4, (48, 48))
        together = network.features(pictures)
        alone = torch.cat([network.features(picture[None]) for picture in pictures])
        assert_same_tokens(alone, together, tolerance=self.tolerance, reason="an image alone")

    def test_features_tell_pictures_apart(self) -> None:
        """A flat ground, noise and a pattern have different features.

        If this fails: the image is ignored, or scaled to nothing; images are in [-1, 1].
        """
        flat, noise = torch.full((1, 3, 48, 48), 0.5), _pictures(1, (48, 48))
        checks = ((torch.arange(48)[:, None] + torch.arange(48)) % 2).float().expand(1, 3, 48, 48) * 2 - 1
        features = self._network().features(torch.cat([flat, noise, checks]))
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert not torch.allclose(features[one], features[other], atol=1e-4)

    def test_features_are_deterministic(self) -> None:
        """The same images have the same features every time and in a network built again, also while the model around
        it trains and whatever the global generators do.

        If this fails: override `train` to stay in evaluation mode; draw random weights from a seed.
        """
        network, pictures = self._network(), _pictures(2, (48, 48))
        network.train()
        first, second = without_global_random_numbers(lambda: network.features(pictures))
        assert_same_tokens(second, first, reason="the features changed from call to call")
        assert_same_tokens(self._network(seed=1).features(pictures), first, tolerance=1e-6, reason="built again")

    def test_it_is_frozen(self) -> None:
        """No parameter trains, and features carry no gradient.

        If this fails: call `requires_grad_(False)` in the constructor, and `torch.no_grad()` in `features`.
        """
        network = self._network()
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert not network.features(_pictures(1, (32, 32)).requires_grad_()).requires_grad

    def test_maps_have_gradients(self) -> None:
        """Maps are `batch channels height width`, each no finer than the one before, and gradients reach the images.

        If this fails: leave `torch.no_grad()` and rounding out of `maps`. A network without maps raises
        `InvalidRequestError`.
        """
        network = self._network()
        pictures = (0.9 * _pictures(2, (48, 48))).requires_grad_()
        try:
            maps = network.maps(pictures)
        except InvalidRequestError:
            pytest.skip("this network has no maps")
        assert isinstance(maps, tuple)
        assert maps
        assert all(one.ndim == 4 and len(one) == 2 for one in maps)
        sizes = [one.shape[2] * one.shape[3] for one in maps]
        assert sizes == sorted(sizes, reverse=True)
        assert all(bool(torch.isfinite(one).all()) for one in maps)
        assert all(one.requires_grad for one in maps)
        torch.stack([one.square().mean() for one in maps]).sum().backward()  # type: ignore[no-untyped-call]
        assert pictures.grad is not None
        assert bool((pictures.grad.flatten(1) != 0).any(dim=1).all())

    def _network(self, *, seed: int = 0) -> Any:
        with seeded(seed):
            return self.feature_network()


def _pictures(count: int, size: tuple[int, int]) -> Tensor:
    """Noise in [-1, 1], coarse enough to survive resizing."""
    generator = torch.Generator().manual_seed(sum(size))
    coarse = torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=size, mode="nearest")
