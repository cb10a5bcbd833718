"""Patches of pixels as ids of a codebook: what `pixel-patches` becomes when it is quantised."""

from collections.abc import Mapping

import attrs
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.identity import identity_of
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import DiscreteTokens, Grid, TokenSpace
from fluid_tokenizers.codebook_fitting import fit_codebook
from fluid_tokenizers.image_checks import check_images
from fluid_tokenizers.options import PatchCodebookOptions
from fluid_tokenizers.patching import from_patches, to_patches
from fluid_tokenizers.single_precision_buffers import SinglePrecisionBuffers

_CHUNK = 16384
"""Patches compared with the codebook at once: bounds the table of distances."""


class PatchCodebook(SinglePrecisionBuffers):
    """Each token is the id of the codeword nearest to a square patch of pixels.

    `fit` finds the codewords by k-means; the codebook is a buffer, saved and loaded with the module. Data
    with fewer distinct patches than `vocabulary_size` is represented exactly: the spare ids repeat codewords
    in turn, are never produced by encoding, and decode to valid patches should a model draw one.
    """

    codebook: Tensor
    num_codewords: Tensor

    def __init__(self, options: PatchCodebookOptions | None = None) -> None:
        super().__init__()
        self.options = options = options or PatchCodebookOptions()
        side = options.image_size // options.patch_size
        self.image_size: tuple[int, int] = (options.image_size, options.image_size)
        self.token_space: TokenSpace = DiscreteTokens(
            grid=Grid(height=side, width=side), vocabulary_size=options.vocabulary_size
        )
        self.register_buffer("codebook", torch.zeros(options.vocabulary_size, 3 * options.patch_size**2))
        # Ids from here on are spare; zero means that nothing was fitted yet.
        self.register_buffer("num_codewords", torch.zeros((), dtype=torch.int64))

    @property
    def fitted(self) -> bool:
        """True once a codebook was fitted or loaded."""
        return bool(self.num_codewords > 0)

    @torch.no_grad()
    def fit(self, images: Float[Tensor, "batch 3 height width"], *, seed: int) -> None:
        """Fit the codebook on all patches of `images` (in [-1, 1]); the same seed and data give the same
        codebook.

        Two thousand images of 32 x 32 pixels and 512 codewords take a few seconds on one core. Raises
        `InvalidRequestError` for images of a wrong size or range.
        """
        check_images(images, self.image_size)
        patches = to_patches(images.float(), self.options.patch_size).flatten(0, 1)
        found = fit_codebook(patches.cpu().numpy(), self.options.vocabulary_size, seed=seed)
        codewords = torch.from_numpy(found).to(self.codebook)
        repeated = torch.arange(self.options.vocabulary_size, device=codewords.device) % codewords.shape[0]
        self.codebook.copy_(codewords[repeated])
        self.num_codewords.fill_(codewords.shape[0])

    @torch.no_grad()
    def precompute(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """`ids`: `batch length`, the nearest codeword of every patch.

        Raises `InvalidRequestError` before `fit`, and for images of a wrong size, or outside [-1, 1].
        """
        codebook = self._fitted_codebook()
        check_images(images, self.image_size)
        patches = to_patches(images.float(), self.options.patch_size)
        # Reduced precision would swap close codewords.
        with torch.autocast(patches.device.type, enabled=False):
            # |p - c|^2 = |p|^2 - 2 (p . c - |c|^2 / 2): the nearest codeword has the largest bracket.
            offset = codebook.square().sum(dim=1) / 2
            ids = [
                torch.addmm(-offset, chunk, codebook.T).argmax(dim=1)
                for chunk in torch.split(patches.flatten(0, 1), _CHUNK)
            ]
        return {"ids": torch.cat(ids).view(patches.shape[:2])}

    def tokens(
        self,
        precomputed: Mapping[str, Tensor],
        *,
        random: KeyedRandom,  # noqa: ARG002  (encoding is deterministic)
    ) -> Int[Tensor, "batch length"]:
        """The ids, as int64 (a cache may hold them in a smaller type)."""
        return precomputed["ids"].long()

    def decode(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch 3 height width"]:
        """Images in [-1, 1] made of codewords.

        Raises `InvalidRequestError` before `fit`, and `InvalidTokensError` for ids outside the vocabulary.
        """
        self._fitted_codebook()
        self.token_space.validate(tokens)
        patches = self.codebook[tokens]
        return from_patches(patches, self.token_space.grid, self.options.patch_size).clamp(-1, 1)

    def identity(self) -> str:
        """Hash of options and codewords. Raises `InvalidRequestError` before `fit`."""
        codebook = self._fitted_codebook()
        return identity_of({"class": "PatchCodebook", **attrs.asdict(self.options)}, {"codebook": codebook})

    def _fitted_codebook(self) -> Float[Tensor, "codewords channels"]:
        """The codewords in use, without the spare ones."""
        if not self.fitted:
            raise InvalidRequestError(
                "Expected a fitted codebook, found a new `patch-codebook` without codewords. Call "
                "fit(images, seed=...) with a few hundred to a few thousand training images, or load saved "
                "state."
            )
        return self.codebook[: int(self.num_codewords)]
