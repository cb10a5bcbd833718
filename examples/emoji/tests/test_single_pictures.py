"""The data set `emoji`: what its pictures show, how they are divided, and what is refused."""

import json

import pytest
import torch
from fluid_emoji.backgrounds import BACKGROUNDS
from fluid_emoji.made_up_emoji import MADE_UP_NAMES
from fluid_emoji.options import EmojiOptions
from fluid_emoji.single_pictures import STYLE_WORDS, EmojiDataset

from fluid_core.errors import ConfigurationError, DataError, UnreadableImageError


@pytest.fixture
def emoji(made_up_folder):
    """A function that builds the data set over the made-up emoji."""

    def build(split="train", *, size=(64, 64), seed=0, **options):
        chosen = EmojiOptions(**{"folder": str(made_up_folder), "validation_fraction": 0.3} | options)
        return EmojiDataset(chosen, size, split, seed)

    return build


def test_drawing_is_where_the_example_says(emoji):
    """Outside the stated place there is only background; each side of the place is touched by the drawing."""
    data = emoji(size=(48, 64))
    for index in range(40):
        drawn, image = data.example(index), data[index].image
        background = torch.tensor(drawn.background)[:, None, None] / 127.5 - 1
        differs = ((image - background).abs() > 1e-3).any(dim=0)
        rows, columns = differs.nonzero(as_tuple=True)
        width, height = drawn.size
        assert (int(columns.min()), int(rows.min())) == (drawn.left, drawn.top)
        assert (int(columns.max()) + 1, int(rows.max()) + 1) == (drawn.left + width, drawn.top + height)


def test_every_drawing_comes_once_in_a_round(emoji):
    """As many items as there are drawings show each of them once; the next round varies them."""
    data = emoji()
    num_drawings = len(data.drawings)
    rounds = [[data.example(start + index) for index in range(num_drawings)] for start in (0, num_drawings)]
    for one_round in rounds:
        assert {(drawn.emoji, drawn.style) for drawn in one_round} == set(data.drawings)
    assert [drawn.left for drawn in rounds[0]] != [drawn.left for drawn in rounds[1]]


def test_captions_name_what_is_shown(emoji):
    """Every caption has the emoji's name; a style or background is only named where it is the true one."""
    data = emoji()
    num_with_style = num_with_background = 0
    for index in range(300):
        drawn = data.example(index)
        assert drawn.emoji.name in drawn.caption
        for style, words in STYLE_WORDS.items():
            if any(word in drawn.caption for word in words):
                assert style == drawn.style
                num_with_style += 1
        for background in BACKGROUNDS:
            if f" {background} background" in drawn.caption:
                assert background == drawn.background_name
                num_with_background += 1
    assert 150 < num_with_style < 300
    assert 30 < num_with_background < 150


@pytest.mark.parametrize("split_by", ["emoji", "drawing"])
def test_splits_divide_all_drawings(emoji, split_by):
    """Each drawing is on one side; split by emoji, all its styles are on the same."""
    train, validation = (set(emoji(split, split_by=split_by).drawings) for split in ("train", "validation"))
    assert not train & validation
    assert len(train | validation) == 2 * len(MADE_UP_NAMES)
    shared = {one.code_point for one, _ in train} & {one.code_point for one, _ in validation}
    assert bool(shared) == (split_by == "drawing")


def test_the_seed_changes_pictures_but_not_the_splits(emoji):
    """Another seed shows the same drawings in another order."""
    first, second = emoji(seed=1), emoji(seed=2)
    assert first.drawings == second.drawings
    assert [first.example(index) for index in range(8)] != [second.example(index) for index in range(8)]


def test_styles_and_categories_can_be_chosen(emoji):
    """Only the chosen styles are shown; a category nobody drew is an error that names it."""
    assert {style for _, style in emoji(styles=("twemoji",)).drawings} == {"twemoji"}
    with pytest.raises(DataError, match="Food & Drink"):
        emoji(categories=("Food & Drink",))


def test_a_missing_folder_says_how_to_fetch(tmp_path):
    """No folder, a damaged index and another format are errors that give the command."""
    for content in (None, "{", json.dumps({"format_version": 99})):
        if content is not None:
            (tmp_path / "index.json").write_text(content)
        with pytest.raises(DataError, match=r"python -m fluid_emoji\.fetch --cache"):
            EmojiDataset(EmojiOptions(folder=str(tmp_path)), (64, 64), "train", 0)


def test_a_damaged_drawing_is_an_unreadable_image(emoji, made_up_folder, tmp_path):
    """A file cut short raises what loaders count and skip."""
    for path in made_up_folder.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(made_up_folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes()[:60] if path.suffix == ".png" else path.read_bytes())
    with pytest.raises(UnreadableImageError, match=r"Could not read the drawing .*\.png"):
        emoji(folder=str(tmp_path))[0]


def test_options_are_checked():
    """Unknown styles and values out of range name the option and what was found."""
    for option, value in (
        ("styles", ("crayon",)),
        ("styles", ()),
        ("num_examples", 0),
        ("validation_fraction", 1.0),
        ("categories", ("Flags",)),
    ):
        with pytest.raises(ValueError, match=option):
            EmojiOptions(**{option: value})


def test_small_pictures_and_unknown_splits_are_refused(emoji):
    """16 pixels, a split called test and a validation split of nothing are configuration errors."""
    with pytest.raises(ConfigurationError, match="32 pixels"):
        emoji(size=(16, 16))
    with pytest.raises(ConfigurationError, match="'test'"):
        emoji("test")
    with pytest.raises(ConfigurationError, match="validation_fraction is 0"):
        emoji("validation", validation_fraction=0.0)
