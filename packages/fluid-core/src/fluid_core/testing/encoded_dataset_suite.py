"""The suite for data sets whose items went through a tokenizer already."""

import pytest
import torch

from fluid_core.building import missing_members
from fluid_core.data.encoded_images import EncodedImage, EncodedImages, stack_encoded
from fluid_core.errors import CheckpointMismatchError
from fluid_core.exchange import DatasetContext
from fluid_core.testing.conformance_suite import ConformanceSuite
from fluid_core.testing.global_random_state import without_global_random_numbers
from fluid_core.testing.tiny.text_encoder import TinyTextEncoder
from fluid_core.testing.tiny.tokenizers import TinyColourCodes
from fluid_core.token_space import Grid


class EncodedDatasetSuite(ConformanceSuite):
    """Tests that every data set of encoded images must pass.

    For a data set that is installed, its name is enough; `options` where its declaration has no `example`:

        class TestStampCache(EncodedDatasetSuite):
            component = "stamp-cache"

    For a data set built by hand, say how:

        class TestMyCache(EncodedDatasetSuite):
            def dataset(self, context):
                return MyCache(self.folder, context.image_size, context.split)

    `self.folder` is an empty folder for files that the data set reads. Both splits, `train` and `validation`, are
    built. `image_size` and `num_items` can be set.
    """

    kind = "dataset"
    supplier = "dataset"

    image_size: tuple[int, int] = (32, 32)
    """Height and width of the images that were encoded."""

    num_items: int = 50
    """How many items of a split are looked at, at most."""

    def dataset(self, context: DatasetContext) -> EncodedImages:
        """The data set to test. By default the installed one called `component`."""
        built: EncodedImages = self.build(context)
        return built

    def test_is_a_data_set_of_encoded_images(self) -> None:
        """It has everything the protocol asks for, and at least one item in each split.

        If this fails: see `fluid_core.data.encoded_images.EncodedImages`.
        """
        for split in ("train", "validation"):
            dataset = self._dataset(split)
            assert not missing_members(dataset, EncodedImages)
            assert len(dataset) > 0
            assert tuple(dataset.image_size) == self.image_size

    def test_items_stack_to_batches(self) -> None:
        """Items have a caption and finite tensors of one shape and type, and text states all of them or none.

        If this fails: leave the axis of the batch away, and the padding of the text.
        """
        for split in ("train", "validation"):
            dataset = self._dataset(split)
            items = [dataset[index] for index in range(min(self.num_items, len(dataset)))]
            for item in items:
                assert isinstance(item, EncodedImage)
                assert item.precomputed
                assert all(bool(torch.isfinite(tensor).all()) for tensor in item.precomputed.values())
                assert item.caption.strip()
            kinds = {tuple((name, t.shape, t.dtype) for name, t in item.precomputed.items()) for item in items}
            assert len(kinds) == 1, "items differ in the shapes or types of their tensors"
            batch = stack_encoded(items)
            assert batch.captions == tuple(item.caption for item in items)
            assert all(len(tensor) == len(items) for tensor in batch.precomputed.values())
            assert len({item.text is None for item in items}) == 1
            if batch.text is not None:
                assert batch.text.mask.sum(dim=1).tolist() == [
                    len(item.text) for item in items if item.text is not None
                ]

    def test_items_are_the_same_every_time(self) -> None:
        """Item `i` is the same on every visit, in every order of visits and in a data set built again.

        If this fails: nothing may be drawn here; what is random in tokens is drawn by `Tokenizer.tokens`.
        """
        first, again = self._dataset(), self._dataset()
        indices = range(min(8, len(first)))
        forwards = [_bytes(first[index]) for index in indices]
        assert [_bytes(first[index]) for index in reversed(indices)] == forwards[::-1]
        assert [_bytes(again[index]) for index in indices] == forwards
        assert len(set(forwards)) > 1

    def test_items_do_not_depend_on_global_random_numbers(self) -> None:
        """Items are the same whatever the global generators do, and leave those untouched.

        If this fails: look for `torch.randn` without a generator.
        """
        first, second = without_global_random_numbers(
            lambda: [_bytes(one[index]) for one in [self._dataset()] for index in range(min(4, len(one)))]
        )
        assert first == second

    def test_items_may_be_changed_by_whoever_gets_them(self) -> None:
        """Writing into an item changes nothing for its next visitor.

        If this fails: return a copy of what is mapped into memory.
        """
        dataset = self._dataset()
        before, item = _bytes(dataset[0]), dataset[0]
        for tensor in (*item.precomputed.values(), *([] if item.text is None else [item.text])):
            tensor.zero_()
        assert _bytes(dataset[0]) == before

    def test_indices_outside_raise(self) -> None:
        """Indices below 0 and from `len` on raise `IndexError`.

        If this fails: check `0 <= index < len(self)`; negative indices hide mistakes of samplers.
        """
        dataset = self._dataset()
        for index in (-1, len(dataset), len(dataset) + 10):
            with pytest.raises(IndexError):
                dataset[index]

    def test_another_tokenizer_is_refused(self) -> None:
        """A tokenizer that did not make the items raises `CheckpointMismatchError`, and so does another image size.

        If this fails: keep `identity()` of the tokenizer beside the items, and compare it in `connect`.
        """
        height, width = self.image_size
        other = TinyColourCodes(grid=Grid(height=height // 2, width=width // 2))
        with pytest.raises(CheckpointMismatchError):
            self._dataset().connect(other, TinyTextEncoder())
        with pytest.raises(CheckpointMismatchError):
            self.dataset(DatasetContext(image_size=(height * 2, width * 2)))

    def _dataset(self, split: str = "train") -> EncodedImages:
        return self.dataset(DatasetContext(image_size=self.image_size, split=split))


def _bytes(item: EncodedImage) -> tuple[str, ...]:
    tensors = [*item.precomputed.items(), *([] if item.text is None else [("text", item.text)])]
    return (item.caption, *(f"{name} {tensor.tolist()}" for name, tensor in tensors))
