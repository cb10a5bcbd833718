"""The data set `token-cache`: items of a cache on disk, with random access."""

from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

from fluid_core.data.encoded_images import EncodedImage
from fluid_core.data.options import TokenCacheOptions
from fluid_core.data.token_cache.manifest import read_manifest
from fluid_core.data.token_cache.parts import check_parts, load_learned_state
from fluid_core.data.token_cache.shard_files import OpenShards, check_checksums, check_sizes
from fluid_core.data.token_cache.stored_types import from_stored
from fluid_core.errors import CheckpointMismatchError, ConfigurationError, DataError
from fluid_core.exchange import DatasetContext
from fluid_core.protocols import TextEncoder, Tokenizer


class TokenCacheDataset:
    """What `fluid cache build` wrote, one split of it. An `EncodedImages`.

    With both flips in the cache, the mirror images follow all others. Raises `CheckpointError` for a cache that is
    missing, unfinished or damaged, `CheckpointMismatchError` for one of another image size or stored type than asked
    for, `ConfigurationError` for a split it does not have, and `DataError` for a split without items.
    """

    def __init__(self, options: TokenCacheOptions, image_size: tuple[int, int], split: str) -> None:
        self.folder = Path(options.path).expanduser()
        self.manifest = read_manifest(self.folder)
        self.split = split
        self._use_text = options.use_text
        self._check_made_for(options, image_size)
        if split not in self.manifest.shards:
            raise ConfigurationError(
                f"Expected the cache in {self.folder} to hold the split '{split}', found only "
                f"{', '.join(self.manifest.shards)}. Build it with both splits, or set "
                "training.num_validation_images = 0."
            )
        # Shards whose pictures could all not be read have no row to look for.
        self._shards = [shard for shard in self.manifest.shards[split] if shard.num_items]
        self._ends = list(accumulate(shard.num_items for shard in self._shards))
        self._length = self.manifest.num_items(split)
        if self._length == 0:
            raise DataError(f"The split '{split}' of the cache in {self.folder} is empty: not one image could be read.")
        check = check_checksums if options.verify == "checksums" else check_sizes
        check(self.folder, self._shards)
        self._open = OpenShards(self.folder, self.manifest, most_open=options.max_open_shards)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, in pixels, of the images that were encoded."""
        return self.manifest.image_size

    def __len__(self) -> int:
        """Number of items, mirror images included."""
        return self._length

    def __getitem__(self, index: int) -> EncodedImage:
        """Item `index`, in tensors of its own.

        Raises `IndexError` outside 0 ... len - 1, and `CheckpointError` for a damaged shard.
        """
        if not 0 <= index < self._length:
            raise IndexError(f"The {self.split} split has the items 0 to {self._length - 1}, asked for {index}.")
        mirrored, position = divmod(index, self._ends[-1])
        number = bisect_right(self._ends, position)
        row = position - (self._ends[number - 1] if number else 0)
        view = self._open.view(self._shards[number])
        return EncodedImage(
            precomputed={
                tensor.name: from_stored(view.stored(row, tensor, mirrored=bool(mirrored)), tensor)
                for tensor in self.manifest.tensors
            },
            caption=view.caption(row),
            text=view.text(row) if self._use_text else None,
        )

    def connect(self, tokenizer: Tokenizer, text_encoder: TextEncoder) -> None:
        """Check that this model's parts made the cache, after giving a new tokenizer what that of the cache learned.

        Raises `CheckpointMismatchError`, with both sides named, for other parts.
        """
        other_shapes: CheckpointMismatchError | None = None
        try:
            load_learned_state(tokenizer, self.folder)
        except CheckpointMismatchError as error:
            # Most likely it is another tokenizer, which the comparison below says in clearer words.
            other_shapes = error
        check_parts(
            self.manifest,
            self.folder,
            tokenizer,
            text_encoder if self._use_text else None,
            remedy=(
                "Name the parts it was made with, or build a cache for these with `fluid cache build`. Where the text "
                "encoder alone differs, the data option use_text = false encodes captions while training."
            ),
        )
        if other_shapes is not None:
            raise other_shapes

    def _check_made_for(self, options: TokenCacheOptions, image_size: tuple[int, int]) -> None:
        manifest = self.manifest
        problems = []
        if tuple(image_size) != manifest.image_size:
            cached, here = manifest.image_size, tuple(image_size)
            problems.append(
                f"image size: {cached[0]} x {cached[1]} pixels in the cache, {here[0]} x {here[1]} in the model"
            )
        for tensor in manifest.tensors:
            wanted = options.dtype
            if wanted is not None and tensor.dtype.startswith(("float", "bfloat")) and tensor.stored_as != wanted:
                problems.append(f"type of '{tensor.name}': {tensor.stored_as} in the cache, {wanted} in the options")
        stored = manifest.text.stored_as if manifest.text else None
        if options.text_dtype is not None and self._use_text and stored != options.text_dtype:
            found = stored or "no text states"
            problems.append(f"type of text states: {found} in the cache, {options.text_dtype} in the options")
        if problems:
            listed = "\n  ".join(problems)
            raise CheckpointMismatchError(
                f"The cache in {self.folder} is not the one asked for:\n  {listed}\nBuild it anew with `fluid cache "
                "build`, or correct the configuration."
            )


def build_token_cache(options: TokenCacheOptions, context: DatasetContext) -> TokenCacheDataset:
    """Build the data set for a run. Raises as `TokenCacheDataset` does."""
    return TokenCacheDataset(options, context.image_size, context.split)
