"""Configuration files: what is accepted, what is refused and in which words, and that JSON gives back the same."""

import enum
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

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
    unstructure,
)
from fluid_core.errors import ConfigurationError, UnknownComponentError

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


class Colour(enum.StrEnum):
    """An enumeration of texts."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """An enumeration of integers."""

    LOW = 1
    HIGH = 2


@attrs.frozen(kw_only=True)
class Inner:
    """A class within another."""

    share: float = attrs.field(default=0.5, validator=[attrs.validators.ge(0.0), attrs.validators.le(1.0)])
    mode: str = attrs.field(default="fast", validator=attrs.validators.in_(("fast", "exact")))


@attrs.frozen(kw_only=True)
class Everything:
    """One field of every type that a configuration may hold."""

    integer: int = 1
    real: float = 1.0
    truth: bool = False
    text: str = ""
    path: Path = Path()
    pair: tuple[int, int] = (1, 2)
    many: tuple[float, ...] = ()
    words: list[str] = attrs.field(factory=list)
    table: dict[str, float] = attrs.field(factory=dict)
    choice: Literal["a", "b", 1] = "a"
    colour: Colour = Colour.RED
    level: Level = Level.LOW
    perhaps: int | None = None
    perhaps_text: str | None = None
    device: int | Literal["auto"] = "auto"
    inner: Inner = Inner()
    inners: tuple[Inner, ...] = ()
    anything: Any = None
    function: Callable[[], int] | None = None


def problem(**values: Any) -> str:
    """The single problem that `Everything` has with these values."""
    with pytest.raises(ConfigurationError) as raised:
        structure(values, Everything)
    first, *lines = str(raised.value).splitlines()
    assert first == "Invalid configuration: 1 problem."
    assert len(lines) == 1
    return lines[0].removeprefix("  - ")


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
        "  - unknown key 'batch_sise'. Did you mean 'batch_size'? Known keys: 'batch_size', 'beta1', 'beta2', "
        "'checkpoint_every', 'device', 'ema_decay', 'gradient_clip_norm', 'keep_checkpoints', 'learning_rate', "
        "'log_every', 'num_fit_images', 'num_steps', 'num_validation_images', 'sample_every', 'schedule', 'seed', "
        "'text_drop_probability', 'warmup_steps', 'weight_decay' @ $.training",
        "  - expected a text, found 2 @ $.sample_prompts[1]",
        "  - unknown key 'trainin'. Did you mean 'training'? Known keys: 'backbone', 'data', 'head', 'order', "
        "'sample_prompts', 'text_encoder', 'tokenizer', 'training' @ $",
    ]


WRONG_VALUES = [
    ({"integer": "7"}, "expected an integer, found the text '7' @ $.integer"),
    ({"integer": 7.9}, "expected an integer, found 7.9 @ $.integer"),
    ({"integer": 7.0}, "expected an integer, found 7.0 @ $.integer"),
    ({"integer": True}, "expected an integer, found true @ $.integer"),
    ({"real": "1.5"}, "expected a number, found the text '1.5' @ $.real"),
    ({"real": False}, "expected a number, found false @ $.real"),
    ({"real": float("nan")}, "expected a finite number, found nan @ $.real"),
    ({"truth": 1}, "expected true or false, found 1 @ $.truth"),
    ({"truth": "true"}, "expected true or false, found the text 'true' @ $.truth"),
    ({"text": 7}, "expected a text, found 7 @ $.text"),
    ({"text": None}, "expected a text, found None @ $.text"),
    ({"path": 7}, "expected a path, found 7 @ $.path"),
    ({"pair": [1]}, "expected a list of 2 values, found 1 @ $.pair"),
    ({"pair": [1, "2"]}, "expected an integer, found the text '2' @ $.pair[1]"),
    ({"many": 3}, "expected a list, found 3 @ $.many"),
    ({"words": "ab"}, "expected a list, found the text 'ab' @ $.words"),
    ({"table": [1]}, "expected a table @ $.table"),
    ({"table": {"x": "1"}}, "expected a number, found the text '1' @ $.table['x']"),
    ({"choice": "c"}, "expected one of 'a', 'b', 1, found the text 'c' @ $.choice"),
    ({"choice": True}, "expected one of 'a', 'b', 1, found true @ $.choice"),
    ({"colour": "rad"}, "expected one of 'red', 'blue', found the text 'rad'. Did you mean 'red'? @ $.colour"),
    ({"level": True}, "expected one of 1, 2, found true @ $.level"),
    ({"perhaps": "many"}, "expected an integer, found the text 'many' @ $.perhaps"),
    (
        {"device": 1.5},
        "expected an integer, found 1.5, or expected one of 'auto', found 1.5 @ $.device",
    ),
    ({"inner": 3}, "expected a table, found 3 @ $.inner"),
    ({"inner": {"share": 1.5}}, "'share' must be <= 1.0: 1.5 @ $.inner"),
    ({"inner": {"mode": "slow"}}, "'mode' must be in ('fast', 'exact') (got 'slow') @ $.inner"),
    ({"inner": {"shar": 1}}, "unknown key 'shar'. Did you mean 'share'? Known keys: 'mode', 'share' @ $.inner"),
    ({"inners": [{}, {"share": "1"}]}, "expected a number, found the text '1' @ $.inners[1].share"),
]


@pytest.mark.parametrize(("values", "message"), WRONG_VALUES, ids=lambda value: str(value)[:40])
def test_wrong_value(values, message):
    """Nothing is converted by guess; the message says what was expected, what was found, and where."""
    assert problem(**values) == message


def test_right_values():
    """Every type from what TOML and JSON can write."""
    values = {
        "integer": 7,
        "real": 7,
        "truth": True,
        "text": "7",
        "path": "a/b",
        "pair": [3, 4],
        "many": [1, 2.5],
        "words": ["x"],
        "table": {"x": 1},
        "choice": 1,
        "colour": "blue",
        "level": 2,
        "perhaps": 5,
        "perhaps_text": "none",
        "device": 0,
        "inner": {"share": 1},
        "inners": [{"mode": "exact"}],
        "anything": {"x": [1, "2"]},
    }
    made = structure(values, Everything)
    assert made == Everything(
        integer=7,
        real=7.0,
        truth=True,
        text="7",
        path=Path("a/b"),
        pair=(3, 4),
        many=(1.0, 2.5),
        words=["x"],
        table={"x": 1.0},
        choice=1,
        colour=Colour.BLUE,
        level=Level.HIGH,
        perhaps=5,
        perhaps_text="none",
        device=0,
        inner=Inner(share=1.0),
        inners=(Inner(mode="exact"),),
        anything={"x": [1, "2"]},
    )
    assert type(made.real) is float
    assert type(made.colour) is Colour
    assert type(made.level) is Level
    assert structure(json.loads(json.dumps(unstructure(made))), Everything) == made


def test_none_can_be_written_in_toml():
    """The word "none" stands for None where no other text could be meant."""
    assert structure({"perhaps": "none"}, Everything).perhaps is None
    assert structure({"perhaps": None}, Everything).perhaps is None
    assert structure({"perhaps_text": "none"}, Everything).perhaps_text == "none"


def test_type_that_no_file_can_hold():
    """A field that only a program can fill is refused in words, not with a failure of the converter."""
    assert problem(function=3).startswith("a value of type ")
    assert problem(function=3).endswith(" can not be read from a configuration @ $.function")


def test_root_that_is_not_a_table():
    """The whole data may be of a wrong type as well."""
    with pytest.raises(ConfigurationError) as raised:
        structure([1], FluidConfig, root="$.x", subject="thing")
    assert str(raised.value) == "Invalid thing: 1 problem.\n  - expected a table, found a list @ $.x"


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


def test_options_are_plain_copies():
    """Options equal what a file would give back, and do not change with the dictionary they came from."""
    given_options = {"size": (3, 4), "path": Path("x"), "colour": Colour.RED, "level": Level.LOW, "deep": {"a": [1]}}
    choice = ComponentChoice(name="x", options=given_options)
    assert choice.options == {"size": [3, 4], "path": "x", "colour": "red", "level": 1, "deep": {"a": [1]}}
    assert type(choice.options["colour"]) is str
    given_options["deep"]["a"].append(2)
    assert choice.options["deep"] == {"a": [1]}
    with pytest.raises(ConfigurationError, match=r"options must be texts, finite numbers, .*, found <object"):
        ComponentChoice(name="x", options={"a": object()})
    with pytest.raises(ConfigurationError, match=r"options must be a table, found \[1\]"):
        ComponentChoice(name="x", options=[1])


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
