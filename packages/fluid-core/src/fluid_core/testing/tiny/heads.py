"""Two linear heads: a normal distribution for vectors, a softmax for ids."""

import math

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.errors import IncompatibleComponentsError, InvalidRequestError
from fluid_core.exchange import HeadContext, SamplerSettings, SamplingRequest, TokenLoss
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import ContinuousTokens, DiscreteTokens, TokenSpace


class TinyGaussianHead(nn.Module):
    """A normal distribution whose mean is linear in the hidden vector, with one standard deviation per channel.

    `TinyGaussianHead` itself is a function from `HeadContext` to a head, as `FluidModel` takes it. Raises
    `IncompatibleComponentsError` for tokens that are not continuous.
    """

    def __init__(self, context: HeadContext) -> None:
        super().__init__()
        space = context.token_space
        if not isinstance(space, ContinuousTokens):
            raise IncompatibleComponentsError(f"Expected continuous tokens, found {space.kind} ones.")
        self.token_space: TokenSpace = space
        self.mean = nn.Linear(context.width, space.channels)
        self.log_std = nn.Parameter(torch.zeros(space.channels))

    def loss(
        self,
        condition: Float[Tensor, "tokens width"],
        target: Shaped[Tensor, "tokens *token"],
        *,
        random: KeyedRandom,  # noqa: ARG002  (nothing is drawn)
    ) -> TokenLoss:
        """Negative log-likelihood in nats, without its constant: one number per token, never a mean over them."""
        self.token_space.validate(target)
        squares = ((target - self.means(condition)) / self.log_std.exp()).square()
        return TokenLoss(total=(squares / 2 + self.log_std).sum(dim=1), parts={"squares": squares.detach().sum(dim=1)})

    def means(self, condition: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens channels"]:
        """Means of the tokens, in float32, under autocast as well."""
        with torch.autocast(condition.device.type, enabled=False):
            means: Tensor = self.mean(condition.float())
            return means

    def sampler(self, settings: SamplerSettings) -> "TinyGaussianSampler":
        """A sampler. Raises `InvalidRequestError` for a number of steps other than 1."""
        _refuse_steps(settings)
        return TinyGaussianSampler(self)


class TinyGaussianSampler:
    """Mean plus noise times temperature; guidance mixes the means."""

    def __init__(self, head: TinyGaussianHead) -> None:
        self._head = head

    @torch.no_grad()
    def __call__(
        self, condition: Float[Tensor, "tokens width"], request: SamplingRequest
    ) -> Float[Tensor, "tokens channels"]:
        """One vector for each hidden vector. Raises `InvalidRequestError` for a negative temperature."""
        check_temperature(request.temperature)
        means = self._head.means(condition)
        if request.guidance is not None:
            negative = self._head.means(request.guidance.negative)
            means = negative + request.guidance.scale[:, None] * (means - negative)
        noise = request.random.normal((means.shape[1],))
        return means + request.temperature * self._head.log_std.exp() * noise


class TinyCategoricalHead(nn.Module):
    """A softmax over ids whose logits are linear in the hidden vector.

    Raises `IncompatibleComponentsError` for tokens that are not discrete.
    """

    def __init__(self, context: HeadContext) -> None:
        super().__init__()
        space = context.token_space
        if not isinstance(space, DiscreteTokens):
            raise IncompatibleComponentsError(f"Expected discrete tokens, found {space.kind} ones.")
        self.token_space: TokenSpace = space
        self.output = nn.Linear(context.width, space.vocabulary_size)

    def loss(
        self,
        condition: Float[Tensor, "tokens width"],
        target: Shaped[Tensor, "tokens *token"],
        *,
        random: KeyedRandom,  # noqa: ARG002  (nothing is drawn)
    ) -> TokenLoss:
        """Cross-entropy in nats."""
        self.token_space.validate(target)
        return TokenLoss(total=functional.cross_entropy(self.logits(condition), target, reduction="none"))

    def logits(self, condition: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens vocabulary"]:
        """Logits in float32, under autocast as well."""
        with torch.autocast(condition.device.type, enabled=False):
            logits: Tensor = self.output(condition.float())
            return logits

    def sampler(self, settings: SamplerSettings) -> "TinyCategoricalSampler":
        """A sampler. Raises `InvalidRequestError` for a number of steps other than 1."""
        _refuse_steps(settings)
        return TinyCategoricalSampler(self)

    def confident_sampler(self, settings: SamplerSettings) -> "TinyCategoricalSampler":
        """The same sampler: it can tell how sure it is. Raises `InvalidRequestError` as `sampler` does."""
        return self.sampler(settings)


class TinyCategoricalSampler:
    """The id with the largest logit plus Gumbel noise times temperature; guidance mixes the logits."""

    def __init__(self, head: TinyCategoricalHead) -> None:
        self._head = head

    @torch.no_grad()
    def __call__(self, condition: Float[Tensor, "tokens width"], request: SamplingRequest) -> Int[Tensor, "tokens"]:
        """One id for each hidden vector. Raises `InvalidRequestError` for a negative temperature."""
        return self.with_confidence(condition, request)[0]

    @torch.no_grad()
    def with_confidence(
        self, condition: Float[Tensor, "tokens width"], request: SamplingRequest
    ) -> tuple[Int[Tensor, "tokens"], Float[Tensor, "tokens"]]:
        """The same ids, with the log-probability of each at temperature 1."""
        check_temperature(request.temperature)
        logits = self._head.logits(condition)
        if request.guidance is not None:
            negative = self._head.logits(request.guidance.negative)
            logits = negative + request.guidance.scale[:, None] * (logits - negative)
        # Kept off zero: minus infinity times temperature 0 is not a number.
        uniform = request.random.uniform((logits.shape[1],)).clamp(min=1e-9)
        ids = (logits - request.temperature * torch.log(-torch.log(uniform))).argmax(dim=1)
        return ids, logits.log_softmax(dim=1).gather(1, ids[:, None])[:, 0]


def check_temperature(temperature: float) -> None:
    """Raise `InvalidRequestError` unless `temperature` is a number of 0 or more."""
    if not (math.isfinite(temperature) and temperature >= 0):
        raise InvalidRequestError(f"Expected a temperature of 0 or more, found {temperature}.")


def _refuse_steps(settings: SamplerSettings) -> None:
    if settings.num_steps not in (None, 1):
        raise InvalidRequestError(
            f"Expected no number of head steps, found {settings.num_steps}: this head draws a token at once."
        )
