"""Options of the diffusion head; loads no torch."""

from collections.abc import Callable
from typing import Any

import attrs
from attrs.validators import ge, instance_of, le, optional

from fluid_core.errors import did_you_mean
from fluid_heads.option_checks import finite_number, whole_number

NUM_TIMESTEPS = 1000
"""Length of the diffusion process that heads are trained on: timesteps run from 0 to 999 (paper, section 3)."""

SOLVERS = ("ddpm", "ddim", "dpm++")
"""Names of the solvers of the reverse process."""

SPACINGS = ("quadratic", "even")
"""Names of the ways to choose the timesteps that a reverse process of few steps visits."""

SAMPLING_OPTIONS = frozenset(
    {
        "solver",
        "spacing",
        "num_sampling_steps",
        "final_num_sampling_steps",
        "first_timestep",
        "token_limit",
        "guidance_rescale",
        "cuda_graph",
    }
)
"""Options that concern sampling alone: they may change from one generation to the next."""


def _one_of(names: tuple[str, ...]) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    """A validator for names, which proposes the one that was meant."""

    def validate(_instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if not isinstance(value, str):
            raise TypeError(f"'{attribute.name}' must be one of {', '.join(names)}, found {value!r}")
        if value not in names:
            raise ValueError(
                f"'{attribute.name}' must be one of {', '.join(names)}, found '{value}'.{did_you_mean(value, names)}"
            )

    return validate


@attrs.frozen(kw_only=True)
class DiffusionOptions:
    """How the diffusion head is built, trained and sampled.

    Raises `ValueError` or `TypeError` for values out of range or of a wrong type.
    """

    width: int | None = attrs.field(default=None, validator=optional([instance_of(int), ge(1)]))
    """Width of the denoising network; None is the width of the backbone, as in the paper."""

    depth: int = attrs.field(default=6, validator=[instance_of(int), ge(1)])
    """Number of residual blocks (six in the paper)."""

    timesteps_per_token: int = attrs.field(default=4, validator=[instance_of(int), ge(1)])
    """How many timesteps, each with noise of its own, one hidden vector is trained on at a time."""

    token_scale: float = attrs.field(default=1.0, validator=finite_number(above=0.0))
    """Factor on tokens before noise is added; samples are divided by it.

    Channels that vary together, such as the pixels of a patch, show their common part through noise that hides each
    channel alone. Noise predicted at such timesteps hardly depends on the condition, which is then learned slowly.
    Smaller tokens move the process to where the condition matters (Chen, arXiv 2301.10972, section 2.3); one over the
    square root of the number of channels that vary as one is a good start. Latents of an autoencoder do well with 1.
    """

    linear_skip: bool = attrs.field(default=False, validator=instance_of(bool))
    """Whether the network predicts only what the best linear guess of the noise leaves open.

    That guess is made from the noisy token alone. Without it (as the predecessor) the network must pass the noisy
    token through its normalised layers to the last digit before what it learns about the condition can show in the
    loss. With it, short trainings get much further; it is the skip connection of Karras et al. (arXiv 2206.00364,
    section 5) for noise prediction.
    """

    solver: str = attrs.field(default="ddpm", validator=_one_of(SOLVERS))
    """How the reverse process goes from one noise level to the next.

    `ddpm` is ancestral sampling with learned variances (arXiv 2006.11239, 2102.09672), the predecessor's. `ddim`
    (arXiv 2010.02502) and `dpm++`, the second-order multistep DPM-Solver++ (arXiv 2211.01095), draw no noise after
    the start and make no use of the variances.

    Noise makes up for errors of the noisiest steps, which solvers without it carry to the end: they want a well
    trained head. After 150 steps of training on tokens of unit variance, 25 even sampling steps gave 1.06 times the
    right standard deviation with `ddpm`, 2.3 with the others, and 1.2 with those from `first_timestep` 900; after 500
    steps it was 1.0 and 1.15. With `linear_skip` it was 0.9 to 1.02 for all, from 150 steps on.
    """

    spacing: str = attrs.field(default="quadratic", validator=_one_of(SPACINGS))
    """Which timesteps the reverse process visits.

    `quadratic` steps are small near the clean token and large near noise, timesteps growing with the square of their
    number (arXiv 2010.02502, appendix D.2); `even` ones are the predecessor's. What is left open about a token decides
    where steps matter: a spread of s is settled where the noise is about s, and known neighbours leave little open.
    With an exact network 25 quadratic steps of `ddpm` keep 0.98 of a spread of 0.1 and 0.94 of 0.03; 100 even ones
    keep 0.99 and 0.86, 50 even ones 0.95 and 0.67 (docs/heads.md).
    """

    num_sampling_steps: int = attrs.field(default=25, validator=whole_number(at_least=1))
    """Steps of the reverse process, at most one more than `first_timestep`; 100 in the paper.

    Samples of two heads trained on made-up tokens could not be told from those of 1000 steps, by a test that finds a
    stretch of 3% and of 8% (docs/heads.md); with 20 steps one of them was near the limit.
    """

    final_num_sampling_steps: int | None = attrs.field(default=None, validator=whole_number(at_least=1, or_none=True))
    """Where the number of steps falls to, at most `num_sampling_steps`; None spends the same on all tokens.

    It falls linearly from `num_sampling_steps` with the share of an image's tokens that are known before they are drawn
    (DiSA, arXiv 2505.20297). A last token drawn by itself gets this many; of several drawn at once all get some more.
    """

    first_timestep: int = attrs.field(default=980, validator=[whole_number(at_least=0), le(NUM_TIMESTEPS - 1)])
    """Timestep at which the reverse process starts; training covers all of them.

    The cosine schedule leaves next to nothing of the token at the last timesteps: the predicted clean token
    carries the error of the predicted noise times sqrt(1/alpha_bar), which is 2e4 at 999 and 34 at 980. Small
    heads trained for 100 or 200 steps on several made-up distributions of unit variance gave samples whose
    standard deviation was thousands of times too large from 999, and 1 to 6 times from 980. Starting at 980
    from pure noise ignores a signal of 3%: with the exact noise prediction for two clusters of 48 channels, of
    weights 0.9 and 0.1, the larger cluster's share moved by 0.005; from 960 it moved by 0.02.
    """

    token_limit: float | None = attrs.field(default=5.0, validator=finite_number(above=0.0, or_none=True))
    """Limit on the absolute value of the predicted clean token at every sampling step; None sets no limit.

    It takes care of the factor that `first_timestep` leaves, and of few steps: with both, the standard
    deviation of the heads above was 0.94 to 1.4 times the right one at 100, 50 and 25 steps, and up to 2.4 at
    10 (for the one that had learned least, two clusters after 100 steps, 2.5 and 2.8). Tokens of unit
    variance, which tokenizers provide, hardly ever exceed 5; raise or remove the limit for tokens that do.
    """

    guidance_rescale: float = attrs.field(default=0.0, validator=finite_number(at_least=0.0, at_most=1.0))
    """How much of the spread that guidance adds to the predicted noise is taken back, from 0 to 1.

    At 1 the guided noise of a token has the standard deviation over channels of the conditional one (Lin et al.,
    arXiv 2305.08891, section 3.4, who like 0.7 for pictures). It needs tokens of two channels or more.
    """

    cuda_graph: bool = attrs.field(default=False, validator=instance_of(bool))
    """Experimental: record a step of the fused sampler as a CUDA graph and replay it. Without effect elsewhere.

    It has not run on a GPU yet.
    """

    @final_num_sampling_steps.validator
    def _validate_step_budget(self, attribute: "attrs.Attribute[int | None]", value: int | None) -> None:
        if value is not None and value > self.num_sampling_steps:
            raise ValueError(
                f"'{attribute.name}' must be at most num_sampling_steps, {self.num_sampling_steps}, since the number "
                f"of steps falls from there, found {value}"
            )

    # At the later of the two options, when both are known to be numbers.
    @first_timestep.validator
    def _validate_num_sampling_steps(self, attribute: "attrs.Attribute[int]", value: int) -> None:
        if self.num_sampling_steps > value + 1:
            raise ValueError(
                f"'num_sampling_steps' must be from 1 to {value + 1}, since {attribute.name} is {value}, "
                f"found {self.num_sampling_steps}"
            )

    @classmethod
    def predecessor(cls, **others: Any) -> "DiffusionOptions":
        """The predecessor's sampling: even steps from the last timestep on, no limit. `others` are further options."""
        preset = {
            "spacing": "even",
            "num_sampling_steps": 100,
            "first_timestep": NUM_TIMESTEPS - 1,
            "token_limit": None,
        }
        return cls(**{**preset, **others})
