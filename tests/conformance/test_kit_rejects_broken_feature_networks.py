"""Feature networks with one mistake each, and the test of the suite that finds it."""

import pytest
import torch

from fluid_core.evaluation.feature_networks.random_convolutions import RandomConvolutions
from fluid_core.testing import FeatureNetworkSuite


class Nameless(RandomConvolutions):
    """Figures without a source."""

    caught_by = "test_is_a_feature_network"

    def __init__(self):
        super().__init__()
        self.name = " "


class MapForFeatures(RandomConvolutions):
    """Forgets to average over the picture."""

    caught_by = "test_features_fit"

    def features(self, images):
        """The last map."""
        with torch.no_grad():
            return self.maps(images)[-1].flatten(1)


class NormalisedByTheBatch(RandomConvolutions):
    """Centres features over whatever comes along."""

    caught_by = "test_an_image_does_not_depend_on_its_neighbours"

    def features(self, images):
        """Features less their mean."""
        features = super().features(images)
        return features - features.mean(dim=0)


class Blind(RandomConvolutions):
    """Has rounded the picture away."""

    caught_by = "test_features_tell_pictures_apart"

    def features(self, images):
        """The features of a black picture."""
        return super().features(torch.zeros_like(images))


class DropsWhileItTrains(RandomConvolutions):
    """Has dropout, and does not stay in evaluation mode."""

    caught_by = "test_features_are_deterministic"

    def train(self, mode=True):
        """Follow the model around it."""
        return torch.nn.Module.train(self, mode)

    def features(self, images):
        """Features with holes."""
        return torch.nn.functional.dropout(super().features(images), 0.5, self.training)


class DrawnAnew(RandomConvolutions):
    """Has other weights every time it is built."""

    caught_by = "test_features_are_deterministic"

    def __init__(self):
        super().__init__()
        for layer in self.layers:
            layer.weight.copy_(torch.randn_like(layer.weight) * layer.weight.std())


class Trainable(RandomConvolutions):
    """Would be trained along with the model."""

    caught_by = "test_it_is_frozen"

    def __init__(self):
        super().__init__()
        self.requires_grad_(True)


class DetachedMaps(RandomConvolutions):
    """Can not teach an autoencoder anything."""

    caught_by = "test_maps_have_gradients"

    def maps(self, images):
        """Maps without a way back."""
        with torch.no_grad():
            return super().maps(images)


BROKEN = [
    network
    for network in list(globals().values())
    if isinstance(network, type) and hasattr(network, "caught_by") and network.__module__ == __name__
]


def suite_for(broken):
    """A suite that tests `broken`, a function that makes a feature network."""

    class Suite(FeatureNetworkSuite):
        def feature_network(self):
            return broken()

    return Suite


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_feature_networks_are_rejected(broken, assert_rejected):
    """The test named by `caught_by` fails."""
    assert_rejected(suite_for(broken), broken.caught_by)


def test_every_test_of_the_suite_catches_something():
    """No test of the suite is there for show: each has a broken feature network that fails it."""
    tests = {name for name in dir(FeatureNetworkSuite) if name.startswith("test_")}
    assert tests == {broken.caught_by for broken in BROKEN}
