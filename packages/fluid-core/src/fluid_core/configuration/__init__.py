"""Configuration: what a model is made of and how it is trained, as immutable values read from TOML or JSON.

Components are chosen by name plus options, never by import path, so a configuration can not make the library
import anything. Unknown keys and values of a wrong type are refused, and every problem is listed with its
place.
"""

from fluid_core.configuration.course import TrainingCourse
from fluid_core.configuration.files import load_config, load_tokenizer_run
from fluid_core.configuration.model_training import TrainingConfig
from fluid_core.configuration.overrides import apply_overrides
from fluid_core.configuration.saved import (
    FORMAT_VERSION,
    SavedConfig,
    config_from_json,
    config_to_json,
    read_saved_config,
    tokenizer_run_from_json,
)
from fluid_core.configuration.sections import BackboneConfig, ComponentChoice, FluidConfig
from fluid_core.configuration.structuring import structure, unstructure
from fluid_core.configuration.tokenizer_run import PerceptualTerm, TokenizerRunConfig, TokenizerTrainingConfig

__all__ = [
    "FORMAT_VERSION",
    "BackboneConfig",
    "ComponentChoice",
    "FluidConfig",
    "PerceptualTerm",
    "SavedConfig",
    "TokenizerRunConfig",
    "TokenizerTrainingConfig",
    "TrainingConfig",
    "TrainingCourse",
    "apply_overrides",
    "config_from_json",
    "config_to_json",
    "load_config",
    "load_tokenizer_run",
    "read_saved_config",
    "structure",
    "tokenizer_run_from_json",
    "unstructure",
]
