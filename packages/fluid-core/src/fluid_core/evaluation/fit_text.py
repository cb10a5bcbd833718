"""What a fit says, in lines for people."""

from fluid_core.evaluation.fit_run import FitRequest, FittedGroup
from fluid_core.evaluation.plotting import counted
from fluid_core.evaluation.scaling_law import Correlation, Extrapolation, Interval, PowerLawFit


def fit_lines(group: FittedGroup, request: FitRequest) -> list[str]:
    """All that was found for one group of rows."""
    lines = [group.label] if group.label else []
    indent = "  " if group.label else ""
    for law, fit in group.fits.items():
        lines.append(f"{indent}{request.y} = {fit.law}   (N = {request.x})")
        lines += [f"{indent}  {text}" for text in _about(fit)]
        if law in group.extrapolations:
            lines.append(f"{indent}  {held_out_text(group.extrapolations[law])}")
        elif request.hold_out_largest:
            lines.append(f"{indent}  too few sizes to hold one out")
    if group.scores is not None:
        lines.append(f"{indent}{correlation_text(group.scores)} of {request.y} and {request.score}")
    elif request.score is not None:
        lines.append(f"{indent}no correlation with {request.score}: fewer than three points, or no differences")
    return lines


def interval_text(interval: Interval | None, digits: int = 3) -> str:
    """`0.09 to 0.13`, `below 0.4`, or why there is none; with `digits` after the point."""
    if interval is None:
        return "no interval: as many parameters as sizes"
    low, high = interval.low, interval.high
    if low is None or high is None:
        if low is None and high is None:
            return "not bounded by these sizes"
        return f"below {high:.{digits}f}" if low is None else f"above {low:.{digits}f}"
    return f"{low:.{digits}f} to {high:.{digits}f}"


def held_out_text(one: Extrapolation) -> str:
    """Prediction and truth of the largest size."""
    text = f"held out {counted(one.size)}: predicted {one.predicted:.4g}"
    if one.interval is not None:
        bounds = ["?" if bound is None else f"{bound:.4g}" for bound in (one.interval.low, one.interval.high)]
        text += f" ({bounds[0]} to {bounds[1]})"
    text += f", found {one.found:.4g} ({one.relative_error:+.1%})"
    if one.inside is None:
        return f"{text}; no interval with so few sizes"
    return f"{text}: {'inside' if one.inside else 'outside'} the interval"


def correlation_text(found: Correlation) -> str:
    """Both coefficients."""
    interval = f" ({interval_text(found.pearson_interval, 2)})" if found.pearson_interval is not None else ""
    return f"Pearson {found.pearson:+.3f}{interval}, Spearman {found.spearman:+.3f} over {found.num_points} models"


def _about(fit: PowerLawFit) -> list[str]:
    lines = [
        f"exponent {fit.law.exponent:.4f} ({fit.confidence:.0%}: {interval_text(fit.exponent_interval, 4)}), "
        f"R² {fit.r_squared:.4f}, {len(fit.sizes)} sizes, largest error "
        f"{max(abs(error) for error in fit.relative_errors):.2%}"
    ]
    if fit.repeat_deviation is not None:
        lines.append(f"repeats of a size differ by {fit.repeat_deviation:.2%} (standard deviation)")
    if fit.has_floor and fit.floor_p_value is not None:
        lines.append(
            f"irreducible term {fit.law.floor:.4g}: "
            + (
                f"these sizes tell it from none (p = {fit.floor_p_value:.2g})"
                if fit.floor_p_value < 1 - fit.confidence
                else f"these sizes do not tell it from none (p = {fit.floor_p_value:.2g})"
            )
        )
    return lines
