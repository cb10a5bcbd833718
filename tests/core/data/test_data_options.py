"""Options of the built-in data sets: defaults, and messages that name the option, the range and the value."""

import subprocess
import sys

import pytest

from fluid_core.data.options import (
    HuggingFaceDatasetOptions,
    ImageFolderOptions,
    ShapesOptions,
    WebDatasetOptions,
)


def test_defaults_are_valid():
    """Shapes need no option at all, a folder needs its path."""
    assert ShapesOptions().num_examples == 100_000
    folder = ImageFolderOptions(path="pictures")
    assert (folder.caption_column, folder.crop, folder.horizontal_flip) == ("text", "center", False)
    with pytest.raises(TypeError, match="path"):
        ImageFolderOptions()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: ShapesOptions(num_examples=0), "num_examples must be a whole number at least 1, found 0"),
        (lambda: ShapesOptions(num_examples=True), "num_examples must be a whole number at least 1, found True"),
        (lambda: ShapesOptions(max_objects=5), "max_objects must be a whole number from 2 to 4, found 5"),
        (lambda: ShapesOptions(combined_share=1.5), "combined_share must be a number from 0 to 1, found 1.5"),
        (lambda: ShapesOptions(combined_share=float("nan")), "combined_share must be a number from 0 to 1, found nan"),
        (lambda: ImageFolderOptions(path=" "), "path must be a text that is not empty, found ' '"),
        (lambda: ImageFolderOptions(path="p", caption_column=""), "caption_column must be a text"),
        (lambda: ImageFolderOptions(path="p", captions={"a": 0.5, "b": 0.6}), "captions must be shares"),
        (lambda: ImageFolderOptions(path="p", captions={"a": 0.0, "b": 1.0}), "'a' must be above 0 and at most 1"),
        (lambda: ImageFolderOptions(path="p", crop="left"), "'crop' must be in"),
        (lambda: ImageFolderOptions(path="p", min_image_size=0), "min_image_size must be a whole number at least 1"),
        (lambda: ImageFolderOptions(path="p", max_pixels=10**9), "max_pixels must be a whole number from 1 to"),
        (lambda: WebDatasetOptions(path=()), "path must be a text or a list of texts"),
        (lambda: WebDatasetOptions(path="p", shuffle_buffer=0), "shuffle_buffer must be a whole number at least 1"),
        (lambda: HuggingFaceDatasetOptions(path="p", split=" "), "split must be a text"),
        (
            lambda: ImageFolderOptions(path="p", validation_fraction=1.0),
            "validation_fraction must be a number at least 0 and below 1, found 1.0",
        ),
    ],
)
def test_values_out_of_range_are_refused(make, problem):
    """The message can be shown to a person as it is."""
    with pytest.raises(ValueError, match="must be") as raised:
        make()
    assert problem in str(raised.value)


def test_options_load_neither_torch_nor_scipy_nor_pillow():
    """The catalog reads options without paying for what they configure; names of the package load on first use."""
    code = (
        "import sys, fluid_core.data as data, fluid_core.data.options;"
        "heavy = {'torch', 'scipy', 'PIL', 'numpy'} & set(sys.modules); assert not heavy, heavy;"
        "assert 'ShapesDataset' in dir(data); assert data.ShapesOptions().max_objects == 4;"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
