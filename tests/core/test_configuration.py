"""Configuration files: what is accepted, what is refused and in which words, and that JSON gives back the same."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid_core.backbone.sizes import SIZES
from fluid_core.catalog import ComponentCatalog
from fluid_core.components import HeadComponent, OrderComponent, TextEncoderComponent, TokenizerComponent
from fluid_core.configuration import (
    FORMAT_VERSION,
    BackboneConfig,
    ComponentChoice,
    FluidConfig,
    TrainingConfig,
    apply_overrides,
    config_from_json,
    config_to_json,
    load_config,
    read_saved_config,
    structure,
)
from fluid_core.errors import ConfigurationError, UnknownComponentError, listing

COMPLETE = """
sample_prompts = ["a red circle", "two blue squares"]

[tokenizer]
name = "pixel-patches"
[tokenizer.options]
patch_size = 4

[text_encoder]
name = "bytes"

[order]
name = "random"

[head]
name = "diffusion"
[head.options]
depth = 3

[backbone]
width = 64
depth = 2
num_heads = 4
dropout = 0.1

[data]
name = "shapes"

[training]
num_steps = 100
batch_size = 16
learning_rate = 1
schedule = "cosine"
gradient_clip_norm = "none"
"""


def written(tmp_path: Path, text: str) -> Path:
    """A configuration file with this text."""
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def config(**changes: Any) -> FluidConfig:
    """A small configuration of a model."""
    parts = {"tokenizer": "pixel-patches", "text_encoder": "bytes", "order": "random", "head": "diffusion"}
    values = {key: ComponentChoice(name=name) for key, name in parts.items()}
    return FluidConfig(**(values | {"backbone": BackboneConfig(size="tiny")} | changes))


def test_complete_file(tmp_path):
    """A file with every section becomes the classes, with defaults where it says nothing."""
    loaded = load_config(written(tmp_path, COMPLETE))
    assert loaded == FluidConfig(
        tokenizer=ComponentChoice(name="pixel-patches", options={"patch_size": 4}),
        text_encoder=ComponentChoice(name="bytes"),
        order=ComponentChoice(name="random"),
        head=ComponentChoice(name="diffusion", options={"depth": 3}),
        backbone=BackboneConfig(width=64, depth=2, num_heads=4, dropout=0.1),
        data=ComponentChoice(name="shapes"),
        training=TrainingConfig(
            num_steps=100, batch_size=16, learning_rate=1.0, schedule="cosine", gradient_clip_norm=None
        ),
        sample_prompts=("a red circle", "two blue squares"),
    )
    assert type(loaded.training.learning_rate) is float
    assert (loaded.training.weight_decay, loaded.training.beta1, loaded.training.beta2) == (0.02, 0.9, 0.95)


def test_all_problems_of_a_file_are_listed_with_their_places(tmp_path):
    """Unknown keys, wrong types, missing keys and values out of range are told at once."""
    text = COMPLETE.replace("num_steps = 100", 'num_steps = "100"').replace("batch_size = 16", "batch_sise = 16")
    text = text.replace('name = "bytes"', "name = 3").replace("depth = 2", "depth = 2.5")
    text = text.replace('"two blue squares"', "2") + '\n[trainin]\nname = "x"\n'
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as raised:
        load_config(path)
    assert str(raised.value).splitlines() == [
        f"Invalid configuration {path}: 7 problems.",
        "  - expected a text, found 3 @ $.text_encoder.name",
        "  - expected an integer, found 2.5 @ $.backbone.depth",
        "  - expected an integer, found the text '100' @ $.training.num_steps",
        "  - this key is missing and has no default @ $.training.batch_size",
        "  - unknown key 'batch_sise'. Did you mean 'batch_size'? Known keys: "
        f"{listing(field.name for field in attrs.fields(TrainingConfig))} @ $.training",
        "  - expected a text, found 2 @ $.sample_prompts[1]",
        "  - unknown key 'trainin'. Did you mean 'training'? Known keys: 'backbone', 'data', 'head', 'order', "
        "'sample_prompts', 'text_encoder', 'tokenizer', 'training', 'unconditional' @ $",
    ]


BACKBONES = [
    (
        {"size": "tiny", "width": 64, "depth": 2},
        "expected either 'size' or 'width', 'depth' and 'num_heads', found 'size' and 'width', 'depth'",
    ),
    ({"width": 64}, "expected 'size', or all of 'width', 'depth' and 'num_heads', found 'width'"),
    ({}, "expected 'size', or all of 'width', 'depth' and 'num_heads', found none of them"),
]


@pytest.mark.parametrize(("values", "message"), BACKBONES)
def test_backbone_is_a_size_or_a_shape(values, message):
    """A size and a shape exclude each other, and half a shape is none."""
    with pytest.raises(ConfigurationError) as raised:
        BackboneConfig(**values)
    assert str(raised.value) == message


def test_unknown_size_and_uneven_heads_are_refused_while_reading():
    """The shape is checked when the configuration is read, long before anything is built."""
    with pytest.raises(ConfigurationError, match=r"Unknown backbone size 'tinny'\. Did you mean 'tiny'\?"):
        structure({"size": "tinny"}, BackboneConfig)
    with pytest.raises(ConfigurationError, match="found width 10 and 4 heads"):
        structure({"width": 10, "depth": 1, "num_heads": 4}, BackboneConfig)


def test_backbone_shape():
    """A size gives its own shape, single values refine it, and an explicit shape stands for itself."""
    assert BackboneConfig(size="tiny").shape() == SIZES["tiny"]
    assert BackboneConfig(size="tiny", dropout=0.5).shape() == attrs.evolve(SIZES["tiny"], dropout=0.5)
    explicit = BackboneConfig(width=8, depth=3, num_heads=2, aligner_depth=0).shape()
    assert (explicit.width, explicit.depth, explicit.num_heads, explicit.aligner_depth) == (8, 3, 2, 0)
    assert (explicit.mlp_ratio, explicit.dropout) == (4.0, 0.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_steps": 0}, "'num_steps' must be > 0: 0 @ $"),
        ({"text_drop_probability": 1.1}, "'text_drop_probability' must be <= 1.0: 1.1 @ $"),
        ({"ema_decay": 1}, "'ema_decay' must be < 1.0: 1.0 @ $"),
        ({"gradient_clip_norm": 0}, "'gradient_clip_norm' must be > 0.0: 0.0 @ $"),
    ],
)
def test_training_values_out_of_range(values, message):
    """The text of the validators reaches the reader."""
    with pytest.raises(ConfigurationError) as raised:
        structure({"num_steps": 1, "batch_size": 1} | values, TrainingConfig)
    assert str(raised.value).splitlines()[1:] == [f"  - {message}"]


def test_empty_prompt_is_refused():
    """An empty sample prompt is found when the configuration is made."""
    with pytest.raises(ConfigurationError, match="the prompt at index 1 of 'sample_prompts' is empty"):
        config(sample_prompts=("a", " "))


def test_model_part():
    """What is saved beside the weights leaves the data and the course of training out."""
    whole = config(
        data=ComponentChoice(name="shapes"),
        training=TrainingConfig(num_steps=1, batch_size=1),
        sample_prompts=("a circle",),
    )
    assert whole.model_part() == config()
    assert [field for field, _, _ in whole.choices()] == ["tokenizer", "text_encoder", "order", "head", "data"]
    assert [kind for _, kind, _ in config().choices()] == ["tokenizer", "text-encoder", "order", "head"]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(
    options=st.dictionaries(st.text(), PLAIN, max_size=4),
    prompts=st.lists(st.text().filter(str.strip), max_size=3),
    clip=st.none() | st.floats(min_value=1e-6, max_value=1e6),
)
def test_json_gives_back_the_same(options, prompts, clip):
    """Whatever the options, a saved configuration reads back equal."""
    original = config(
        head=ComponentChoice(name="mine", options=options),
        training=TrainingConfig(num_steps=1, batch_size=2, gradient_clip_norm=clip),
        sample_prompts=tuple(prompts),
    )
    assert config_from_json(config_to_json(original)) == original


@attrs.frozen(kw_only=True)
class NoOptions:
    """Options of the components below."""


def test_saved_configuration_names_its_origin():
    """Beside the configuration stand the format, package versions and who provides each component."""
    common = {"summary": "X", "options": NoOptions, "build": dict}
    catalog = ComponentCatalog().with_components(
        TokenizerComponent(name="pixel-patches", produces="continuous", **common),
        TextEncoderComponent(name="bytes", **common),
        OrderComponent(name="random", **common),
        distribution="parts",
        version="3.1",
    )
    with pytest.raises(UnknownComponentError, match="no head named 'diffusion'"):
        config_to_json(config(), catalog=catalog)
    head = HeadComponent(name="diffusion", predicts="continuous", **common)
    text = config_to_json(config(), catalog=catalog.with_components(head, distribution="heads", version="4"))
    saved = read_saved_config(text)
    assert saved.format_version == FORMAT_VERSION == json.loads(text)["format_version"]
    assert saved.packages == {name: importlib.metadata.version(name) for name in ("fluid-core", "torch")}
    assert saved.provided_by == {
        "tokenizer": "parts 3.1",
        "text_encoder": "parts 3.1",
        "order": "parts 3.1",
        "head": "heads 4",
    }
    assert saved.config == config()


def test_newer_format_is_refused():
    """A file of a newer version is not read by halves: the message says who wrote it and what to do."""
    newer = {"format_version": FORMAT_VERSION + 1, "packages": {"fluid-core": "9.0"}, "what": "ever"}
    with pytest.raises(ConfigurationError) as raised:
        config_from_json(json.dumps(newer), source="configuration model/config.json")
    assert str(raised.value) == (
        f"The configuration model/config.json has format {FORMAT_VERSION + 1}, written by fluid-core 9.0; this is "
        f"fluid-core {importlib.metadata.version('fluid-core')}, which reads formats up to {FORMAT_VERSION}. Upgrade "
        "with: pip install --upgrade fluid-core."
    )


def test_newer_format_without_a_writer_is_refused():
    """Nothing in a newer layout is relied on, not even that it names its writer."""
    with pytest.raises(ConfigurationError, match="written by a newer fluid-core; this is"):
        config_from_json(json.dumps({"format_version": 99, "packages": []}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "The saved configuration is not valid JSON: Expecting property name"),
        ("[1]", "to be a table with 'format_version', a whole number from 1, found a list. It was not written"),
        ("{}", "to be a table with 'format_version', a whole number from 1, found None."),
        ('{"format_version": true}', "found true."),
        ('{"format_version": 0}', "found 0."),
        ('{"format_version": 1}', "this key is missing and has no default @ $.config"),
    ],
)
def test_damaged_saved_configuration(text, message):
    """What is not a saved configuration is told as such."""
    with pytest.raises(ConfigurationError) as raised:
        config_from_json(text)
    assert message in str(raised.value)


def test_missing_file(tmp_path):
    """A file that is not there: a similar name beside it is suggested."""
    written(tmp_path, COMPLETE)
    with pytest.raises(ConfigurationError) as raised:
        load_config(tmp_path / "rum.toml")
    assert str(raised.value) == f"There is no configuration file {tmp_path / 'rum.toml'}. Did you mean 'run.toml'?"
    with pytest.raises(ConfigurationError, match=r"There is no configuration file .*elsewhere/run\.toml\.$"):
        load_config(tmp_path / "elsewhere" / "run.toml")


def test_folder_instead_of_a_file(tmp_path):
    """A folder is recognised."""
    with pytest.raises(ConfigurationError) as raised:
        load_config(tmp_path)
    assert str(raised.value) == f"Expected a configuration file, found the folder {tmp_path}."


def test_toml_error_names_the_line(tmp_path):
    """A mistake in the syntax is told with its line and column."""
    path = written(tmp_path, "[head]\nname = diffusion\n")
    with pytest.raises(ConfigurationError) as raised:
        load_config(path)
    assert str(raised.value) == (
        f"The configuration file {path} is not valid TOML: Invalid value (at line 2, column 8)."
    )


def test_file_that_is_not_text(tmp_path):
    """A file of bytes, such as a picture, is refused as not being text."""
    path = tmp_path / "run.toml"
    path.write_bytes(b"a = 1\n\xff\xfe")
    with pytest.raises(ConfigurationError) as raised:
        load_config(path)
    assert str(raised.value) == f"The configuration file {path} is not text in UTF-8 (byte 6 can not be read)."


def test_overrides_are_values_of_toml():
    """Each override sets one value, as TOML would read it; a bare word is a text."""
    data = {"training": {"num_steps": 5, "seed": 1}, "head": {"name": "diffusion", "options": {"depth": 6}}}
    changed = apply_overrides(
        data,
        [
            "training.num_steps=100",
            "training.learning_rate = 1e-4",
            "training.device=cuda:1",
            "head.name=softmax",
            "head.options={}",
            "data.name='my shapes'",
            "data.options.flip=true",
            'sample_prompts=["a = b", "c"]',
        ],
    )
    assert changed == {
        "training": {"num_steps": 100, "seed": 1, "learning_rate": 1e-4, "device": "cuda:1"},
        "head": {"name": "softmax", "options": {}},
        "data": {"name": "my shapes", "options": {"flip": True}},
        "sample_prompts": ["a = b", "c"],
    }
    assert data["training"]["num_steps"] == 5
    assert data["head"]["options"] == {"depth": 6}


def test_later_override_wins():
    """Overrides apply in their order."""
    assert apply_overrides({}, ["a.b=1", "a.b=2"]) == {"a": {"b": 2}}


def test_override_sets_one_key_only():
    """A line break in a value can not smuggle in a second key."""
    assert apply_overrides({}, ["a=1\nb = 2"]) == {"a": "1\nb = 2"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.num_steps", "Expected an override such as 'training.num_steps=100', found 'training.num_steps'."),
        ("training..x=1", "Expected an override such as 'training.num_steps=100', found 'training..x=1'."),
        ("=1", "Expected an override such as 'training.num_steps=100', found '=1'."),
        ("head.name.x=1", "Can not apply 'head.name.x=1': 'head.name' is the text 'diffusion', not a table."),
        ("a=[1, 2", "The value of 'a=[1, 2' is not valid TOML: Unclosed array (at end of document)."),
    ],
)
def test_override_that_can_not_be_read(override, message):
    """An override must name a key and a value, and not reach into something that is no table."""
    with pytest.raises(ConfigurationError) as raised:
        apply_overrides({"head": {"name": "diffusion"}}, [override])
    assert str(raised.value) == message


def test_overrides_are_checked_like_the_file(tmp_path):
    """A misspelt or wrong override meets the same check as the file."""
    path = written(tmp_path, COMPLETE)
    assert load_config(path, ["training.num_steps=7", "training.gradient_clip_norm=none"]).training.num_steps == 7
    with pytest.raises(ConfigurationError, match=r"expected an integer, found the text 'many' @ .*num_steps"):
        load_config(path, ["training.num_steps=many"])
    with pytest.raises(ConfigurationError, match=r"unknown key 'num_stepz'. Did you mean 'num_steps'"):
        load_config(path, ["training.num_stepz=7"])


def test_configuration_imports_no_torch():
    """Reading configurations, and importing the package's names for it, stays light."""
    code = "import sys, fluid_core; fluid_core.FluidConfig; fluid_core.load_config; print('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "False\n"
