"""Options of the built-in data sets. No torch here: the catalog and configuration files read these classes."""

from collections.abc import Callable
from typing import Any, Literal

import attrs

LARGEST_NUM_OBJECTS = 4
"""The most objects a scene of shapes may hold: more would not stay recognisable at 32 x 32 pixels."""

MOST_PIXELS = 178_000_000
"""Pillow opens no larger pictures: those could be files made to exhaust the memory."""


def _integer(smallest: int, largest: int | None = None) -> Callable[[Any, "attrs.Attribute[int]", int], None]:
    """A validator for whole numbers in a range, whose message names the option."""

    def validate(_instance: Any, attribute: "attrs.Attribute[int]", value: int) -> None:
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        if is_integer and value >= smallest and (largest is None or value <= largest):
            return
        wanted = f"at least {smallest}" if largest is None else f"from {smallest} to {largest}"
        raise ValueError(f"{attribute.name} must be a whole number {wanted}, found {value!r}")

    return validate


def _share(*, below_one: bool = False) -> Callable[[Any, "attrs.Attribute[float]", float], None]:
    """A validator for a part of a whole, from 0 to 1 (with `below_one`, something must be left over)."""

    def validate(_instance: Any, attribute: "attrs.Attribute[float]", value: float) -> None:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and 0 <= value <= 1 and not (below_one and value == 1):
            return
        wanted = "at least 0 and below 1" if below_one else "from 0 to 1"
        raise ValueError(f"{attribute.name} must be a number {wanted}, found {value!r}")

    return validate


def _text(_instance: Any, attribute: "attrs.Attribute[str]", value: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{attribute.name} must be a text that is not empty, found {value!r}")


@attrs.frozen(kw_only=True)
class ShapesOptions:
    """Scenes of coloured shapes drawn on the fly, with captions. Raises `ValueError` for values out of range."""

    num_examples: int = attrs.field(default=100_000, validator=_integer(1))
    """Different scenes in the training split. Drawing takes no disk space, so many cost nothing."""

    num_validation_examples: int = attrs.field(default=2_000, validator=_integer(1))
    """Different scenes in the validation split."""

    max_objects: int = attrs.field(default=LARGEST_NUM_OBJECTS, validator=_integer(2, LARGEST_NUM_OBJECTS))
    """The most objects in one scene, and so the largest number in a counting caption."""

    layout: Literal["free", "quadrants"] = attrs.field(
        default="free", validator=attrs.validators.in_(("free", "quadrants"))
    )
    """Where objects stand: `free` is anywhere, in several sizes; `quadrants` is one to a quarter of the picture, all
    of one size, which models of few parameters learn in minutes."""

    combined_share: float = attrs.field(default=0.25, validator=_share())
    """Share of scenes whose caption joins several facts, such as "a red circle above a blue square". The six tasks
    of GenEval share the rest evenly."""


def _captions(_instance: Any, attribute: "attrs.Attribute[dict[str, float]]", value: dict[str, float]) -> None:
    """Probabilities of columns: a table of shares that add up to 1, or an empty one."""
    if not isinstance(value, dict) or not all(isinstance(name, str) and name.strip() for name in value):
        raise ValueError(f"{attribute.name} must be a table from columns to probabilities, found {value!r}")
    for name, share in value.items():
        if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 < share <= 1:
            raise ValueError(f"{attribute.name}: the probability of '{name}' must be above 0 and at most 1: {share!r}")
    if value and abs(sum(value.values()) - 1) > _ROUNDED_SHARES:
        raise ValueError(f"{attribute.name} must be shares that add up to 1, found {value!r}")


def _one_or_more_texts(_instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, tuple | list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
        raise ValueError(f"{attribute.name} must be a text or a list of texts, none of them empty, found {value!r}")


def _optional(validator: Callable[..., None]) -> Callable[..., None]:
    return attrs.validators.optional(validator)


_ROUNDED_SHARES = 0.011
"""Probabilities such as 0.33, 0.33 and 0.33 are fine."""


@attrs.frozen(kw_only=True)
class PictureOptions:
    """What all data sets of picture files have in common: captions, crop, mirrored copies, sizes, validation.

    The resolution is no option: pictures get the size that the tokenizer takes. Everything drawn follows from the
    seed of the run, the epoch and the item. Raises `ValueError` for values out of range.
    """

    caption_column: str = attrs.field(default="text", validator=_text)
    """Where the caption stands. If that holds a list of texts, each epoch draws one of them."""

    captions: dict[str, float] = attrs.field(factory=dict, validator=_captions)
    """Several columns with the probability of each, such as `{ short = 0.3, long = 0.7 }`, in place of
    `caption_column`. Where an item lacks some of them, the others keep their ratio."""

    crop: Literal["center", "random", "none"] = attrs.field(
        default="center", validator=attrs.validators.in_(("center", "random", "none"))
    )
    """How a picture of another aspect becomes the wanted one: its middle, a place that each epoch draws anew, or
    stretched as a whole. The largest part that fits is always taken. Validation takes the middle instead of drawing."""

    horizontal_flip: bool = False
    """Mirrored training pictures: as items of their own where items have an index, by the toss of a coin in streams.
    Off by default, since captions may speak of left and right."""

    min_image_size: int = attrs.field(default=1, validator=_integer(1))
    """Pictures whose shorter side has fewer pixels are skipped."""

    max_pixels: int = attrs.field(default=89_000_000, validator=_integer(1, MOST_PIXELS))
    """Pictures with more pixels (width times height) are skipped before they are decoded: they cost seconds and
    gigabytes, and may have been made to."""

    validation_fraction: float = attrs.field(default=0.05, validator=_share(below_one=True))
    """Share of the pictures kept out of training, chosen by a hash of the item's name."""

    @property
    def caption_shares(self) -> dict[str, float]:
        """The probability of each caption column; they add up to 1."""
        given = self.captions or {self.caption_column: 1.0}
        total = sum(given.values())
        return {name: share / total for name, share in given.items()}

    @property
    def varies(self) -> bool:
        """Whether crops or caption columns are drawn anew in every epoch. Lists of captions are not known here."""
        return self.crop == "random" or len(self.captions) > 1


@attrs.frozen(kw_only=True)
class ImageFolderOptions(PictureOptions):
    """A folder of pictures with a `metadata.jsonl`. Raises `ValueError` for values out of range."""

    path: str = attrs.field(validator=_text)
    """The folder that holds `metadata.jsonl`; `~` stands for the home folder."""


@attrs.frozen(kw_only=True)
class WebDatasetOptions(PictureOptions):
    """Tar files of pictures and captions, as img2dataset writes them. Raises `ValueError` for values out of range."""

    path: str | tuple[str, ...] = attrs.field(validator=_one_or_more_texts)
    """A folder of `.tar` files, or shards: a file, a pattern such as `data/*.tar` or `data/{00000..00099}.tar`, a URL,
    `pipe:` with a shell command that writes a tar file, or a list of these."""

    validation_path: str | tuple[str, ...] | None = attrs.field(default=None, validator=_optional(_one_or_more_texts))
    """Shards to validate on, given like `path`; `validation_fraction` is then not used."""

    image_column: str = attrs.field(default="jpg;jpeg;png;webp", validator=_text)
    """Endings of the picture files in a shard, the first that is there counts."""

    caption_column: str = attrs.field(default="txt;text;caption", validator=_text)
    """Where the caption stands: endings of files in a shard, or keys of the sample's `json`; the first that is there
    counts. The same holds for the names in `captions`."""

    shuffle_buffer: int = attrs.field(default=1000, validator=_integer(1))
    """Samples kept in memory, still compressed, to mix them."""


@attrs.frozen(kw_only=True)
class HuggingFaceDatasetOptions(PictureOptions):
    """A data set through Hugging Face's `datasets`. Raises `ValueError` for values out of range."""

    path: str = attrs.field(validator=_text)
    """A folder or a name on the Hub, as `load_dataset` takes it; a folder written by `save_to_disk`; or the name of a
    format (`parquet`, `arrow`, `json`, `imagefolder`) with `data_files`."""

    name: str | None = attrs.field(default=None, validator=_optional(_text))
    """The configuration of the data set, where it has several."""

    data_files: str | tuple[str, ...] | None = attrs.field(default=None, validator=_optional(_one_or_more_texts))
    """Files or patterns, relative to the data set, or local ones where `path` names a format."""

    split: str = attrs.field(default="train", validator=_text)
    """The split to train on, in the notation of `datasets`, such as `train[:90%]` where it is not streamed."""

    validation_split: str | None = attrs.field(default=None, validator=_optional(_text))
    """The split to validate on; `validation_fraction` is then not used."""

    revision: str | None = attrs.field(default=None, validator=_optional(_text))
    """Branch, tag or commit on the Hub."""

    streaming: bool = False
    """Read from the source as it comes, without a copy on disk. Items then have no index: a resumed run sees some
    pictures again."""

    image_column: str = attrs.field(default="image", validator=_text)
    """Name of the column with the pictures: `Image` features, bytes or file names."""

    cache_dir: str | None = attrs.field(default=None, validator=_optional(_text))
    """Where `datasets` keeps its copy; by default where it always does."""

    shuffle_buffer: int = attrs.field(default=1000, validator=_integer(1))
    """Samples kept in memory, still compressed, to mix them; for streams."""


def _positive(_instance: Any, attribute: "attrs.Attribute[float]", value: float) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < float("inf"):
        raise ValueError(f"{attribute.name} must be a number above 0, found {value!r}")


def _some_parts(_instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not value:
        raise ValueError(f"{attribute.name} must name at least one data set, found none")


@attrs.frozen(kw_only=True)
class MixturePart:
    """One data set of a mixture. Raises `ValueError` for values out of range."""

    name: str = attrs.field(validator=_text)
    """Name of an installed data set with random access."""

    options: dict[str, Any] = attrs.field(factory=dict)
    """Its options."""

    weight: float = attrs.field(default=1.0, validator=_positive)
    """Its share of the mixture, relative to those of the other parts."""


@attrs.frozen(kw_only=True)
class MixtureOptions:
    """Several data sets as one. Raises `ValueError` for values out of range."""

    parts: tuple[MixturePart, ...] = attrs.field(validator=_some_parts)
    """The data sets, each with its share."""


@attrs.frozen(kw_only=True)
class TokenCacheOptions:
    """A cache of tokens that `fluid cache build` wrote. Raises `ValueError` for values out of range."""

    path: str = attrs.field(validator=_text)
    """The folder of the cache; `~` stands for the home folder."""

    verify: Literal["sizes", "checksums"] = attrs.field(
        default="sizes", validator=attrs.validators.in_(("sizes", "checksums"))
    )
    """What is compared with the manifest before anything is read: the sizes of all shards, or every byte of them."""

    use_text: bool = True
    """Whether to use the text states of the cache. Otherwise the model encodes the captions while it trains."""

    dtype: Literal["float32", "bfloat16", "float16"] | None = attrs.field(
        default=None, validator=_optional(attrs.validators.in_(("float32", "bfloat16", "float16")))
    )
    """Refuse a cache whose moments are stored in another type than this."""

    text_dtype: Literal["float32", "bfloat16"] | None = attrs.field(
        default=None, validator=_optional(attrs.validators.in_(("float32", "bfloat16")))
    )
    """Refuse a cache whose text states are stored in another type than this, or that has none."""

    max_open_shards: int = attrs.field(default=64, validator=_integer(1))
    """Shards mapped into memory at once. A mapping takes address space; what it reads can be dropped at any time."""
