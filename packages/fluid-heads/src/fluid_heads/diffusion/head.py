"""The diffusion head: the distribution of a continuous token as a small diffusion model (paper, section 3)."""

import attrs
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.exchange import HeadContext, SamplerSettings, TokenLoss
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import ContinuousTokens
from fluid_heads.continuous_space import continuous_space
from fluid_heads.denoising.network import DenoisingNetwork
from fluid_heads.diffusion.gaussian_diffusion import GaussianDiffusion
from fluid_heads.diffusion.noise_schedule import NoiseSchedule
from fluid_heads.diffusion.options import NUM_TIMESTEPS, SAMPLING_OPTIONS, DiffusionOptions
from fluid_heads.diffusion.sampler import DiffusionSampler
from fluid_heads.request_checks import check_targets
from fluid_heads.sampling_overrides import with_overrides


class DiffusionHead(nn.Module):
    """Denoises one token, given one hidden vector of the backbone: the head of Fluid's continuous models.

    The network is the predecessor's (MAR): residual AdaLN blocks that predict the noise in the token and the
    variance of the reverse step, trained with the squared error of the noise plus the variational bound of
    the variance. Losses and samples are float32, also under autocast.
    """

    token_space: ContinuousTokens

    def __init__(
        self, token_space: ContinuousTokens, condition_width: int, options: DiffusionOptions | None = None
    ) -> None:
        super().__init__()
        self.token_space = token_space
        self.condition_width = condition_width
        self.options = options or DiffusionOptions()
        self.network = DenoisingNetwork(
            channels=token_space.channels,
            num_outputs=2 * token_space.channels,
            condition_width=condition_width,
            width=self.options.width or condition_width,
            depth=self.options.depth,
        )
        self._diffusion = GaussianDiffusion(NoiseSchedule.cosine())

    @classmethod
    def from_context(cls, context: HeadContext, options: DiffusionOptions | None = None) -> "DiffusionHead":
        """The head for what core offers a plugin. Raises `IncompatibleComponentsError` for other tokens."""
        return cls(continuous_space(context, "diffusion"), context.width, options)

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
        """`mse + vb` of each token, the mean over `timesteps_per_token` timesteps drawn uniformly.

        `mse` is per channel, `vb` in bits per channel. Raises `InvalidTokensError` for a target that is not
        of the head's token space, and `InvalidRequestError` unless there is one of everything for each token.
        """
        self.token_space.validate(target)
        check_targets(condition, target, random, width=self.condition_width)
        num_draws = self.options.timesteps_per_token
        timesteps = random.integers(NUM_TIMESTEPS, (num_draws,))
        noise = random.normal((num_draws, self.token_space.channels))
        return self.loss_at(condition, target, timesteps=timesteps, noise=noise)

    def loss_at(
        self,
        condition: Float[Tensor, "tokens width"],
        target: Float[Tensor, "tokens channels"],
        *,
        timesteps: Int[Tensor, "tokens draws"],
        noise: Float[Tensor, "tokens draws channels"],
    ) -> TokenLoss:
        """The loss for given timesteps (0 to 999) and noise: what `loss` computes once it has drawn them.

        The condition is projected once and serves all draws of its token.
        """
        num_draws = timesteps.shape[1]
        clean = (self.options.token_scale * target.float())[:, None].expand(-1, num_draws, -1)
        condition_vectors = self.network.project_condition(condition)
        conditioning = self.network.embed_timesteps(timesteps) + condition_vectors[:, None]
        at = self._diffusion.coefficients(timesteps)
        x = at.noisy(clean, noise)
        output = self.network(x, conditioning)
        if self.options.linear_skip:
            output = output + functional.pad(at.linear_noise(x, self.options.token_scale), (0, self.network.channels))
        mse, vb = self._diffusion.loss_terms(output, clean=clean, noise=noise, steps=timesteps)
        mse, vb = mse.mean(dim=1), vb.mean(dim=1)
        return TokenLoss(total=mse + vb, parts={"mse": mse.detach(), "vb": vb.detach()})

    @property
    def sampling_options(self) -> frozenset[str]:
        """The options that `SamplerSettings.options` may replace for one generation."""
        return SAMPLING_OPTIONS

    def sampler(self, settings: SamplerSettings) -> DiffusionSampler:
        """A sampler with the present weights, and with the options of `settings` in place of the head's own.

        `settings.num_steps` is another name of the option `num_sampling_steps`, and wins over it. Raises
        `InvalidRequestError` for options that can not be replaced, values that `DiffusionOptions` refuses, alone or
        together, and a backend that can not run here.
        """
        if settings.num_steps is not None:
            settings = attrs.evolve(settings, options={**settings.options, "num_sampling_steps": settings.num_steps})
        return DiffusionSampler(
            self.network,
            condition_width=self.condition_width,
            options=with_overrides(self.options, settings, adjustable=self.sampling_options),
            backend=settings.backend,
        )
