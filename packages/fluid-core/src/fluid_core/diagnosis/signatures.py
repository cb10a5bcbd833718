"""The failures that are looked for, in the order in which a report names them.

To look for another one, write a file with a function from `Evidence` to `Finding`, and add a row here.
"""

from collections.abc import Callable

import attrs

from fluid_core.diagnosis.bright_spots import diagnose_bright_spots
from fluid_core.diagnosis.codebook_use import diagnose_codebook_use
from fluid_core.diagnosis.evidence import Evidence
from fluid_core.diagnosis.finding import Finding
from fluid_core.diagnosis.flat_patches import diagnose_flat_patches
from fluid_core.diagnosis.ignored_text import diagnose_ignored_text
from fluid_core.diagnosis.token_drift import diagnose_token_drift
from fluid_core.diagnosis.training_course import diagnose_training_course


@attrs.frozen(kw_only=True)
class Signature:
    """A failure that can be told from what there is to look at."""

    name: str
    """Of its section in docs/diagnosis.md, and its key in the record."""

    diagnose: Callable[[Evidence], Finding]
    """Measures and judges; a pure function."""


SIGNATURES = (
    Signature(name="flat patches", diagnose=diagnose_flat_patches),
    Signature(name="bright spots", diagnose=diagnose_bright_spots),
    Signature(name="token drift", diagnose=diagnose_token_drift),
    Signature(name="codebook collapse", diagnose=diagnose_codebook_use),
    Signature(name="training course", diagnose=diagnose_training_course),
    Signature(name="ignored text", diagnose=diagnose_ignored_text),
)


def look_for_all(evidence: Evidence) -> dict[str, Finding]:
    """The finding of every signature, by name."""
    return {signature.name: signature.diagnose(evidence) for signature in SIGNATURES}
