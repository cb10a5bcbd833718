"""The suite for data sets of captioned pictures, with random access or as streams."""

import hashlib
from collections.abc import Iterator
from itertools import zip_longest

import pytest
import torch

from fluid_core.building import missing_members
from fluid_core.data.captioned_images import (
    CaptionedImage,
    CaptionedImages,
    CaptionedStream,
    EpochVariants,
    JudgedPrompts,
    StreamSample,
)
from fluid_core.exchange import DatasetContext
from fluid_core.testing.conformance_suite import ConformanceSuite
from fluid_core.testing.global_random_state import without_global_random_numbers

_ROUNDING = 1e-4


class DatasetSuite(ConformanceSuite):
    """Tests that every data set must pass, whether it has random access or is a stream.

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

    def dataset(self, context: DatasetContext) -> CaptionedImages | CaptionedStream:
        """The data set to test. By default the installed one called `component`."""
        built: CaptionedImages | CaptionedStream = self.build(context)
        return built

    def test_is_a_data_set(self) -> None:
        """It has everything the protocol asks for, at least one item, and pictures of the size that was asked for.

        If this fails: see `CaptionedImages` and `CaptionedStream` in `fluid_core.data.captioned_images`; take
        `image_size` from the context.
        """
        for image_size in self.image_sizes:
            dataset = self._dataset(image_size=image_size)
            is_stream = hasattr(dataset, "samples")
            assert not missing_members(dataset, CaptionedStream if is_stream else CaptionedImages)
            if isinstance(dataset, CaptionedStream):
                assert dataset.num_shards > 0
                assert dataset.shuffle_buffer > 0
            else:
                assert len(dataset) > 0
            assert tuple(dataset.image_size) == image_size
            items = self._items(dataset, 1)
            assert items, "there is no item"
            assert tuple(items[0].image.shape) == (3, *image_size)

    def test_items_are_captioned_images(self) -> None:
        """Pictures are float32, finite and in [-1, 1]; captions are texts that say something.

        If this fails: scale bytes with x / 127.5 - 1; drop pictures without a caption when the data set is built.
        """
        for split in ("train", "validation"):
            for item in self._items(self._dataset(split=split)):
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
        images = torch.stack([item.image for item in self._items(self._dataset())])
        assert float(images.min()) < -0.1
        assert float(images.max()) > 0.1

    def test_items_are_the_same_every_time(self) -> None:
        """Item `i` is the same on every visit, in every order of visits and in a data set built again; so are the
        samples of every shard of a stream.

        If this fails: derive whatever is random from the seed of the context and the index, with a generator of its own
        for every item; an interrupted run continues exactly only if so.
        """
        first, again = self._dataset(), self._dataset()
        if isinstance(first, CaptionedStream):
            assert isinstance(again, CaptionedStream)
            shards = range(min(3, first.num_shards))
            read = [self._shard(first, shard) for shard in shards]
            assert [self._shard(first, shard) for shard in reversed(shards)] == read[::-1]
            assert [self._shard(again, shard) for shard in shards] == read
            return
        assert isinstance(again, CaptionedImages)
        indices = range(min(8, len(first)))
        forwards = [_fingerprint(first[i]) for i in indices]
        assert [_fingerprint(first[i]) for i in reversed(indices)] == forwards[::-1]
        assert [_fingerprint(again[i]) for i in indices] == forwards

    def test_items_do_not_depend_on_global_random_numbers(self) -> None:
        """Items are the same whatever the global generators do, and leave those untouched.

        If this fails: look for `random.choice`, `np.random` and transforms that flip or crop by chance.
        """
        first, second = without_global_random_numbers(
            lambda: [_fingerprint(item) for item in self._items(self._dataset(), 4)]
        )
        assert first == second

    def test_items_may_be_changed_by_whoever_gets_them(self) -> None:
        """Writing into a picture changes nothing for the next visitor of the same item.

        If this fails: return a copy of what is cached.
        """
        dataset = self._dataset()
        sample = next(_samples(dataset)) if isinstance(dataset, CaptionedStream) else None

        def visited() -> CaptionedImage:
            if isinstance(dataset, CaptionedStream):
                assert sample is not None
                return dataset.item(sample, epoch=0)
            return dataset[0]

        before = _fingerprint(visited())
        visited().image.fill_(0.25)
        assert _fingerprint(visited()) == before

    def test_items_differ(self) -> None:
        """Items are not all the same picture.

        If this fails: the index is ignored, or every item is drawn from the same seed.
        """
        items = self._items(self._dataset())
        if len(items) == 1:
            pytest.skip("there is only one item")
        assert len({_pixels(item) for item in items}) > 1

    def test_indices_outside_raise(self) -> None:
        """Indices below 0 and from `len` on raise `IndexError`, and so do numbers of shards.

        If this fails: check `0 <= index < len(self)`; negative indices hide mistakes of samplers.
        """
        dataset = self._dataset()
        if isinstance(dataset, CaptionedStream):
            for shard in (-1, dataset.num_shards, dataset.num_shards + 10):
                with pytest.raises(IndexError):
                    next(dataset.samples(shard), None)
            return
        for index in (-1, len(dataset), len(dataset) + 10):
            with pytest.raises(IndexError):
                dataset[index]

    def test_validation_items_are_not_trained_on(self) -> None:
        """None of the first items of one split is, in picture and caption, among the first of the other.

        If this fails: choose the split of an item by something that stays with it, such as a hash of its file name, or
        give the splits different random streams.
        """
        train, validation = (
            {_fingerprint(item) for item in self._items(self._dataset(split=split))}
            for split in ("train", "validation")
        )
        assert not train & validation, "items occur in both splits"

    def test_epochs_follow_from_their_number(self) -> None:
        """What an item looks like in an epoch is the same every time; the first epoch is what `dataset[i]` shows; and
        if the data set says that it does not vary, all epochs look alike.

        If this fails: draw from a generator that is seeded with the seed of the context, the epoch and the item, and
        let `varies` say whether anything is drawn.
        """
        dataset, again = self._dataset(), self._dataset()
        if not isinstance(dataset, CaptionedStream | EpochVariants):
            pytest.skip("its items are the same in every epoch")
        assert isinstance(again, CaptionedStream | EpochVariants)
        epochs = []
        for epoch in (0, 1, 5):
            shown = self._in_epoch(dataset, epoch)
            assert self._in_epoch(dataset, epoch) == shown
            assert self._in_epoch(again, epoch) == shown
            epochs.append(shown)
        if not dataset.varies:
            assert epochs[0] == epochs[1] == epochs[2], "it varies, but says that it does not"
        if isinstance(dataset, CaptionedImages):
            assert epochs[0] == [_fingerprint(dataset[index]) for index in range(len(epochs[0]))]

    def test_shards_can_be_read_side_by_side(self) -> None:
        """Reading two shards in turn, or one of them twice at once, gives what reading each alone gives.

        If this fails: `samples` must open its source itself; the state of one reader must not be seen by another.
        """
        dataset = self._dataset()
        if not isinstance(dataset, CaptionedStream):
            pytest.skip("it has random access")
        pairs = ((0, dataset.num_shards - 1), (0, 0))
        for pair in pairs:
            alone = [[sample.key for sample in dataset.samples(shard)][: self.num_items] for shard in pair]
            turns = list(zip_longest(*(dataset.samples(shard) for shard in pair)))[: self.num_items]
            together = [[sample.key for sample in column if sample is not None] for column in zip(*turns, strict=True)]
            assert together == alone

    def test_keys_are_unique(self) -> None:
        """No two samples of a stream have the same key, whichever shard they are in.

        If this fails: put the name or number of the shard into the key; what is drawn for a sample follows from it.
        """
        dataset = self._dataset()
        if not isinstance(dataset, CaptionedStream):
            pytest.skip("it has random access")
        keys = [sample.key for _, sample in zip(range(20 * self.num_items), _samples(dataset), strict=False)]
        assert all(isinstance(key, str) and key for key in keys)
        assert len(set(keys)) == len(keys), "samples share a key"

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

    def _dataset(
        self, *, image_size: tuple[int, int] | None = None, split: str = "train"
    ) -> CaptionedImages | CaptionedStream:
        return self.dataset(DatasetContext(image_size=image_size or self.image_sizes[0], split=split))

    def _items(self, dataset: CaptionedImages | CaptionedStream, count: int | None = None) -> list[CaptionedImage]:
        """The first items, as they are in the first epoch."""
        count = count or self.num_items
        if isinstance(dataset, CaptionedStream):
            samples = zip(range(count), _samples(dataset), strict=False)
            return [dataset.item(sample, epoch=0) for _, sample in samples]
        return [dataset[index] for index in range(min(count, len(dataset)))]

    def _shard(self, stream: CaptionedStream, shard: int) -> list[tuple[str, tuple[str, str]]]:
        """The first samples of a shard by key, and what they look like."""
        samples = zip(range(8), stream.samples(shard), strict=False)
        return [(sample.key, _fingerprint(stream.item(sample, epoch=0))) for _, sample in samples]

    def _in_epoch(self, dataset: CaptionedStream | EpochVariants, epoch: int) -> list[tuple[str, str]]:
        """What the first items look like in an epoch."""
        if isinstance(dataset, CaptionedStream):
            samples = zip(range(8), _samples(dataset), strict=False)
            return [_fingerprint(dataset.item(sample, epoch=epoch)) for _, sample in samples]
        assert isinstance(dataset, CaptionedImages)
        return [_fingerprint(dataset.variant(index, epoch=epoch)) for index in range(min(8, len(dataset)))]


def _samples(stream: CaptionedStream) -> Iterator[StreamSample]:
    for shard in range(stream.num_shards):
        yield from stream.samples(shard)


def _pixels(item: CaptionedImage) -> str:
    return hashlib.sha256(item.image.contiguous().numpy().tobytes()).hexdigest()


def _fingerprint(item: CaptionedImage) -> tuple[str, str]:
    return _pixels(item), item.caption
