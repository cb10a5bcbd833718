"""Data that nothing can be learned from is said in words, once, after a look at the first images."""

import json

import torch
from PIL import Image

from fluid_core.configuration import ComponentChoice
from fluid_core.data.batches import ImageBatch
from fluid_core.exchange import EncodedBatch
from fluid_core.training.run.data_warnings import DataWarnings


def findings(images, captions, *, batches=10):
    """What is said over some batches of the same content."""
    watch = DataWarnings()
    said = []
    for _ in range(batches):
        said += watch.look(ImageBatch(images=images, captions=tuple(captions)))
    return said


def pictures(count):
    """Pictures of noise."""
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_good_data_is_not_talked_about():
    """Two captions and two pictures are enough to be different."""
    assert findings(pictures(2).repeat(4, 1, 1, 1), ["a", "b"] * 4) == []


def test_captions_that_are_all_alike():
    """Empty ones, also of blanks alone, and one for all are each told, once."""
    (said,) = findings(pictures(8), ["", " "] * 4)
    assert said.startswith("All captions of the first 64 images are empty: the model can not learn to follow a text.")
    (said,) = findings(pictures(8), ["a photo"] * 8)
    assert "are the same, 'a photo'" in said
    assert said.endswith("Check the section [data].")


def test_pictures_with_nothing_in_them():
    """Flat colours, though of different ones, and one picture over and over."""
    flat = torch.linspace(-1, 1, 8)[:, None, None, None].expand(8, 3, 8, 8)
    (said,) = findings(flat, list("abcdefgh"))
    assert "All pictures of the first 64 images are of one flat colour" in said
    (said,) = findings(pictures(1).repeat(8, 1, 1, 1), list("abcdefgh"))
    assert "are the same picture" in said
    assert findings(torch.cat([flat[:7], pictures(1)]), list("abcdefgh")) == []


def test_encoded_pictures_that_are_all_alike():
    """Of tokens on disk, only that they are equal can be seen."""
    watch = DataWarnings()
    batch = EncodedBatch(precomputed={"ids": torch.ones(64, 9, dtype=torch.int64)}, captions=("a", "b") * 32)
    (said,) = watch.look(batch)
    assert "All encoded pictures of the first 64 images are the same picture" in said
    different = EncodedBatch(precomputed={"ids": torch.arange(64)[:, None]}, captions=("a", "b") * 32)
    assert DataWarnings().look(different) == []


def test_a_short_run_is_judged_at_its_end():
    """With fewer images than a long look takes; with a handful, nothing is said."""
    for count, expected in ((4, 0), (16, 1)):
        watch = DataWarnings()
        assert watch.look(ImageBatch(images=pictures(count), captions=("a photo",) * count)) == []
        assert len(watch.at_the_end()) == expected
        assert watch.at_the_end() == []


def test_a_run_says_it(run_config, make_trainer, tmp_path):
    """Through the trainer, with a folder of pictures of one colour each; once, and nothing of it for the shapes."""
    (tmp_path / "data").mkdir()
    lines = []
    for index in range(10):
        Image.new("RGB", (24, 24), (20 * index, 90, 30)).save(tmp_path / "data" / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": f"picture {index}"}))
    (tmp_path / "data" / "metadata.jsonl").write_text("\n".join(lines))
    options = {"path": str(tmp_path / "data"), "validation_fraction": 0.0}
    data = ComponentChoice(name="image-folder", options=options)
    said = {}
    for name, parts in (("flat", {"data": data}), ("shapes", {})):
        trainer = make_trainer(run_config(parts=parts, num_steps=5), tmp_path / name)
        trainer.train()
        said[name] = " ".join(trainer.progress.output.getvalue().split())
    assert said["flat"].count("All pictures of the first 20 images are of one flat colour") == 1
    assert "of the first" not in said["shapes"]
