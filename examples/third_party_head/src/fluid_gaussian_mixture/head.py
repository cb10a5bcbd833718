"""A mixture of diagonal Gaussians: one linear layer, an exact likelihood, and a token drawn at once."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.errors import IncompatibleComponentsError, InvalidRequestError
from fluid_core.exchange import HeadContext, SamplerSettings, SamplingRequest, TokenLoss
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import ContinuousTokens
from fluid_gaussian_mixture.plugin import GaussianMixtureOptions

# Keeps the logarithm of a uniform number finite; it is below the smallest one that is drawn, apart from 0.
_SMALLEST_UNIFORM = 2.0**-25


class GaussianMixtureHead(nn.Module):
    """The distribution of a continuous token as a Gaussian mixture (GIVT, arXiv 2312.02116, section 3).

    A linear layer gives, for each of the components, a logit and per channel a mean and the argument of the softplus
    that makes the standard deviation. Everything is float32. Raises `IncompatibleComponentsError` for tokens that are
    not continuous.
    """

    token_space: ContinuousTokens

    def __init__(self, context: HeadContext, options: GaussianMixtureOptions | None = None) -> None:
        super().__init__()
        if not isinstance(context.token_space, ContinuousTokens):
            raise IncompatibleComponentsError(
                f"The gaussian-mixture head predicts continuous tokens, found {context.token_space.kind} ones. "
                "Choose a tokenizer that produces vectors."
            )
        self.token_space = context.token_space
        self.options = options or GaussianMixtureOptions()
        self.projection = nn.Linear(context.width, self.options.num_components * (1 + 2 * self.token_space.channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Components start equally likely, about as wide as the tokens, with means that differ."""
        nn.init.normal_(self.projection.weight, std=0.02)
        nn.init.zeros_(self.projection.bias)
        _, means, _ = self._split(self.projection.bias.detach())
        nn.init.normal_(means, std=0.5)

    def loss(self, condition: Tensor, target: Tensor, *, random: KeyedRandom) -> TokenLoss:  # noqa: ARG002
        """Exact negative log-likelihood of each token, in nats per channel.

        Per channel, so that learning rates and clipping mean the same for tokens of any size; `parts["nats"]` is that
        of the whole token. `condition` is `tokens width`, `target` `tokens channels`. Raises `InvalidTokensError` for
        a target that is not of the head's token space.
        """
        self.token_space.validate(target)
        log_weights, means, scales = self.mixture(self.parameters_of(condition))
        standardised = (target.float()[:, None] - means) / scales
        log_densities = -0.5 * (standardised.square() + math.log(2.0 * math.pi)) - scales.log()
        nats = -torch.logsumexp(log_weights + log_densities.sum(dim=-1), dim=-1)
        return TokenLoss(total=nats / self.token_space.channels, parts={"nats": nats.detach()})

    def sampler(self, settings: SamplerSettings) -> "GaussianMixtureSampler":
        """A sampler. Raises `InvalidRequestError` for a number of steps: a token is drawn at once."""
        if settings.num_steps not in (None, 1):
            raise InvalidRequestError(
                f"The gaussian-mixture head draws a token in one step, found num_steps={settings.num_steps}. "
                "Leave the head's number of steps at its default."
            )
        return GaussianMixtureSampler(self)

    def parameters_of(self, condition: Tensor) -> Tensor:
        """What the layer makes of hidden vectors `tokens width`: `tokens components*(1 + 2*channels)`."""
        with torch.autocast(condition.device.type, enabled=False):
            return functional.linear(condition.float(), self.projection.weight.float(), self.projection.bias.float())

    def mixture(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights `tokens components`, and means and standard deviations `tokens components channels`."""
        logits, means, widths = self._split(parameters)
        return logits.log_softmax(dim=-1), means, self.options.min_scale + functional.softplus(widths)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        num_components, channels = self.options.num_components, self.token_space.channels
        sizes = [num_components, num_components * channels, num_components * channels]
        logits, means, widths = parameters.split_with_sizes(sizes, dim=-1)
        shape = (*parameters.shape[:-1], num_components, channels)
        return logits, means.view(shape), widths.view(shape)


class GaussianMixtureSampler:
    """Draws a component, then a vector from it.

    Temperature multiplies the standard deviations and divides the logits, so that temperature 0 is the mean of the
    likeliest component. Guidance is a choice of this package, simpler than GIVT's density-based one: what the linear
    layer gives for logits, means and widths is extrapolated from the negative to the conditional hidden vector. Scale
    1 is the conditional mixture itself, scale 0 the negative one, and every scale gives a proper mixture.
    """

    def __init__(self, head: GaussianMixtureHead) -> None:
        self._head = head

    @torch.no_grad()
    def __call__(self, condition: Tensor, request: SamplingRequest) -> Tensor:
        """Tokens `tokens channels` for hidden vectors `tokens width`.

        Raises `InvalidRequestError` unless the temperature is 0 or more.
        """
        if not 0.0 <= request.temperature < math.inf:
            raise InvalidRequestError(
                f"Expected a temperature of 0 or more, found {request.temperature}. "
                "1 samples the learned distribution, 0 takes the mean of its likeliest component."
            )
        parameters = self._head.parameters_of(condition)
        if request.guidance is not None:
            negative = self._head.parameters_of(request.guidance.negative)
            parameters = torch.lerp(negative, parameters, request.guidance.scale.float()[:, None])
        log_weights, means, scales = self._head.mixture(parameters)
        uniform = request.random.uniform((log_weights.shape[1],)).clamp(min=_SMALLEST_UNIFORM)
        gumbel = -torch.log(-torch.log(uniform))
        chosen = (log_weights + request.temperature * gumbel).argmax(dim=-1)
        row = torch.arange(len(chosen), device=chosen.device)
        noise = request.random.normal((means.shape[-1],))
        return means[row, chosen] + request.temperature * scales[row, chosen] * noise
