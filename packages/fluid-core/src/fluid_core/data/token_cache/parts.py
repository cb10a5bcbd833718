"""Which tokenizer and which text encoder: told by a hash, and what a tokenizer learned from images."""

from pathlib import Path
from typing import Any

import attrs
from torch import Tensor, nn

from fluid_core.atomic_files import load_state, read_safetensors
from fluid_core.data.token_cache.manifest import MANIFEST_FILE, PLAN_FILE, TOKENIZER_FILE, CachedPart, Manifest
from fluid_core.data.token_cache.stored_types import type_name
from fluid_core.errors import CheckpointMismatchError, InvalidRequestError
from fluid_core.identity import identity_of
from fluid_core.protocols import Identified, LearnsFromImages, StoredApart, TextEncoder, Tokenizer


def part_identity(part: object) -> str:
    """What the part says of itself, or a hash of its class and all its weights if it says nothing."""
    if isinstance(part, Identified):
        return part.identity()
    kind = f"{type(part).__module__}.{type(part).__qualname__}"
    return identity_of({"class": kind}, part.state_dict() if isinstance(part, nn.Module) else {})


def weights_dtype(part: object) -> str | None:
    """The type of the first weights that are no whole numbers; None for a part without."""
    parameters = part.parameters() if isinstance(part, nn.Module) else ()
    return next((type_name(weight.dtype) for weight in parameters if weight.is_floating_point()), None)


@attrs.frozen(kw_only=True)
class NamedPart:
    """What a configuration says of a part: its name, its options and the distribution that provides it."""

    name: str
    options: dict[str, Any]
    provided_by: str

    def made_by(self, part: object) -> CachedPart:
        """With the identity of `part`, which was built from it."""
        return CachedPart(
            name=self.name,
            options=self.options,
            provided_by=self.provided_by,
            identity=part_identity(part),
            weights_dtype=weights_dtype(part),
        )


def learned_state(tokenizer: Tokenizer) -> dict[str, Tensor]:
    """What a tokenizer learned from images, by name; empty for one that learns nothing.

    Weights that have a folder of their own are no part of it.
    """
    if not isinstance(tokenizer, LearnsFromImages) or not tokenizer.fitted:
        return {}
    return _own_state(tokenizer)


def _own_state(tokenizer: object) -> dict[str, Tensor]:
    assert isinstance(tokenizer, nn.Module)
    apart = tuple(f"{name}." for name in tokenizer.stored_modules) if isinstance(tokenizer, StoredApart) else ()
    return {name: tensor for name, tensor in tokenizer.state_dict().items() if not (apart and name.startswith(apart))}


def load_learned_state(tokenizer: Tokenizer, folder: Path) -> None:
    """Give a tokenizer that has learned nothing what the one of the cache in `folder`, if there is one, had learned.

    Raises `CheckpointMismatchError` if that does not fit it, and `CheckpointError` for a damaged file.
    """
    file = folder / TOKENIZER_FILE
    if not isinstance(tokenizer, LearnsFromImages) or tokenizer.fitted or not file.is_file():
        return
    if not any((folder / name).is_file() for name in (MANIFEST_FILE, PLAN_FILE)):
        return
    assert isinstance(tokenizer, nn.Module)
    load_state(tokenizer, read_safetensors(file), source=str(file), expected=_own_state(tokenizer))


def check_parts(
    manifest: Manifest, folder: Path, tokenizer: Tokenizer, text_encoder: TextEncoder | None, *, remedy: str
) -> None:
    """Raise `CheckpointMismatchError`, with both sides named, unless the cache was made by parts like these.

    None for `text_encoder` leaves the text out of the comparison.
    """
    problems: list[str] = []
    if tuple(tokenizer.image_size) != manifest.image_size:
        problems.append(f"image size: {_size(manifest.image_size)} in the cache, {_size(tokenizer.image_size)} here")
    problems += _problems("tokenizer", manifest.tokenizer, tokenizer)
    if text_encoder is not None and manifest.text is not None:
        problems += _problems("text encoder", manifest.text.encoder, text_encoder)
    if problems:
        listed = "\n  ".join(problems)
        raise CheckpointMismatchError(f"The cache in {folder} was made for another model:\n  {listed}\n{remedy}")


def _problems(kind: str, cached: CachedPart, part: object) -> list[str]:
    identity, weights = _known_identity(part), weights_dtype(part)
    if (cached.identity, cached.weights_dtype) == (identity, weights):
        return []
    known = "no identity yet: it has learned nothing" if identity is None else f"identity {identity[:12]}"
    named = f"{type(part).__name__} ({known}{f', {weights} weights' if weights else ''})"
    return [f"{kind}: {cached} in the cache, {named} here"]


def _known_identity(part: object) -> str | None:
    """None for a tokenizer that can not say which it is before it has learned something."""
    if isinstance(part, LearnsFromImages) and not part.fitted:
        try:
            return part_identity(part)
        except InvalidRequestError:
            return None
    return part_identity(part)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
