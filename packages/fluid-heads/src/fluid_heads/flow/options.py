"""Options of the flow-matching head; loads no torch."""

from typing import Literal

import attrs
from attrs.validators import ge, in_, instance_of, le, optional

from fluid_heads.option_checks import finite_number

MOST_SAMPLING_STEPS = 1000
"""Upper limit on the number of steps: a velocity hardly changes over a thousandth of the way."""

Solver = Literal["euler", "heun"]
"""How the differential equation is solved: with one evaluation of the network per step, or with two."""

FlowPrediction = Literal["velocity", "clean"]
"""What the outputs of the network mean."""


@attrs.frozen(kw_only=True)
class FlowOptions:
    """How the flow-matching head is built, trained and sampled.

    Raises `ValueError` or `TypeError` for values out of range or of a wrong type.
    """

    width: int | None = attrs.field(default=None, validator=optional([instance_of(int), ge(1)]))
    """Width of the denoising network; None is the width of the backbone."""

    depth: int = attrs.field(default=6, validator=[instance_of(int), ge(1)])
    """Number of residual blocks."""

    prediction: FlowPrediction = attrs.field(default="velocity", validator=in_(("velocity", "clean")))
    """What the network predicts; the loss compares velocities in either case.

    `velocity` is the usual choice. `clean` predicts the clean token, which suits tokens that are raw pixels: many
    channels that follow few directions, where a velocity is mostly noise in all the others, which a small network can
    not carry (Li and He, arXiv 2511.13720). Measured on made-up tokens of 48 channels along 3 directions, with unit
    variance, after 400 training steps: in a network of width 32 samples left the 3 directions by 0.6 with `velocity`
    and by 0.02 with `clean`, in one of width 96 by 0.04 and 0.015. With `clean` and a token scale of 0.25 both widths
    had learned the distribution within them, too.
    """

    timesteps_per_token: int = attrs.field(default=4, validator=[instance_of(int), ge(1)])
    """How many times, each with noise of its own, one hidden vector is trained on at a time."""

    time_mean: float = attrs.field(default=0.0, validator=finite_number())
    """Mean of the logit of the times trained on (Esser et al., arXiv 2403.03206, section 3.1).

    0 trains most in the middle of the way, more trains more on noisy tokens.
    """

    time_deviation: float = attrs.field(default=1.0, validator=finite_number(above=0.0))
    """Standard deviation of the logit of the times trained on."""

    token_scale: float = attrs.field(default=1.0, validator=finite_number(above=0.0))
    """Factor on tokens before noise is added; samples are divided by it.

    Smaller tokens disappear earlier on the way to noise. Channels that vary together do well with less than 1.
    """

    num_sampling_steps: int = attrs.field(default=50, validator=[instance_of(int), ge(1), le(MOST_SAMPLING_STEPS)])
    """Steps from noise to token, unless a request says otherwise. The solver decides what a step costs."""

    solver: Solver = attrs.field(default="euler", validator=in_(("euler", "heun")))
    """`euler` evaluates the network once per step, `heun` twice, except for the last step."""

    shift: float = attrs.field(default=1.0, validator=finite_number(above=0.0))
    """Where the steps are: evenly spaced times t become shift * t / (1 + (shift - 1) * t) (Esser et al., equation 23).

    1 leaves them evenly spaced, more spends more of the steps on noisy tokens.
    """
