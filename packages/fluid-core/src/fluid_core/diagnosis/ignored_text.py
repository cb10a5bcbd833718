"""Text that is ignored: a model that predicts no better with the right caption than with that of another picture."""

from fluid_core.diagnosis.evidence import Evidence
from fluid_core.diagnosis.finding import Finding, Verdict, not_looked, percent
from fluid_core.diagnosis.uncertainty import NUM_ERRORS, mean_of

LEAST_GAIN = 0.01
"""How much wrong captions add to the loss of a model that reads them, as a share of it.

Captions tell little about most tokens, and losses of noise are mostly noise: a few percent is usual. Where so few
pictures may hide as much as this, the question stays open.
"""

_FEWEST_PICTURES = 8


def diagnose_ignored_text(evidence: Evidence) -> Finding:
    """Compare losses with right and wrong captions, picture by picture, under the same orders, masks and noise."""
    losses = evidence.caption_losses
    if losses is None:
        return not_looked(evidence.why_no_losses)
    count = len(losses.right)
    if count < _FEWEST_PICTURES:
        return not_looked(
            f"There are {count} pictures with a caption that differs from another's: at least {_FEWEST_PICTURES} are "
            "needed."
        )
    gain = mean_of(losses.wrong - losses.right)
    scale = abs(float(losses.right.double().mean()))
    share, error = (gain.value / scale, gain.error / scale) if scale else (0.0, 0.0)
    follows = gain.value > NUM_ERRORS * gain.error
    could_be_more = share + NUM_ERRORS * error > LEAST_GAIN
    verdict = Verdict.NOT_FOUND if follows else Verdict.UNDECIDED if could_be_more else Verdict.FOUND
    conclusion = {
        Verdict.NOT_FOUND: "The model reads its text.",
        Verdict.FOUND: "That is no difference: the model does not read its text.",
        Verdict.UNDECIDED: "So few pictures do not tell whether the text makes a difference: give more (--num-images).",
    }[verdict]
    return Finding(
        verdict=verdict,
        found=(
            f"Loss {float(losses.right.double().mean()):.4g} with the right captions and "
            f"{float(losses.wrong.double().mean()):.4g} with those of other pictures: the wrong ones add "
            f"{percent(share)} +- {percent(error)} ({count} pictures). {conclusion}"
        ),
        expected=f"A loss with wrong captions that is higher by more than {NUM_ERRORS:g} standard errors.",
        advice=()
        if verdict is not Verdict.FOUND
        else (
            "See that captions belong to their pictures: a data set that shuffles them looks exactly like this.",
            "See that the text encoder tells captions apart, and that training.text_drop_probability is far below 1.",
            "Train longer: short trainings learn what all pictures share, and text last.",
        ),
        figures={
            "loss_right": float(losses.right.double().mean()),
            "loss_wrong": float(losses.wrong.double().mean()),
            "gain": gain.as_json(),
            "gain_share": share,
            "gain_share_error": error,
            "num_pictures": count,
        },
    )
