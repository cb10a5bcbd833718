"""Models as folders: the same pictures after loading, and refusals of what can not be loaded or replaced."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from fluid_core import FluidModel, FluidPipeline
from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.components import OrderComponent
from fluid_core.configuration import ComponentChoice
from fluid_core.errors import (
    CheckpointError,
    CheckpointMismatchError,
    ConfigurationError,
    OutputError,
    UnknownComponentError,
)
from fluid_core.text.t5_encoder import example_t5_options

CALL = {"seed": 11, "guidance_scale": 2.0, "output_type": "pt"}


def contents(folder):
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def saved(small_model, tmp_path):
    """A folder with a saved model."""
    FluidPipeline(small_model(), weights="ema").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(("tokens", "order"), [("continuous", "random"), ("discrete", "raster")])
def test_a_loaded_model_draws_the_same_pictures(small_model, tmp_path, tokens, order):
    """Bit-equal for the same seed, with fitted statistics or codebook, and nothing but JSON and safetensors on disk."""
    pipeline = FluidPipeline(small_model(tokens, order), weights="ema")
    pipeline.save_pretrained(tmp_path / "model")
    state = torch.get_rng_state()
    loaded = FluidPipeline.from_pretrained(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.weights == "ema"
    assert loaded.model.tokenizer.fitted
    assert loaded.model.config == pipeline.model.config
    assert torch.equal(loaded(["a", "b"], **CALL).images, pipeline(["a", "b"], **CALL).images)
    found = {path.name: path.read_bytes()[:64] for path in (tmp_path / "model").iterdir()}
    assert found.keys() == {"model_index.json", "model.safetensors"}
    assert not any(b"PK\x03\x04" in start or b"\x80\x02" in start[:2] for start in found.values())
    if tokens == "discrete":
        assert loaded.model.head.output_weight is loaded.model.token_embedding.content.weight


def test_a_frozen_text_encoder_is_named_and_not_copied(small_model, tmp_path):
    """The weights of T5 stay where they are: the saved folder is small and names them."""
    options = example_t5_options(tmp_path / "t5")
    choice = ComponentChoice(name="t5", options={"path": options.path, "max_length": 64})
    pipeline = FluidPipeline(small_model(text_encoder=choice))
    pipeline.save_pretrained(tmp_path / "model")
    loaded = FluidPipeline.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded("a", **CALL).images, pipeline("a", **CALL).images)
    assert str(options.path) in (tmp_path / "model" / "model_index.json").read_text()
    shutil.rmtree(tmp_path / "t5")
    with pytest.raises(CheckpointError, match="Expected a folder with a T5 model"):
        FluidPipeline.from_pretrained(tmp_path / "model")


def test_a_text_encoder_from_a_relative_folder_is_found_from_elsewhere(small_model, tmp_path, monkeypatch):
    """The index names its folder by the absolute path: whoever loads the model may stand anywhere."""
    example_t5_options(tmp_path / "models" / "t5")
    monkeypatch.chdir(tmp_path)
    choice = ComponentChoice(name="t5", options={"path": "models/t5", "max_length": 64})
    pipeline = FluidPipeline(small_model(text_encoder=choice))
    pipeline.save_pretrained("model")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = FluidPipeline.from_pretrained(tmp_path / "model")
    assert loaded.model.config.text_encoder.options["path"] == str((tmp_path / "models" / "t5").resolve())
    assert torch.equal(loaded("a", **CALL).images, pipeline("a", **CALL).images)


def test_the_index_says_what_the_folder_holds(saved):
    """Which weights, which components with options, and the distributions that provide them."""
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "FluidPipeline"
    assert index["weights"] == "ema"
    assert index["config"]["head"]["name"] == "diffusion"
    assert index["provided_by"]["head"].startswith("fluid-heads ")
    assert index["config"]["training"] is None


def test_saving_again_replaces_the_model(saved, small_model):
    """A folder that holds a saved model and nothing else takes the new one."""
    other = FluidPipeline(small_model(seed=5))
    other.save_pretrained(saved)
    loaded = FluidPipeline.from_pretrained(str(saved))
    assert loaded.weights == "raw"
    assert torch.equal(loaded("a", **CALL).images, other("a", **CALL).images)


def test_saving_deletes_no_files_of_others(saved, small_model):
    """A folder with anything else in it, or a file of that name, is refused and stays as it was."""
    pipeline = FluidPipeline(small_model(seed=5))
    (saved / "notes.txt").write_text("mine")
    before = contents(saved.parent)
    with pytest.raises(CheckpointError, match=r"holds 'notes\.txt', which saving would delete"):
        pipeline.save_pretrained(saved)
    with pytest.raises(CheckpointError, match="holds 'model'"):
        pipeline.save_pretrained(saved.parent)
    with pytest.raises(CheckpointError, match="found the file"):
        pipeline.save_pretrained(saved / "notes.txt")
    with pytest.raises(OutputError, match="can not be written"):
        pipeline.save_pretrained(saved / "notes.txt" / "model")
    assert contents(saved.parent) == before


def test_a_model_made_of_objects_is_not_saved(small_model, shuffled_causal_order, tmp_path):
    """A folder can only name components; the message says what to do instead, and no folder appears."""
    with pytest.raises(CheckpointError, match=r"put together from objects.*FluidModel\.from_config"):
        FluidPipeline(small_model(order=shuffled_causal_order())).save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "Expected the folder of a saved model"),
        (lambda folder: (folder / "model_index.json").unlink(), r"Expected a file .*model_index\.json, found none"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"Expected a file .*model\.safetensors, found none"),
        (lambda folder: cut(folder / "model_index.json"), "not valid JSON"),
        (lambda folder: cut(folder / "model.safetensors"), "truncated or damaged"),
        (lambda folder: (folder / "model_index.json").write_text('{"model_type": "llama"}'), "not the index"),
        (lambda folder: (folder / "model_index.json").write_text("[]"), "not the index"),
    ],
)
def test_damaged_folders_are_refused_and_stay_as_they_are(saved, damage, message):
    """Missing, cut and foreign files each get a message with a path, and loading writes nothing."""
    damage(saved)
    before = contents(saved.parent)
    with pytest.raises(CheckpointError, match=message) as caught:
        FluidPipeline.from_pretrained(saved)
    assert str(saved) in str(caught.value)
    assert contents(saved.parent) == before


def cut(path: Path):
    """Leave half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(folder, edit):
    """Edit the index of a saved model."""
    index = json.loads((folder / "model_index.json").read_text())
    edit(index)
    (folder / "model_index.json").write_text(json.dumps(index))


def test_weights_of_another_model_are_refused(saved):
    """An index that was edited no longer fits its weights: the differing shapes are listed."""
    change(saved, lambda index: index["config"]["head"]["options"].update(depth=2))
    with pytest.raises(CheckpointMismatchError, match=r"head\.network\.blocks\.1.*: missing"):
        FluidPipeline.from_pretrained(saved)
    change(saved, lambda index: index["config"]["head"]["options"].update(depth=1, width=16))
    with pytest.raises(CheckpointMismatchError, match=r"shape \(32, 192\), expected \(16, 192\)"):
        FluidPipeline.from_pretrained(saved)


def test_settings_of_a_newer_version_are_refused(saved):
    """A format this version does not know is refused with the version that wrote it."""
    change(saved, lambda index: index.update(format_version=99, packages={"fluid-core": "9.1"}))
    with pytest.raises(ConfigurationError, match=r"format 99, written by fluid-core 9\.1"):
        FluidPipeline.from_pretrained(saved)


def test_a_missing_plugin_is_named_with_its_distribution(saved):
    """Where the head's plugin is not installed, the message says which component and what to install."""
    catalog = installed_components()
    without_heads = ComponentCatalog(
        installed=tuple(one for one in catalog.installed if one.distribution != "fluid-heads")
    )
    with pytest.raises(UnknownComponentError) as caught:
        FluidPipeline.from_pretrained(saved, catalog=without_heads)
    message = str(caught.value)
    assert str(saved) in message
    assert "There is no head named 'diffusion'" in message
    assert "It was saved with fluid-heads " in message
    assert "fluid-orders" not in message


def test_components_added_by_hand_can_be_saved(small_config, small_model, tmp_path):
    """A model built from a catalog of one's own is saved with it, and loaded by whoever has that catalog."""
    raster = installed_components().find("order", "raster").component
    mine = OrderComponent(name="my-raster", summary="Mine", options=raster.options, build=raster.build)
    catalog = installed_components().with_components(mine, distribution="my-notebook", version="3")
    model = FluidModel.from_config(small_config(order="my-raster"), catalog)
    FluidPipeline(model).save_pretrained(tmp_path / "model")
    loaded = FluidPipeline.from_pretrained(tmp_path / "model", catalog=catalog)
    assert loaded.model.config.order.name == "my-raster"
    with pytest.raises(UnknownComponentError, match=r"'my-raster'.*saved with my-notebook 3"):
        FluidPipeline.from_pretrained(tmp_path / "model")


def test_a_run_is_as_good_as_the_model_it_left(small_model, tmp_path):
    """A pipeline loads from either, in the type that is asked for; a run without a model says that it has not ended."""
    FluidPipeline(small_model()).save_pretrained(tmp_path / "run" / "model")
    (tmp_path / "run" / "config.json").write_text("{}")
    loaded = FluidPipeline.from_pretrained(tmp_path / "run", dtype=torch.bfloat16, device="cpu")
    assert (loaded.dtype, loaded.device.type) == (torch.bfloat16, "cpu")
    assert FluidPipeline.from_pretrained(tmp_path / "run" / "model").dtype == torch.float32
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="has not finished"):
        FluidPipeline.from_pretrained(tmp_path / "begun")
