"""The flow-matching head: the distribution of a continuous token as a small rectified flow."""

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from fluid_core.exchange import HeadContext, SamplerSettings, TokenLoss
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import ContinuousTokens
from fluid_heads.continuous_space import continuous_space
from fluid_heads.denoising.network import DenoisingNetwork
from fluid_heads.flow.options import FlowOptions
from fluid_heads.flow.rectified_flow import SMALLEST_DIVISOR, TIMESTEPS_PER_UNIT, logit_normal_times, noisy_token
from fluid_heads.flow.sampler import FlowSampler
from fluid_heads.request_checks import check_targets
from fluid_heads.sampling_overrides import with_overrides


class FlowHead(nn.Module):
    """Moves noise to one token along a learned velocity, given one hidden vector of the backbone.

    The network is that of the diffusion head with half the outputs: there is no variance to predict. Losses and
    samples are float32, also under autocast.
    """

    token_space: ContinuousTokens

    sampling_options = frozenset({"solver", "shift"})
    """Options that can be replaced for one generation."""

    def __init__(self, token_space: ContinuousTokens, condition_width: int, options: FlowOptions | None = None) -> None:
        super().__init__()
        self.token_space = token_space
        self.condition_width = condition_width
        self.options = options or FlowOptions()
        self.network = DenoisingNetwork(
            channels=token_space.channels,
            num_outputs=token_space.channels,
            condition_width=condition_width,
            width=self.options.width or condition_width,
            depth=self.options.depth,
        )

    @classmethod
    def from_context(cls, context: HeadContext, options: FlowOptions | None = None) -> "FlowHead":
        """The head for what core offers a plugin. Raises `IncompatibleComponentsError` for other tokens."""
        return cls(continuous_space(context, "flow-matching"), context.width, options)

    def reset_parameters(self) -> None:
        """Initialise all parameters anew, for example after building on the meta device."""
        self.network.reset_parameters()

    def loss(
        self,
        condition: Float[Tensor, "tokens width"],
        target: Shaped[Tensor, "tokens *token"],
        *,
        random: KeyedRandom,
    ) -> TokenLoss:
        """Squared error of the velocity per channel: the mean over `timesteps_per_token` times, drawn logit-normal.

        Raises `InvalidTokensError` for a target that is not of the head's token space, and `InvalidRequestError` unless
        there is one of everything for each token.
        """
        self.token_space.validate(target)
        check_targets(condition, target, random, width=self.condition_width)
        options = self.options
        times = logit_normal_times(
            random, options.timesteps_per_token, mean=options.time_mean, deviation=options.time_deviation
        )
        noise = random.normal((options.timesteps_per_token, self.token_space.channels))
        return self.loss_at(condition, target, times=times, noise=noise)

    def loss_at(
        self,
        condition: Float[Tensor, "tokens width"],
        target: Float[Tensor, "tokens channels"],
        *,
        times: Float[Tensor, "tokens draws"],
        noise: Float[Tensor, "tokens draws channels"],
    ) -> TokenLoss:
        """The loss for given times (0 to 1) and noise: what `loss` computes once it has drawn them.

        The condition is projected once and serves all draws of its token. A predicted clean token is compared by the
        velocities (x_t - x0) / t that it and the true one imply, with a divisor of 0.05 at least.
        """
        clean = (self.options.token_scale * target.float())[:, None].expand_as(noise)
        condition_vectors = self.network.project_condition(condition)
        conditioning = self.network.embed_timesteps(TIMESTEPS_PER_UNIT * times) + condition_vectors[:, None]
        output = self.network(noisy_token(clean, noise, times), conditioning)
        if self.options.prediction == "velocity":
            error = output - (noise - clean)
        else:
            error = (output - clean) / times.clamp(min=SMALLEST_DIVISOR)[..., None]
        mse = error.square().mean(dim=(1, 2))
        return TokenLoss(total=mse, parts={"mse": mse.detach()})

    def sampler(self, settings: SamplerSettings) -> FlowSampler:
        """A sampler with the present weights, for `settings.num_steps` steps or the number in the options.

        `settings.options` may replace `solver` and `shift`. Raises `InvalidRequestError` for other options, for fewer
        steps than one or more than 1000, and for the fused backend where there is none.
        """
        options = with_overrides(self.options, settings, adjustable=self.sampling_options)
        return FlowSampler(
            self.network,
            condition_width=self.condition_width,
            num_steps=options.num_sampling_steps if settings.num_steps is None else settings.num_steps,
            options=options,
            backend=settings.backend,
        )
