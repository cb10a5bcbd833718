"""From the file of a study to the configurations of its runs."""

import tomllib

import pytest

from fluid_core.configuration import load_config
from fluid_core.errors import ConfigurationError, IncompatibleComponentsError, UnknownComponentError
from fluid_core.study.grid import config_data, merged, study_cells
from fluid_core.study.jobs import write_config
from fluid_core.study.settings import load_study
from fluid_core.study.toml_text import toml_text


def cells_of(path, *overrides):
    """The runs by name."""
    return {cell.name: cell for cell in study_cells(load_study(path, list(overrides)))}


def test_a_study_is_variants_by_sizes_by_seeds(study_file):
    """Every run has its variant's parts, its size's backbone and its seed, whole sizes one after the other."""
    cells = cells_of(study_file, "seeds=[3, 5]", "sizes.b.seeds=[3]")
    assert list(cells) == [
        "discrete-raster--a--seed3",
        "discrete-raster--a--seed5",
        "continuous-random--a--seed3",
        "continuous-random--a--seed5",
        "discrete-raster--b--seed3",
        "continuous-random--b--seed3",
    ]
    config = cells["discrete-raster--a--seed5"].config
    assert (config.tokenizer.name, config.head.name, config.order.name) == ("patch-codebook", "softmax", "raster")
    assert config.tokenizer.options["vocabulary_size"] == 16
    assert config.head.options == {}
    assert config.backbone.width == 16
    assert config.backbone.size is None
    assert config.training.seed == 5
    assert cells["continuous-random--b--seed3"].config.head.options == {"depth": 1, "num_sampling_steps": 3}


def test_budgets_are_the_same_number_of_images(study_file):
    """Steps follow from images and the batch size, rounded up; warm-up and checkpoints follow the length."""
    one = cells_of(study_file, "budget.images=1001")["discrete-raster--a--seed0"]
    assert (one.num_steps, one.num_images) == (251, 1004)
    assert one.config.training.warmup_steps == 25
    assert one.config.training.checkpoint_every == 25
    assert one.config.training.sample_every == 0
    assert one.config.sample_prompts == ()
    bigger = cells_of(study_file, "budget.images=1001", "changes.training.batch_size=10")
    assert {cell.num_images for cell in bigger.values()} == {1010}
    asked = cells_of(study_file, "budget.images=1000", "changes.training.checkpoint_every=7")
    assert asked["discrete-raster--a--seed0"].config.training.checkpoint_every == 7


def test_a_further_head_is_one_line(study_file):
    """A component of any plugin joins the grid by its name."""
    text = study_file.read_text()
    line = 'mixture-random = { tokenizer = "patches", head = "gaussian-mixture", order = "random" }\n'
    study_file.write_text(text.replace("\n[sizes]", f"{line}\n[sizes]"))
    cells = cells_of(study_file)
    assert len(cells) == 6
    assert cells["mixture-random--b--seed0"].config.head.name == "gaussian-mixture"


def test_changes_merge_but_named_tables_replace():
    """Options of another component do not survive; other tables keep what is not changed."""
    base = {"head": {"name": "flow", "options": {"depth": 3}}, "training": {"seed": 1, "batch_size": 2}}
    assert merged(base, {"training": {"seed": 2}})["training"] == {"seed": 2, "batch_size": 2}
    assert merged(base, {"head": {"name": "softmax"}})["head"] == {"name": "softmax"}
    assert merged(base, {"head": {"options": {"depth": 4}}})["head"]["name"] == "flow"
    assert base["training"]["seed"] == 1


@pytest.mark.parametrize(
    ("override", "error", "said"),
    [
        ("variants.discrete-raster.head=softmx", UnknownComponentError, "softmx"),
        ("variants.discrete-raster.head=short", IncompatibleComponentsError, "'discrete-raster' at the size 'a'"),
        ("sizes.a.backbone.width=15", ConfigurationError, "multiple"),
        ("sizes.a.backbone.widht=15", ConfigurationError, "widht"),
        ("changes.training.max_minutes=3", ConfigurationError, "max_minutes"),
        ("seeds=[1, 1]", ConfigurationError, "each once"),
        ("variants={}", ConfigurationError, "at least one"),
        ('variants={"A b"={}}', ConfigurationError, "lower-case"),
        ('evaluation.sweep_sizes=["z"]', ConfigurationError, "sweep_sizes"),
        ("budget.images=0", ConfigurationError, "images"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(study_file, override, error, said):
    """Every configuration of the grid is checked, and the message says which one is wrong."""
    with pytest.raises(error) as caught:
        cells_of(study_file, override)
    assert said in "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])


def test_every_run_has_a_file_for_fluid_train(study_file, tmp_path):
    """The file that is written for a run reads back to its configuration."""
    for cell in cells_of(study_file, "changes.training.gradient_clip_norm=none").values():
        assert cell.config.training.gradient_clip_norm is None
        path = write_config(tmp_path, cell)
        assert load_config(path) == cell.config
        assert path.read_text().startswith(f"# Run {cell.name} of a study.\n")


def test_toml_holds_what_it_is_given():
    """Texts with quotes, odd keys, tables in tables and lists survive."""
    data = {
        "a": 'say "é"\n\\ \x7f',
        "b": [1, 2.5, True, {"x": "y"}],
        "n": None,
        "t": {"odd key": {"deep": [[]], "e": {}}},
        "s": 1e-05,
    }
    assert tomllib.loads(toml_text(data, comment="two\nlines")) == {**data, "n": "none"}
    with pytest.raises(ConfigurationError, match="object"):
        toml_text({"a": object()})


def test_configurations_leave_out_what_is_not_set(study_file):
    """None is not written where it is the default."""
    data = config_data(cells_of(study_file)["discrete-raster--a--seed0"].config)
    assert "size" not in data["backbone"]
    assert "max_minutes" not in data["training"]
