"""The suite for data sets of captioned pictures."""

import hashlib

import pytest
import torch

from fluid_core.building import missing_members
from fluid_core.data.captioned_images import CaptionedImage, CaptionedImages, JudgedPrompts
from fluid_core.exchange import DatasetContext
from fluid_core.testing.conformance_suite import ConformanceSuite
from fluid_core.testing.global_random_state import without_global_random_numbers

_ROUNDING = 1e-4


class DatasetSuite(ConformanceSuite):
    """Tests that every data set must pass.

    For a data set that is installed, its name is enough; `options` where its declaration has no `example`:

        class TestPostcards(DatasetSuite):
            component = "postcards"

    For a data set built by hand, say how:

        class TestMyData(DatasetSuite):
            def dataset(self, context):
                return MyData(context.image_size, context.split, context.seed)

    `self.folder` is an empty folder for files that the data set reads. Both splits, `train` and `validation`, are
    built. `image_sizes` and `num_items` can be set.
    """

    kind = "dataset"
    supplier = "dataset"

    image_sizes: tuple[tuple[int, int], ...] = ((32, 32), (48, 48))
    """Heights and widths that the data set is asked for."""

    num_items: int = 50
    """How many items of a split are looked at, at most."""

    def dataset(self, context: DatasetContext) -> CaptionedImages:
        """The data set to test. By default the installed one called `component`."""
        built: CaptionedImages = self.build(context)
        return built

    def test_is_a_data_set(self) -> None:
        """It has everything the protocol asks for, at least one item, and pictures of the size that was asked for.

        If this fails: see `fluid_core.data.captioned_images.CaptionedImages`; take `image_size` from the context.
        """
        for image_size in self.image_sizes:
            dataset = self._dataset(image_size=image_size)
            assert not missing_members(dataset, CaptionedImages)
            assert len(dataset) > 0
            assert tuple(dataset.image_size) == image_size
            assert tuple(dataset[0].image.shape) == (3, *image_size)

    def test_items_are_captioned_images(self) -> None:
        """Pictures are float32, finite and in [-1, 1]; captions are texts that say something.

        If this fails: scale bytes with x / 127.5 - 1; drop pictures without a caption when the data set is built.
        """
        for split in ("train", "validation"):
            dataset = self._dataset(split=split)
            for index in range(min(self.num_items, len(dataset))):
                item = dataset[index]
                assert isinstance(item, CaptionedImage)
                assert item.image.dtype == torch.float32
                assert tuple(item.image.shape) == (3, *self.image_sizes[0])
                assert bool(torch.isfinite(item.image).all())
                assert float(item.image.abs().max()) <= 1 + _ROUNDING
                assert isinstance(item.caption, str)
                assert item.caption.strip()

    def test_pictures_use_the_range(self) -> None:
        """The first items together have values well below and well above zero.

        If this fails: the pictures are scaled to [0, 1] instead of [-1, 1], or twice.
        """
        dataset = self._dataset()
        images = torch.stack([dataset[i].image for i in range(min(self.num_items, len(dataset)))])
        assert float(images.min()) < -0.1
        assert float(images.max()) > 0.1

    def test_items_are_the_same_every_time(self) -> None:
        """Item `i` is the same on every visit, in every order of visits and in a data set built again.

        If this fails: derive whatever is random from the seed of the context and the index, with a generator of its own
        for every item; an interrupted run continues exactly only if so.
        """
        first, again = self._dataset(), self._dataset()
        indices = range(min(8, len(first)))
        forwards = [_fingerprint(first[i]) for i in indices]
        assert [_fingerprint(first[i]) for i in reversed(indices)] == forwards[::-1]
        assert [_fingerprint(again[i]) for i in indices] == forwards

    def test_items_do_not_depend_on_global_random_numbers(self) -> None:
        """Items are the same whatever the global generators do, and leave those untouched.

        If this fails: look for `random.choice`, `np.random` and transforms that flip or crop by chance.
        """
        first, second = without_global_random_numbers(
            lambda: [_fingerprint(one[i]) for one in [self._dataset()] for i in range(min(4, len(one)))]
        )
        assert first == second

    def test_items_may_be_changed_by_whoever_gets_them(self) -> None:
        """Writing into a picture changes nothing for the next visitor of the same item.

        If this fails: return a copy of what is cached.
        """
        dataset = self._dataset()
        before = _fingerprint(dataset[0])
        dataset[0].image.fill_(0.25)
        assert _fingerprint(dataset[0]) == before

    def test_items_differ(self) -> None:
        """Items are not all the same picture.

        If this fails: the index is ignored, or every item is drawn from the same seed.
        """
        dataset = self._dataset()
        count = min(self.num_items, len(dataset))
        if count == 1:
            pytest.skip("there is only one item")
        assert len({_pixels(dataset[i]) for i in range(count)}) > 1

    def test_indices_outside_raise(self) -> None:
        """Indices below 0 and from `len` on raise `IndexError`.

        If this fails: check `0 <= index < len(self)`; negative indices hide mistakes of samplers.
        """
        dataset = self._dataset()
        for index in (-1, len(dataset), len(dataset) + 10):
            with pytest.raises(IndexError):
                dataset[index]

    def test_validation_items_are_not_trained_on(self) -> None:
        """None of the first items of one split is, in picture and caption, among the first of the other.

        If this fails: choose the split of an item by something that stays with it, such as a hash of its file name, or
        give the splits different random streams.
        """
        splits = []
        for split in ("train", "validation"):
            dataset = self._dataset(split=split)
            splits.append({_fingerprint(dataset[i]) for i in range(min(self.num_items, len(dataset)))})
        assert not splits[0] & splits[1], "items occur in both splits"

    def test_judged_prompts(self) -> None:
        """A data set with a judge has as many prompts as asked for of each task, the same for equal arguments, and its
        verdicts are reasoned and repeatable; noise shows nothing that a prompt asks for.

        If this fails: seed the choice of prompts with `seed` alone; a judge must not accept whatever it can not read.
        """
        dataset = self._dataset()
        if not isinstance(dataset, JudgedPrompts):
            pytest.skip("this data set has no judge")
        prompts = dataset.evaluation_prompts(num_per_task=2, seed=1)
        assert prompts == dataset.evaluation_prompts(num_per_task=2, seed=1)
        assert dataset.tasks
        assert [prompt.task for prompt in prompts] == [task for task in dataset.tasks for _ in range(2)]
        height, width = self.image_sizes[0]
        noise = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
        for prompt in prompts:
            assert prompt.text.strip()
            verdict, again = dataset.judge(noise, prompt), dataset.judge(noise, prompt)
            assert verdict == again
            assert verdict.reason.strip()
            assert not verdict.correct, f"noise was accepted for '{prompt.text}'"

    def _dataset(self, *, image_size: tuple[int, int] | None = None, split: str = "train") -> CaptionedImages:
        return self.dataset(DatasetContext(image_size=image_size or self.image_sizes[0], split=split))


def _pixels(item: CaptionedImage) -> str:
    return hashlib.sha256(item.image.contiguous().numpy().tobytes()).hexdigest()


def _fingerprint(item: CaptionedImage) -> tuple[str, str]:
    return _pixels(item), item.caption
