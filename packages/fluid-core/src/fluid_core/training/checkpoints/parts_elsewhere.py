"""Which weights a run uses that its checkpoints do not hold: those of an autoencoder or a pretrained text encoder.

Such a part is only named by the configuration. Its identity in the checkpoint tells if another one lies in its place.
"""

from collections.abc import Mapping

from fluid_core.errors import CheckpointMismatchError
from fluid_core.model import FluidModel, modules_stored_apart
from fluid_core.protocols import Identified

_NUM_SHOWN = 12
"""Digits of an identity that messages show."""


def identities_elsewhere(model: FluidModel) -> dict[str, str]:
    """The identity of each part of `model` whose weights are in a place of their own, by the part's name.

    Parts that can not tell theirs (`Identified`) are left out. The first call reads all of those weights: about two
    seconds for a gigabyte.
    """
    parts: dict[str, object] = {}
    if modules_stored_apart(model.tokenizer):
        parts["tokenizer"] = model.tokenizer
    if model.text_encoder.frozen:
        parts["text_encoder"] = model.text_encoder
    return {name: part.identity() for name, part in parts.items() if isinstance(part, Identified)}


def check_identities(saved: Mapping[str, str], present: Mapping[str, str], *, source: str) -> None:
    """Raise `CheckpointMismatchError` if a part is another than the one whose identity `source` recorded.

    Parts without a record, as in checkpoints of an earlier version, pass.
    """
    for name, identity in saved.items():
        found = present.get(name)
        if found != identity:
            raise CheckpointMismatchError(
                f"{source} belongs to a run with another {name.replace('_', ' ')} than the one in its place now: "
                f"expected weights and settings of identity {identity[:_NUM_SHOWN]}, found "
                f"{'none that can tell' if found is None else found[:_NUM_SHOWN]}. What was trained means nothing to "
                "other weights. Put the former ones back where the configuration names them, or start a new run."
            )
