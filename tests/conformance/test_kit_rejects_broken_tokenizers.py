"""Tokenizers with one mistake each, and the test of the suite that finds it."""

import pytest
import torch
from torch.nn import functional

from fluid_core.testing import TokenizerSuite
from fluid_core.testing.tiny import TinyColourCodes, TinyMeanColours
from fluid_core.token_space import Grid


class Tokenizer(TinyMeanColours):
    """The intact one, on a grid that is not square."""

    def __init__(self):
        super().__init__(grid=Grid(height=2, width=4))


class SizeAsText(Tokenizer):
    """An image size that nobody can compute with."""

    caught_by = "test_is_a_tokenizer"

    def __init__(self):
        super().__init__()
        self.image_size = ("4", "8")


class StatisticsAmongTheRows(Tokenizer):
    """Stores something that belongs to no image."""

    caught_by = "test_precomputed_tensors_have_one_row_per_image"

    def precompute(self, images):
        """A tensor that a cache can not cut into images."""
        return {**super().precompute(images), "mean": self.mean_colour}


class BatchStatistics(Tokenizer):
    """Normalises by the mean of the batch."""

    caught_by = "test_precomputed_tensors_have_one_row_per_image"

    def precompute(self, images):
        """Colours that depend on the other images."""
        colours = super().precompute(images)["colours"]
        return {"colours": colours - colours.mean(dim=0)}


class NoiseInPrecompute(Tokenizer):
    """Draws from the posterior before the cache."""

    caught_by = "test_precompute_is_deterministic"

    def precompute(self, images):
        """Colours with noise."""
        colours = super().precompute(images)["colours"]
        return {"colours": colours + 0.1 * torch.randn_like(colours)}


class ChannelsFirst(Tokenizer):
    """Tokens of a transposed shape."""

    caught_by = "test_tokens_are_in_the_token_space"

    def tokens(self, precomputed, *, random):
        """Channels before positions."""
        return super().tokens(precomputed, random=random).mT


class DoublePrecision(Tokenizer):
    """Tokens of another type than declared."""

    caught_by = "test_tokens_are_in_the_token_space"

    def tokens(self, precomputed, *, random):
        """Tokens in float64."""
        return super().tokens(precomputed, random=random).double()


class GlobalNoise(Tokenizer):
    """Draws from the posterior with the global generator."""

    caught_by = "test_tokens_follow_the_keys"

    def tokens(self, precomputed, *, random):
        """Tokens that differ from call to call."""
        tokens = super().tokens(precomputed, random=random)
        return tokens + 0.1 * torch.randn_like(tokens)


class SameNoiseForAll(Tokenizer):
    """Takes the noise of the first image for all."""

    caught_by = "test_tokens_follow_the_keys"

    def tokens(self, precomputed, *, random):
        """Tokens that depend on the first key."""
        return super().tokens(precomputed, random=random) + 0.1 * random.normal((3,))[0]


class WritesIntoTheCache(Tokenizer):
    """Subtracts the mean in place."""

    caught_by = "test_tokens_leave_the_precomputed_tensors_alone"

    def tokens(self, precomputed, *, random):
        """Tokens that were colours."""
        return precomputed["colours"].sub_(self.mean_colour + 0.5)


class ForgetsThePicture(Tokenizer):
    """The same tokens for everything."""

    caught_by = "test_different_images_have_different_tokens"

    def tokens(self, precomputed, *, random):
        """Zeros."""
        return precomputed["colours"] * 0


class DoesNotClamp(Tokenizer):
    """Lets a model draw colours that do not exist."""

    caught_by = "test_decode_makes_images"

    def decode(self, tokens):
        """Images beyond white."""
        return super().decode(tokens) + tokens.mean()


class HolesInTheCodebook(TinyColourCodes):
    """Refuses an id that a model may well draw."""

    caught_by = "test_decode_makes_images"

    def decode(self, tokens):
        """Images without white."""
        return super().decode(tokens).masked_fill((tokens == 7).any(), torch.nan)


class NoiseInDecode(Tokenizer):
    """A decoder in training mode."""

    caught_by = "test_decode_is_deterministic_and_row_by_row"

    def decode(self, tokens):
        """Images with dropout."""
        return functional.dropout(super().decode(tokens) / 2, p=0.5, training=True)


class AcceptsAnything(Tokenizer):
    """Checks nothing."""

    caught_by = "test_images_that_do_not_fit_are_refused"

    def precompute(self, images):
        """Colours of whatever there is."""
        return {"colours": functional.adaptive_avg_pool2d(images.float(), (2, 4)).flatten(2).mT}


class AcceptsBytes(Tokenizer):
    """Takes images from 0 to 255 for very bright ones."""

    caught_by = "test_images_that_do_not_fit_are_refused"

    def precompute(self, images):
        """Colours of images of any range, as long as their shape is right and they are numbers."""
        in_range = images.float().clamp(-1, 1) if images.shape[1:] == (3, 4, 8) and images.isfinite().all() else images
        return super().precompute(in_range)


class UnsavedStatistics(Tokenizer):
    """Keeps what it measured in a plain attribute."""

    caught_by = "test_state_survives_saving"

    def fit(self, images, *, seed):
        """Measure, and hide the result from `state_dict`."""
        super().fit(images, seed=seed)
        measured = self.mean_colour.clone()
        del self.mean_colour
        self.mean_colour = measured

    def load_state_dict(self, state, strict=True):
        """Accept what is there."""
        return super().load_state_dict(state, strict=False)


class ForgetsThatItWasFitted(Tokenizer):
    """Asks to be fitted again after loading."""

    caught_by = "test_state_survives_saving"
    fitted = False

    def fit(self, images, *, seed):
        """Set an attribute instead of a buffer."""
        super().fit(images, seed=seed)
        self.fitted = True


class CrashesUnfitted(Tokenizer):
    """Says nothing about `fit` to whoever forgot it."""

    caught_by = "test_unfitted_use_works_or_is_refused"
    error = RuntimeError

    def tokens(self, precomputed, *, random):
        """An error that no user understands."""
        if not self.fitted:
            raise RuntimeError("size mismatch")
        return super().tokens(precomputed, random=random)


class FitsByChance(Tokenizer):
    """Looks at some of the images, chosen by the global generator."""

    caught_by = "test_fit_follows_images_and_seed"

    def fit(self, images, *, seed):
        """Measure on a random half."""
        super().fit(images[torch.randperm(len(images))[: len(images) // 2]], seed=seed)


class NeverFitted(Tokenizer):
    """Does not say that it was fitted."""

    caught_by = "test_fit_follows_images_and_seed"
    fitted = False


class Transposed(Tokenizer):
    """Swaps rows and columns on the way back."""

    caught_by = "test_images_come_back"

    def decode(self, tokens):
        """Images with their patches in the wrong places."""
        return super().decode(tokens.unflatten(1, (4, 2)).transpose(1, 2).flatten(1, 2))


BROKEN = [
    tokenizer
    for tokenizer in list(globals().values())
    if isinstance(tokenizer, type) and hasattr(tokenizer, "caught_by") and tokenizer.__module__ == __name__
]


def suite_for(broken):
    """A suite that tests `broken`, a function that makes a tokenizer."""

    class Suite(TokenizerSuite):
        reconstruction_error = 0.25

        def tokenizer(self):
            return broken()

    return Suite


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_tokenizers_are_rejected(broken, assert_rejected):
    """The test named by `caught_by` fails."""
    if hasattr(broken, "error"):
        with pytest.raises(broken.error):
            assert_rejected(suite_for(broken), broken.caught_by)
    else:
        assert_rejected(suite_for(broken), broken.caught_by)


def test_the_intact_one_passes(tmp_path):
    """What the broken ones were made from passes the tests that they fail."""
    for broken in BROKEN:
        run = suite_for(Tokenizer)()
        run.folder = tmp_path
        getattr(run, broken.caught_by)()


def test_every_test_of_the_suite_catches_something():
    """No test of the suite is there for show: each has a broken tokenizer that fails it."""
    tests = {name for name in dir(TokenizerSuite) if name.startswith("test_")}
    assert tests == {broken.caught_by for broken in BROKEN}
