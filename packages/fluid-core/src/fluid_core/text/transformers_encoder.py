"""Any text model of transformers with a state for every token: BERT, MiniLM, CLIP's text tower, ModernBERT and more."""

import inspect
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fluid_core.errors import CheckpointError, ConfigurationError
from fluid_core.text.frozen_encoder import FrozenEncoder
from fluid_core.text.options import DEFAULT_MAX_LENGTH, TransformersEncoderOptions
from fluid_core.text.pretrained_loading import LoadedEncoder, WantedModel, load_pretrained

_TEXT_TOWERS = {"clip": "CLIPTextModel", "siglip": "SiglipTextModel", "siglip2": "Siglip2TextModel"}
"""Models of text and images, by type, with the class that loads the half for text alone."""

_POOLERS = ("pooler.", "head.", "text_projection.")
"""Layers that make one vector of a whole text. Token states pass by them, and many checkpoints do not have them."""

_NO_LIMIT = 1_000_000
"""Tokenizers without a limit name an absurd one."""


class TransformersEncoder(FrozenEncoder):
    """A frozen text model of transformers: states of its last layer, or of an earlier one, for every token.

    Of a model with encoder and decoder the encoder is used. Raises `CheckpointError` if the model or its tokenizer can
    not be loaded from `options.path`, or reads no text, and `ConfigurationError` for a `max_length` or `layer` that the
    model does not have.
    """

    def __init__(self, options: TransformersEncoderOptions) -> None:
        loaded = reading_part(
            load_pretrained(
                options,
                WantedModel(
                    description="a text model",
                    example="sentence-transformers/all-MiniLM-L6-v2",
                    choose_class=text_class,
                    may_be_missing=_POOLERS,
                ),
            )
        )
        super().__init__(
            loaded,
            width=text_width(loaded),
            max_length=_max_length(options, loaded),
            overlong=options.overlong,
            unit="tokens with the encoder's marks",
        )
        self.options = options
        _check_layer(options, loaded)

    def _states(
        self, ids: Int[Tensor, "batch text_length"], mask: Bool[Tensor, "batch text_length"]
    ) -> Float[Tensor, "batch text_length width"]:
        # A key/value cache, which decoders keep by default, would only cost memory.
        settings = {"use_cache": False} if "use_cache" in _arguments(self.model) else {}
        last = self.options.layer == -1
        found = self.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=not last, **settings)
        states: Tensor = found.last_hidden_state if last else found.hidden_states[self.options.layer]
        return states


def text_class(config: Any, path: str) -> Any:
    """The smallest class that loads what reads the text."""
    import transformers

    if config.model_type in _TEXT_TOWERS:
        return getattr(transformers, _TEXT_TOWERS[config.model_type])
    for chooser in (transformers.AutoModelForTextEncoding, transformers.AutoModel):
        if type(config) in chooser._model_mapping:
            return chooser
    raise CheckpointError(
        f"Expected a text model at '{path}', found one of type '{config.model_type}', which transformers can not load "
        "as a model of its own. Pass a model such as BERT, CLIP's text model, ModernBERT or T5."
    )


def reading_part(loaded: LoadedEncoder) -> LoadedEncoder:
    """The encoder, of a model that also has a decoder. Raises `CheckpointError` for a model that reads no text."""
    model = loaded.model
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    needed = {"input_ids", "attention_mask"}
    if not needed <= _arguments(model).keys():
        raise CheckpointError(
            f"Expected a text model at '{loaded.path}', found one of type '{model.config.model_type}', which takes no "
            "token ids with a mask. Pass a model such as BERT, CLIP's text model, ModernBERT or T5."
        )
    return LoadedEncoder(model=model, tokenizer=loaded.tokenizer, path=loaded.path)


def _arguments(model: nn.Module) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(model.forward).parameters)


def text_width(loaded: LoadedEncoder) -> int:
    """Length of one state."""
    return int(loaded.model.config.get_text_config().hidden_size)


def _max_length(options: TransformersEncoderOptions, loaded: LoadedEncoder) -> int:
    """The limit that was asked for, or else the usual one, as far as the model has positions for it."""
    limits = [
        getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None),
        loaded.tokenizer.model_max_length,
        *(_num_positions(name, module) for name, module in loaded.model.named_modules()),
    ]
    limit = min((int(one) for one in limits if one is not None and 0 < one < _NO_LIMIT), default=None)
    if options.max_length is None:
        return DEFAULT_MAX_LENGTH if limit is None else min(DEFAULT_MAX_LENGTH, limit)
    if limit is not None and options.max_length > limit:
        raise ConfigurationError(
            f"Expected a max_length of at most {limit}, which is what the text model at '{loaded.path}' has positions "
            f"for, found {options.max_length}. Leave it out to take what fits."
        )
    return options.max_length


def _num_positions(name: str, module: nn.Module) -> int | None:
    """How many tokens a table of positions is for: RoBERTa and its kin leave the rows up to that of padding out."""
    if not name.endswith("position_embeddings") or not isinstance(module, nn.Embedding):
        return None
    return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)


def _check_layer(options: TransformersEncoderOptions, loaded: LoadedEncoder) -> None:
    num_layers = int(loaded.model.config.get_text_config().num_hidden_layers)
    if options.layer < -num_layers:
        raise ConfigurationError(
            f"Expected layer from -{num_layers} to -1 for the text model at '{loaded.path}', which has {num_layers} "
            f"layers, found {options.layer}."
        )


def build_transformers_encoder(options: TransformersEncoderOptions) -> TransformersEncoder:
    """The text model loaded from the folder or hub id that the options name."""
    return TransformersEncoder(options)


def example_transformers_options(folder: Path) -> TransformersEncoderOptions:
    """Options of a tiny BERT with random weights over letters, which is written to `folder`, for tests."""
    from transformers import BertConfig, BertModel, BertTokenizer

    letters = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*marks, *letters, *(f"##{letter}" for letter in letters)]
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    # transformers initialises from the global generator; fork it, so that nobody else's numbers change.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config)
        # The first normalisation of fresh weights is blind to what differs only by a little.
        model.embeddings.word_embeddings.weight.data.mul_(20.0)
    model.save_pretrained(folder)
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(folder)
    return TransformersEncoderOptions(path=str(folder))
