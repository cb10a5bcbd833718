"""The suite for tokenizers."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from fluid_core.errors import FluidError
from fluid_core.keyed_random import KeyedRandom
from fluid_core.model import check_component
from fluid_core.protocols import Tokenizer
from fluid_core.testing.example_tokens import assert_same_tokens
from fluid_core.testing.global_random_state import without_global_random_numbers
from fluid_core.testing.saved_state import saved_and_read
from fluid_core.testing.tokenizer_case import TokenizerCase, learns_from_images
from fluid_core.token_space import TokenSpace

_ROUNDING = 1e-4


class TokenizerSuite(TokenizerCase):
    """Tests that every tokenizer must pass.

    For a tokenizer that is installed, its name is enough; promise a `reconstruction_error` if there is one:

        class TestPixelPatches(TokenizerSuite):
            component = "pixel-patches"
            reconstruction_error = 1e-5

    For a tokenizer built by hand, say how:

        class TestMyTokenizer(TokenizerSuite):
            def tokenizer(self):
                return MyTokenizer(image_size=32)

    `images` may be defined for a tokenizer that expects special pictures, `example_tokens` for a token space of its
    own, and `num_images` and `tolerance` can be set.
    """

    def test_is_a_tokenizer(self) -> None:
        """It is a module with everything the protocol asks for, a token space and an image size in pixels.

        If this fails: inherit from `torch.nn.Module` beside implementing `fluid_core.protocols.Tokenizer`;
        `image_size` is (height, width).
        """
        tokenizer = self._tokenizer()
        check_component(tokenizer, Tokenizer, needs_module=True)
        assert isinstance(tokenizer.token_space, TokenSpace)
        height, width = tokenizer.image_size
        assert isinstance(height, int)
        assert isinstance(width, int)
        assert height > 0
        assert width > 0

    def test_precomputed_tensors_have_one_row_per_image(self) -> None:
        """`precompute` gives tensors whose first axis is the batch, and whose rows do not depend on each other.

        If this fails: a cache stores these rows one by one and mixes them anew, so that each must belong to one image;
        store what belongs to all images as a buffer.
        """
        tokenizer = self._fitted()
        images = self._pictures(tokenizer, 4, seed=1)
        together = tokenizer.precompute(images)
        alone = tokenizer.precompute(images[2:3])
        assert together
        assert alone.keys() == together.keys()
        for name, tensor in together.items():
            assert isinstance(tensor, Tensor), f"'{name}' is no tensor"
            assert tensor.ndim >= 1, f"'{name}' has no batch axis"
            assert tensor.shape[0] == 4, f"'{name}'"
            assert_same_tokens(alone[name], tensor[2:3], tolerance=self.tolerance, reason=f"'{name}' of an image alone")

    def test_precompute_is_deterministic(self) -> None:
        """The same images give the same tensors, without a number from a global generator.

        If this fails: leave drawing from a posterior to `tokens`, and put dropout in evaluation mode.
        """
        tokenizer = self._fitted()
        images = self._pictures(tokenizer, 3, seed=1)
        first, second = without_global_random_numbers(lambda: tokenizer.precompute(images))
        for name in first:
            assert_same_tokens(second[name], first[name], reason=f"'{name}' changed from call to call")

    def test_tokens_are_in_the_token_space(self) -> None:
        """An image becomes one token for every place of the grid, of the shape, type and values of the space.

        If this fails: compare with `token_space.grid.length`, `token_space.token_shape` and `token_space.dtype`.
        """
        tokenizer = self._fitted()
        space = tokenizer.token_space
        for count in (3, 1):
            tokens = self._encode(tokenizer, self._pictures(tokenizer, count, seed=1))
            assert tuple(tokens.shape) == (count, space.grid.length, *space.token_shape)
            assert tokens.dtype == space.dtype
            space.validate(tokens)

    def test_tokens_follow_the_keys(self) -> None:
        """Tokens of an image depend on its own key and nothing else: not on its batch, nor on global generators.

        If this fails: draw from `random`, whose row i belongs to image i, and never with `torch.randn`.
        """
        tokenizer = self._fitted()
        images, keys = self._pictures(tokenizer, 4, seed=1), torch.arange(100, 104)
        first, second = without_global_random_numbers(lambda: self._encode(tokenizer, images, keys))
        assert_same_tokens(second, first, reason="the tokens changed from call to call")
        alone = self._encode(tokenizer, images[1:2], keys[1:2])
        assert_same_tokens(alone, first[1:2], tolerance=self.tolerance, reason="an image alone")

    def test_tokens_leave_the_precomputed_tensors_alone(self) -> None:
        """`tokens` changes nothing in what it is given, which may be a cache that is used again.

        If this fails: avoid operations in place, and return a new tensor rather than one that is changed later.
        """
        tokenizer = self._fitted()
        precomputed = tokenizer.precompute(self._pictures(tokenizer, 2, seed=1))
        before = {name: tensor.clone() for name, tensor in precomputed.items()}
        tokenizer.tokens(precomputed, random=KeyedRandom(torch.arange(2)))
        assert precomputed.keys() == before.keys()
        for name, tensor in before.items():
            assert_same_tokens(precomputed[name], tensor, reason=f"'{name}' was changed")

    def test_different_images_have_different_tokens(self) -> None:
        """Tokens say something about the picture, each about its own part of it or about the whole.

        If this fails: the images are ignored, or all of them fall on one token.
        """
        tokenizer = self._fitted()
        height, width = tokenizer.image_size
        plain = torch.ones(2, 3, height, width) * torch.tensor([-0.9, 0.9])[:, None, None, None]
        dark, bright = self._encode(tokenizer, plain, keys=torch.zeros(2, dtype=torch.int64))
        assert not torch.equal(dark, bright)

    def test_decode_makes_images(self) -> None:
        """Tokens of images, and any others that a model may draw, decode to finite images of `image_size` in [-1, 1].

        If this fails: clamp to [-1, 1]; let every id of the vocabulary have an entry in the codebook.
        """
        tokenizer = self._fitted()
        grid = tokenizer.token_space.grid
        drawn = self.example_tokens(2 * grid.length, generator=torch.Generator().manual_seed(0))
        for tokens in (
            self._encode(tokenizer, self._pictures(tokenizer, 3, seed=1)),
            drawn.view(2, grid.length, *drawn.shape[1:]),
        ):
            images = self._decode(tokenizer, tokens)
            assert tuple(images.shape) == (len(tokens), 3, *tokenizer.image_size)
            assert images.is_floating_point()
            assert bool(torch.isfinite(images).all())
            assert float(images.abs().max()) <= 1 + _ROUNDING

    def test_decode_is_deterministic_and_row_by_row(self) -> None:
        """The same tokens give the same image, alone or in a batch, whatever the global generators do.

        If this fails: look for statistics over the batch, layers in training mode, and noise in the decoder.
        """
        tokenizer = self._fitted()
        tokens = self._encode(tokenizer, self._pictures(tokenizer, 4, seed=1))
        first, second = without_global_random_numbers(lambda: self._decode(tokenizer, tokens))
        assert_same_tokens(second, first, reason="the images changed from call to call")
        alone = self._decode(tokenizer, tokens[3:])
        assert_same_tokens(alone, first[3:], tolerance=self.tolerance, reason="an image alone")

    def test_images_that_do_not_fit_are_refused(self) -> None:
        """Images of another size, colour mode, range or type raise a `FluidError`, rather than give tokens.

        If this fails: check shape, type and range at the head of `precompute`; bytes from 0 to 255 and images from 0
        to 255 as floats are the mistakes that people make.
        """
        tokenizer = self._fitted()
        good = self._pictures(tokenizer, 2, seed=1)
        with_nan = good.clone()
        with_nan[0, 0, 0, 0] = torch.nan
        for reason, images in {
            "one pixel too high": torch.cat([good, good[:, :, :1]], dim=2),
            "half the width": good[:, :, :, : max(1, good.shape[3] // 2)],
            "grey": good[:, :1],
            "with transparency": torch.cat([good, good[:, :1]], dim=1),
            "from 0 to 255": (good + 1) * 127.5,
            "bytes": ((good + 1) * 127.5).to(torch.uint8),
            "not a number": with_nan,
        }.items():
            # Where jaxtyping checks annotations, it may speak before the tokenizer does.
            try:
                tokenizer.precompute(images)
            except (FluidError, TypeCheckError):
                continue
            pytest.fail(f"images that are wrong ({reason}) were accepted")

    def test_state_survives_saving(self) -> None:
        """A new tokenizer that is given the saved state of a fitted one makes the same tokens and images.

        If this fails: everything that was learned or measured must be a parameter or a buffer, and `fitted` must be
        true after loading.
        """
        tokenizer, other = self._fitted(), self._tokenizer(seed=1)
        other.load_state_dict(saved_and_read(tokenizer), strict=True)
        if learns_from_images(other):
            assert other.fitted
        images = self._pictures(tokenizer, 3, seed=1)
        tokens = self._encode(tokenizer, images)
        assert_same_tokens(self._encode(other, images), tokens, reason="tokens")
        assert_same_tokens(
            self._decode(other, tokens), self._decode(tokenizer, tokens), tolerance=1e-6, reason="images"
        )

    def test_unfitted_use_works_or_is_refused(self) -> None:
        """Before `fit`, a tokenizer that learns from images says `fitted` is False and either works or raises a
        `FluidError`.

        If this fails: check in `precompute` and `decode` that something was learned, and say what to call.
        """
        tokenizer = self._tokenizer()
        if not learns_from_images(tokenizer):
            pytest.skip("this tokenizer does not learn from images")
        if not tokenizer.fitted:
            try:
                tokens = self._encode(tokenizer, self._pictures(tokenizer, 2))
            except FluidError:
                return
            tokenizer.token_space.validate(tokens)

    def test_fit_follows_images_and_seed(self) -> None:
        """`fit` with the same images and seed gives the same tokens, whatever the global generators do, and `fitted`
        is True after it.

        If this fails: hand `seed` to the library that does the fitting, and set a buffer from which `fitted` is read.
        """
        tokenizer = self._tokenizer()
        if not learns_from_images(tokenizer):
            pytest.skip("this tokenizer does not learn from images")
        pictures = self._pictures(tokenizer, self.num_images)

        def fit_and_encode() -> Tensor:
            fresh = self._tokenizer()
            fresh.fit(pictures, seed=3)
            assert fresh.fitted
            return self._encode(fresh, pictures[:4])

        first, second = without_global_random_numbers(fit_and_encode)
        assert_same_tokens(second, first, reason="fitting again gave other tokens")

    def test_images_come_back(self) -> None:
        """Encoding and decoding the pictures of `fit` errs by at most the `reconstruction_error` of the subclass.

        If this fails: compare one image by eye with its reconstruction; swapped axes of the grid, and statistics that
        are applied one way only, are common. Promise less if the codebook is simply small.
        """
        if self.reconstruction_error is None:
            pytest.skip("no reconstruction_error is promised")
        tokenizer = self._fitted()
        images = self._pictures(tokenizer, self.num_images)
        returned = self._decode(tokenizer, self._encode(tokenizer, images))
        error = float((returned - images).square().mean().sqrt())
        assert error <= self.reconstruction_error
