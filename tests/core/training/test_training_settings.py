"""The settings of training: what each accepts, and that a configuration file comes back as it was."""

from pathlib import Path

import pytest

from fluid_core.configuration import TrainingConfig, config_from_json, config_to_json, structure
from fluid_core.errors import ConfigurationError

LEAST = {"num_steps": 10, "batch_size": 4}


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        ("accumulation_steps", 0, "accumulation_steps"),
        ("accumulation_steps", 5, "'accumulation_steps' must not be larger than 'batch_size', found 5 parts for 4"),
        ("precision", "bf16", "expected one of 'auto', 'float32', 'bfloat16', found the text 'bf16'"),
        ("activation_checkpointing", "some", "expected one of 'none', 'selective', 'full'"),
        ("compile", 1, "expected true or false, found 1"),
        ("init_from", 3, "expected a path, found 3"),
        ("on_non_finite", "ignore", "expected one of 'stop', 'skip'"),
        ("max_skipped_steps", 0, "max_skipped_steps"),
        ("tensorboard", "yes", "expected true or false, found the text 'yes'"),
    ],
)
def test_wrong_values_are_refused_by_place(setting, value, problem):
    """Each with what was expected, and where it stands."""
    with pytest.raises(ConfigurationError) as caught:
        structure({**LEAST, setting: value}, TrainingConfig, root="$.training")
    assert problem in str(caught.value)
    assert "@ $.training" in str(caught.value)


def test_defaults_change_nothing():
    """A configuration that says nothing trains as it did before there was a choice."""
    settings = structure(LEAST, TrainingConfig)
    assert settings.accumulation_steps == 1
    assert settings.activation_checkpointing == "none"
    assert not settings.compile
    assert settings.init_from is None
    assert settings.on_non_finite == "stop"
    assert not settings.tensorboard


def test_settings_come_back_from_a_file(run_config):
    """All of them together, the folder as a path."""
    config = run_config(
        accumulation_steps=2,
        precision="bfloat16",
        activation_checkpointing="selective",
        compile=True,
        init_from=Path("runs/mine"),
        init_strict=True,
        on_non_finite="skip",
        max_skipped_steps=3,
        tensorboard=True,
    )
    assert config_from_json(config_to_json(config)) == config
