"""Loading a T5 encoder and its tokenizer with transformers, or saying plainly why that failed."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from fluid_core.errors import CheckpointError
from fluid_core.text.options import T5EncoderOptions

_FAILURES = (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError)
"""What transformers raises for missing, damaged or unfit files, and for a hub that does not answer."""


def load_t5(options: T5EncoderOptions) -> tuple[Any, Any]:
    """The encoder module and its tokenizer, from a local folder or the hub.

    Weights are read from safetensors files only. Raises `CheckpointError`, saying what to pass, for a folder
    that does not exist, a hub that can not be reached, a model of another family, missing or damaged weights,
    and a tokenizer that does not go with the model.
    """
    _check_folder(options.path)
    # transformers takes seconds to import.
    from transformers import AutoConfig, AutoTokenizer, T5EncoderModel

    path = str(Path(options.path).expanduser()) if options.path.startswith("~") else options.path
    where: dict[str, Any] = {"revision": options.revision} if options.revision else {}
    try:
        config = AutoConfig.from_pretrained(path, **where)
    except _FAILURES as error:
        raise CheckpointError(
            f"Expected a T5 model at '{path}', found no readable configuration: {_reason(error)} Pass a "
            "folder that holds config.json, model.safetensors and the tokenizer's files, or the id of a hub "
            "model while online; models downloaded before load without a network, too."
        ) from error
    if config.model_type != "t5":
        raise CheckpointError(
            f"Expected a T5 model at '{path}', found one of type '{config.model_type}'. Pass a T5, T5 v1.1, "
            "FLAN-T5 or ByT5 checkpoint."
        )
    try:
        loaded: Any = T5EncoderModel.from_pretrained(
            path,
            config=config,
            dtype=getattr(torch, options.dtype),
            use_safetensors=True,
            output_loading_info=True,
            **where,
        )
    except _FAILURES as error:
        raise CheckpointError(
            f"Expected the weights of T5 in safetensors files at '{path}', found none that can be read: "
            f"{_reason(error)} Download the model again, or convert its weights with save_pretrained()."
        ) from error
    model, report = loaded
    # transformers fills what is missing with random numbers, which would be silent nonsense.
    if report["missing_keys"] or report["mismatched_keys"]:
        wrong = sorted(str(key) for key in {*report["missing_keys"], *report["mismatched_keys"]})
        raise CheckpointError(
            f"Expected all weights of a T5 encoder at '{path}', found {len(wrong)} missing or of another "
            f"shape, such as {wrong[0]}. Pass a complete T5 checkpoint."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **where)
    except _FAILURES as error:
        raise CheckpointError(
            f"Expected T5's tokenizer beside its weights at '{path}', found none that can be read: "
            f"{_reason(error)} Save it there with save_pretrained(); files named spiece.model need "
            "`pip install sentencepiece protobuf`."
        ) from error
    _check_tokenizer(tokenizer, config.vocab_size, path)
    return model, tokenizer


def _check_folder(path: str) -> None:
    """Refuse a path that is meant as a folder and does not exist, before a hub is asked for it."""
    folder = Path(path).expanduser()
    looks_local = folder.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1
    if looks_local and not folder.is_dir():
        raise CheckpointError(
            f"Expected a folder with a T5 model at '{path}', found no such folder. Pass the folder that "
            "holds config.json, or a hub id such as 'google/t5-v1_1-small'. A saved model names it in its "
            "model_index.json: correct the path there if the folder has moved."
        )


def _check_tokenizer(tokenizer: Any, vocab_size: int, path: str) -> None:
    """Refuse a tokenizer that knows no words (transformers makes one up if files are missing) or too many."""
    marks = (tokenizer.eos_token_id, tokenizer.unk_token_id)
    known = [token for token in tokenizer("a picture")["input_ids"] if token not in marks]
    if not tokenizer.decode(known).strip():
        raise CheckpointError(
            f"Expected T5's tokenizer beside its weights at '{path}', found one without a vocabulary. Add "
            "tokenizer.json or spiece.model from the model's source, or save the tokenizer there with "
            "save_pretrained()."
        )
    if len(tokenizer) > vocab_size:
        raise CheckpointError(
            f"Expected a tokenizer of at most {vocab_size} tokens for the T5 model at '{path}', found one of "
            f"{len(tokenizer)}. Tokenizer and weights belong to different models: take both from one source."
        )


def _reason(error: Exception) -> str:
    """First line of an error's text, as a sentence."""
    lines = str(error).strip().splitlines()
    line = lines[0].rstrip() if lines else type(error).__name__
    return line if line.endswith(".") else line + "."
