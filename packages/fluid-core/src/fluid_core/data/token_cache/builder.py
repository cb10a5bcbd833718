"""Builds a cache: shard after shard, so that a build that was killed goes on with the first shard it had not finished.

The manifest is written last. Until then the folder holds `unfinished.json`, which says what the cache will be: the same
build continues it, and any other is refused.
"""

from importlib import metadata
from pathlib import Path

import attrs

from fluid_core.atomic_files import check_writable, remove_unfinished, write_safetensors
from fluid_core.data.skipped_items import SkippedItem, SkippedItems
from fluid_core.data.token_cache.encoding import CacheEncoder, read_batches
from fluid_core.data.token_cache.manifest import (
    MANIFEST_FILE,
    PLAN_FILE,
    TOKENIZER_FILE,
    CachedPart,
    CachedSource,
    CachedText,
    Manifest,
    Shard,
    differences,
    read_manifest,
    read_manifest_file,
)
from fluid_core.data.token_cache.options import CacheBuildOptions
from fluid_core.data.token_cache.parts import learned_state
from fluid_core.data.token_cache.progress import CacheProgress
from fluid_core.data.token_cache.shard_files import finished_shard, remove_notes, write_shard
from fluid_core.data.token_cache.size_estimate import Measurement, SizeEstimate, check_room, estimate, measure
from fluid_core.data.token_cache.source import Piece, Source
from fluid_core.errors import CheckpointError, CheckpointMismatchError, OutputError
from fluid_core.text.truncation_warnings import truncations_summed_up


@attrs.frozen(kw_only=True, eq=False)
class CacheContents:
    """What a cache is made of: the parts that encode, the data, and what the manifest says of them."""

    encoder: CacheEncoder
    tokenizer: CachedPart
    text_encoder: CachedPart | None
    sources: tuple[Source, ...]
    """One for each split; the first one is measured."""

    source: CachedSource
    crop: str


class CacheBuilder:
    """One build of a cache in `folder`.

    Raises `CheckpointError` for a folder that holds anything else, `CheckpointMismatchError` for one with another
    cache, and `OutputError` where nothing can be written.
    """

    def __init__(
        self,
        folder: Path,
        contents: CacheContents,
        options: CacheBuildOptions,
        *,
        progress: CacheProgress,
        skipped: SkippedItems,
    ) -> None:
        self.folder = folder
        self._contents = contents
        self._options = options
        self._progress = progress
        self._skipped = skipped
        _check_folder(folder)
        with truncations_summed_up():
            self._measured = measure(
                contents.sources[0], contents.encoder, batch_size=options.batch_size, dtype=options.dtype
            )
        self.plan = self._plan(self._measured)
        self.is_whole = (folder / MANIFEST_FILE).is_file()
        """Whether the folder already holds this very cache, so that there is nothing to do."""

        found = folder / (MANIFEST_FILE if self.is_whole else PLAN_FILE)
        if found.is_file():
            self.plan = self._continued(read_manifest_file(found))

    def estimate(self) -> SizeEstimate:
        """What is left to write and how long that takes."""
        is_exact = all(source.num_items is not None for source in self._contents.sources)
        total = sum(source.about_how_many() for source in self._contents.sources)
        return estimate(
            self._measured,
            num_items=total,
            num_finished=self._num_finished(),
            is_exact=is_exact,
            folder=self.folder,
        )

    def build(self) -> Manifest:
        """Write what is missing, then the manifest.

        Raises `OutputError` if the disk has too little room, before anything is written or when it runs out, and
        `TooManySkippedError` if too many images can not be used.
        """
        if self.is_whole:
            return read_manifest(self.folder)
        expected = self.estimate()
        check_room(expected, self.folder)
        check_writable(self.folder)
        remove_unfinished(self.folder)
        # First the plan: what a tokenizer has learned is only ever found beside the plan it belongs to.
        self.plan.write(self.folder / PLAN_FILE)
        if learned := learned_state(self._contents.encoder.tokenizer):
            write_safetensors(self.folder / TOKENIZER_FILE, learned)
        total = expected.num_items + expected.num_finished
        with self._progress.running(total, finished=expected.num_finished), truncations_summed_up():
            shards = {source.split: self._split(source) for source in self._contents.sources}
        damaged = {source.split: tuple(source.damaged_shards.values()) for source in self._contents.sources}
        manifest = attrs.evolve(self.plan, shards=shards, damaged_shards={k: v for k, v in damaged.items() if v})
        manifest.write(self.folder / MANIFEST_FILE)
        (self.folder / PLAN_FILE).unlink()
        remove_notes(self.folder)
        return manifest

    def _split(self, source: Source) -> tuple[Shard, ...]:
        shards = []
        for piece in source.pieces(self.plan.items_per_shard):
            finished = finished_shard(self.folder, piece.file)
            shards.append(self._shard(piece) if finished is None else finished)
        return tuple(shards)

    def _shard(self, piece: Piece) -> Shard:
        encoder, tensors = self._contents.encoder, self.plan.tensors
        content = encoder.empty_shard(tensors)
        skipped: list[SkippedItem] = []
        for batch in read_batches(piece.items, self._options.batch_size):
            encoder.add(content, batch, tensors)
            skipped += batch.skipped
            self._skipped.add(batch.skipped, num_seen=batch.num_seen)
            self._skipped.check()
            self._progress.encoded(batch.num_seen)
        shard = write_shard(self.folder, piece.file, content.tensors(), num_items=content.num_items, skipped=skipped)
        self._progress.wrote(shard.num_bytes)
        return shard

    def _plan(self, measured: Measurement) -> Manifest:
        contents, options = self._contents, self._options
        text = None
        if contents.text_encoder is not None and measured.text_width is not None:
            text = CachedText(encoder=contents.text_encoder, width=measured.text_width, stored_as=options.text_dtype)
        in_a_shard = int(options.shard_megabytes * 1e6 / measured.bytes_per_item)
        # Whole batches, so that a shard's content does not depend on where the one before it ended.
        whole_batches = max(in_a_shard // options.batch_size, 1) * options.batch_size
        return Manifest(
            packages={name: metadata.version(name) for name in ("fluid-core", "torch")},
            image_size=contents.sources[0].image_size,
            crop=contents.crop,
            source=contents.source,
            num_source_items={source.split: source.num_items for source in contents.sources},
            both_flips=options.both_flips,
            tokenizer=contents.tokenizer,
            tensors=measured.tensors,
            text=text,
            items_per_shard=whole_batches,
            shards={},
        )

    def _continued(self, before: Manifest) -> Manifest:
        """What an earlier build planned. Raises `CheckpointMismatchError` if that was another cache."""
        if different := differences(before, self.plan):
            listed = "\n  ".join(different)
            raise CheckpointMismatchError(
                f"The cache in {self.folder} is another one. From what it was made with to what is asked for now:\n  "
                f"{listed}\nChoose another folder, or delete this one and build it anew."
            )
        return before

    def _num_finished(self) -> int:
        """Images in finished shards, those that were skipped there among them."""
        names = [path.name.removesuffix(".done.json") for path in self.folder.glob("*.safetensors.done.json")]
        shards = [finished_shard(self.folder, name) for name in names]
        return sum(shard.num_items + len(shard.skipped) for shard in shards if shard is not None)


def _check_folder(folder: Path) -> None:
    """Refuse a folder with anything in it that is no cache."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"Expected a folder for the cache, found the file {folder}. Choose another name.")
    if (folder / MANIFEST_FILE).is_file() or (folder / PLAN_FILE).is_file():
        return
    others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if others:
        raise CheckpointError(
            f"{folder} holds {sorted(others)[0]!r}, and no cache. Choose a new folder, or one that holds a cache."
        )
