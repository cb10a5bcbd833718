"""T5 through transformers: the frozen text encoder of the paper (section 3)."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluid_core.errors import CheckpointError
from fluid_core.text.frozen_encoder import FrozenEncoder
from fluid_core.text.options import T5EncoderOptions
from fluid_core.text.pretrained_loading import WantedModel, load_pretrained


class T5Encoder(FrozenEncoder):
    """Frozen T5 encoder: states of its last layer, one per token and one for the end mark.

    Raises `CheckpointError` if the model or its tokenizer can not be loaded from `options.path`.
    """

    def __init__(self, options: T5EncoderOptions) -> None:
        loaded = load_pretrained(
            options, WantedModel(description="a T5 model", example="google/t5-v1_1-small", choose_class=_t5_class)
        )
        super().__init__(
            loaded,
            width=int(loaded.model.config.d_model),
            max_length=options.max_length,
            overlong=options.overlong,
            unit="tokens with the end mark",
        )
        self.options = options

    def _states(
        self, ids: Int[Tensor, "batch text_length"], mask: Bool[Tensor, "batch text_length"]
    ) -> Float[Tensor, "batch text_length width"]:
        states: Tensor = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return states


def _t5_class(config: Any, path: str) -> Any:
    """The half of T5 that reads: loading the other would double the memory."""
    from transformers import T5EncoderModel

    if config.model_type != "t5":
        raise CheckpointError(
            f"Expected a T5 model at '{path}', found one of type '{config.model_type}'. Pass a T5, T5 v1.1, "
            "FLAN-T5 or ByT5 checkpoint, or choose the text encoder 'transformers-encoder'."
        )
    return T5EncoderModel


def build_t5_encoder(options: T5EncoderOptions) -> T5Encoder:
    """T5 loaded from the folder or hub id that the options name."""
    return T5Encoder(options)


def example_t5_options(folder: Path) -> T5EncoderOptions:
    """Options of a tiny T5 with random weights over bytes, which is written to `folder`, for tests."""
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=384,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    # transformers initialises from the global generator; fork it, so that nobody else's numbers change.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = T5EncoderModel(config)
    model.save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    return T5EncoderOptions(path=str(folder), max_length=64)
