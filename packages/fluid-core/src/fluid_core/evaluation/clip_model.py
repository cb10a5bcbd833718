"""CLIP (arXiv 2103.00020) from a folder on this machine: pictures and texts as unit vectors in one space."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fluid_core.errors import CheckpointError
from fluid_core.evaluation.local_transformers import load_local, load_local_part

_WHAT = "a CLIP model"
_EXAMPLE = "openai/clip-vit-large-patch14"


class ClipModel:
    """A CLIP model with its tokenizer and the preparation of its pictures.

    Raises `CheckpointError` unless `folder` holds all three, with weights in safetensors.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        # transformers takes seconds to import.
        import transformers

        self.device = device
        self._model = load_local(folder, transformers.CLIPModel, what=_WHAT, example=_EXAMPLE).to(device)
        self._tokenizer = load_local_part(
            folder,
            transformers.CLIPTokenizer,
            what="the tokenizer of a CLIP model",
            files="tokenizer.json, or vocab.json and merges.txt",
        )
        # The variant that needs no torchvision; releases before 5 have that one alone.
        prepare = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
        self._prepare = load_local_part(
            folder, prepare, what="the preparation of a CLIP model's pictures", files="preprocessor_config.json"
        )
        limit = self._model.config.text_config.vocab_size
        if len(self._tokenizer) > limit:
            raise CheckpointError(
                f"Expected a tokenizer of at most {limit} tokens for the CLIP model in {folder}, found one of "
                f"{len(self._tokenizer)}. Take tokenizer and weights from one source."
            )

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self._model.config.projection_dim)

    @property
    def longest_text(self) -> int:
        """Tokens of a text at most: what is longer is cut off."""
        return int(self._model.config.text_config.max_position_embeddings)

    def num_tokens(self, text: str) -> int:
        """Tokens of a whole text, with those that begin and end it."""
        return len(self._tokenizer(text, truncation=False, verbose=False)["input_ids"])

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "texts width"]:
        """A vector of length 1 for each text, cut off at the model's longest."""
        tokens = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.device)
        with torch.inference_mode():
            found = self._model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )
        return _unit_vectors(found)

    def pictures(self, pictures: Sequence[Image.Image]) -> Float[Tensor, "pictures width"]:
        """A vector of length 1 for each picture, prepared as the model's folder says."""
        prepared = self._prepare(images=[picture.convert("RGB") for picture in pictures], return_tensors="pt")
        with torch.inference_mode():
            found = self._model.get_image_features(pixel_values=prepared["pixel_values"].to(self.device))
        return _unit_vectors(found)


def _unit_vectors(found: Any) -> Tensor:
    # Releases from 5 on return an object with more in it.
    vectors = found if isinstance(found, Tensor) else found.pooler_output
    return functional.normalize(vectors.float(), dim=-1)
