"""Loading a pretrained text encoder and its tokenizer with transformers, or saying plainly why that failed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError
from torch import nn

from fluid_core.errors import CheckpointError
from fluid_core.text.options import T5EncoderOptions, TransformersEncoderOptions

_FAILURES = (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError)
"""What transformers raises for missing, damaged or unfit files, and for a hub that does not answer."""


@attrs.frozen(kw_only=True)
class WantedModel:
    """What kind of model is wanted, and how messages speak of it."""

    description: str
    """With its article, such as `a T5 model`."""

    example: str
    """A model of the hub that would do."""

    choose_class: Callable[[Any, str], Any]
    """The class whose `from_pretrained` loads the weights, given the model's configuration and the path.

    Raises `CheckpointError` for a model of another kind."""

    may_be_missing: tuple[str, ...] = ()
    """Beginnings of names of weights that token states do not depend on, and that some checkpoints leave out."""


@attrs.frozen(kw_only=True)
class LoadedEncoder:
    """A model of transformers and its tokenizer."""

    model: Any
    tokenizer: Any
    path: str


def load_pretrained(options: T5EncoderOptions | TransformersEncoderOptions, wanted: WantedModel) -> LoadedEncoder:
    """The model and its tokenizer, from a local folder or the hub.

    Weights are read from safetensors files only. Raises `CheckpointError`, saying what to pass, for a folder
    that does not exist, a hub that can not be reached, a model of another kind, missing or damaged weights,
    and a tokenizer that does not go with the model.
    """
    _check_folder(options.path, wanted)
    # transformers takes seconds to import.
    from transformers import AutoConfig, AutoTokenizer

    path = str(Path(options.path).expanduser()) if options.path.startswith("~") else options.path
    where: dict[str, Any] = {"revision": options.revision} if options.revision else {}
    try:
        config = AutoConfig.from_pretrained(path, **where)
    except _FAILURES as error:
        raise CheckpointError(
            f"Expected {wanted.description} at '{path}', found no readable configuration: {_reason(error)} Pass a "
            "folder that holds config.json, model.safetensors and the tokenizer's files, or the id of a hub "
            "model while online; models downloaded before load without a network, too."
        ) from error
    model_class = wanted.choose_class(config, path)
    try:
        with _without_load_report():
            loaded: Any = model_class.from_pretrained(
                path,
                dtype=getattr(torch, options.dtype),
                use_safetensors=True,
                output_loading_info=True,
                **where,
            )
    except _FAILURES as error:
        raise CheckpointError(
            f"Expected the weights of {wanted.description} in safetensors files at '{path}', found none that can be "
            f"read: {_reason(error)} Download the model again, or convert its weights with save_pretrained()."
        ) from error
    model, report = loaded
    # transformers fills what is missing with random numbers, which would be silent nonsense.
    wrong = sorted(str(key) for key in {*report["missing_keys"], *report["mismatched_keys"]})
    wrong = [key for key in wrong if not key.startswith(wanted.may_be_missing)]
    if wrong:
        raise CheckpointError(
            f"Expected all weights of {wanted.description} at '{path}', found {len(wrong)} missing or of another "
            f"shape, such as {wrong[0]}. Pass a complete checkpoint."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **where)
    except _FAILURES as error:
        raise CheckpointError(
            f"Expected the tokenizer of {wanted.description} beside its weights at '{path}', found none that can be "
            f"read: {_reason(error)} Save it there with save_pretrained(); files named spiece.model need "
            "`pip install sentencepiece protobuf`."
        ) from error
    _check_tokenizer(tokenizer, model, path, wanted)
    return LoadedEncoder(model=model, tokenizer=tokenizer, path=path)


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Keep transformers from listing weights that are missing or left over: what matters of it is checked here."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _check_folder(path: str, wanted: WantedModel) -> None:
    """Refuse a path that is meant as a folder and does not exist, before a hub is asked for it."""
    folder = Path(path).expanduser()
    looks_local = folder.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1
    if looks_local and not folder.is_dir():
        raise CheckpointError(
            f"Expected a folder with {wanted.description} at '{path}', found no such folder. Pass the folder that "
            f"holds config.json, or a hub id such as '{wanted.example}'. A saved model names it in its "
            "model_index.json: correct the path there if the folder has moved."
        )


def _check_tokenizer(tokenizer: Any, model: Any, path: str, wanted: WantedModel) -> None:
    """Refuse a tokenizer that knows no words (transformers makes one up if files are missing) or too many."""
    embedding = model.get_input_embeddings()
    if not isinstance(embedding, nn.Embedding):
        raise CheckpointError(
            f"Expected {wanted.description} at '{path}', found one of type '{model.config.model_type}', which has no "
            "table of tokens. Pass a model that reads text."
        )
    vocabulary_size = embedding.num_embeddings
    marks = set(tokenizer.all_special_ids)
    known = [token for token in tokenizer("a picture")["input_ids"] if token not in marks]
    if not tokenizer.decode(known).strip():
        raise CheckpointError(
            f"Expected the tokenizer of {wanted.description} beside its weights at '{path}', found one without a "
            "vocabulary. Add tokenizer.json (or vocab.txt, spiece.model: what it had) from the model's source, or "
            "save the tokenizer there with save_pretrained()."
        )
    if len(tokenizer) > vocabulary_size:
        raise CheckpointError(
            f"Expected a tokenizer of at most {vocabulary_size} tokens for {wanted.description} at '{path}', found one "
            f"of {len(tokenizer)}. Tokenizer and weights belong to different models: take both from one source."
        )


def _reason(error: Exception) -> str:
    """First line of an error's text, as a sentence."""
    lines = str(error).strip().splitlines()
    line = lines[0].rstrip() if lines else type(error).__name__
    return line if line.endswith(".") else line + "."
