"""Softmax over a codebook: cross-entropy to train with; samplers are in the modules beside."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.errors import IncompatibleComponentsError, InvalidRequestError
from fluid_core.exchange import HeadContext, SamplerBackend, SamplerSettings, TokenLoss
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import DiscreteTokens
from fluid_heads.kernels import uses_kernels
from fluid_heads.precision import without_autocast
from fluid_heads.request_checks import check_targets
from fluid_heads.sampling_overrides import with_overrides
from fluid_heads.softmax.fused_sampler import FusedSoftmaxSampler
from fluid_heads.softmax.options import SAMPLING_OPTIONS, SoftmaxOptions
from fluid_heads.softmax.sampler import SoftmaxSampler

if TYPE_CHECKING:
    from fluid_heads.softmax.cuda_sampler import CudaSoftmaxSampler


class SoftmaxHead(nn.Module):
    """A linear layer and a softmax: the distribution of one id given one hidden vector (paper, section 3).

    With `options.tied_weights` the output matrix is `token_embedding.weight`, one row per id; the head
    registers only a bias of its own. The embedding is held outside the module's registry, so that it is
    saved, counted and updated once, by its owner; a deep copy of a model that contains both points to the
    copied embedding. Without tying the head owns a matrix, and `token_embedding` is not used.

    Logits and losses are computed in float32, also under autocast. Raises `IncompatibleComponentsError` if
    the token space is not discrete, or if weights can not be tied to what `token_embedding` is.
    """

    token_space: DiscreteTokens

    def __init__(
        self,
        token_space: DiscreteTokens,
        condition_width: int,
        options: SoftmaxOptions | None = None,
        *,
        token_embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.token_space = token_space
        self.condition_width = condition_width
        self.options = options or SoftmaxOptions()
        vocabulary_size = token_space.vocabulary_size
        # A module inside a tuple is not registered, and a deep copy still follows it.
        self._tied_embedding: tuple[nn.Module, ...] = ()
        self.weight: nn.Parameter | None
        if self.options.tied_weights:
            found = getattr(token_embedding, "weight", None)
            expected = (vocabulary_size, condition_width)
            if token_embedding is None or not isinstance(found, Tensor) or tuple(found.shape) != expected:
                what = f"a weight of shape {tuple(found.shape)}" if isinstance(found, Tensor) else "no weight"
                raise IncompatibleComponentsError(
                    f"A softmax head with tied weights expects a token embedding whose weight has shape {expected} "
                    f"(vocabulary, width), found {type(token_embedding).__name__} with {what}. "
                    "Pass the embedding of the backbone, or set tied_weights to false."
                )
            self._tied_embedding = (token_embedding,)
            self.register_parameter("weight", None)
        else:
            self.weight = nn.Parameter(torch.empty(vocabulary_size, condition_width))
        self.bias = nn.Parameter(torch.empty(vocabulary_size))
        self.reset_parameters()

    @classmethod
    def from_context(cls, context: HeadContext, options: SoftmaxOptions | None = None) -> "SoftmaxHead":
        """The head for what core offers a plugin. Raises `IncompatibleComponentsError` for other tokens."""
        space = context.token_space
        if not isinstance(space, DiscreteTokens):
            raise IncompatibleComponentsError(
                f"The softmax head predicts discrete tokens, found {space.kind} ones. "
                "Choose a tokenizer that produces ids, or a head for continuous tokens such as 'diffusion'."
            )
        return cls(space, context.width, options, token_embedding=context.token_embedding)

    def reset_parameters(self) -> None:
        """Initialise the head's own parameters: N(0, 0.02) for a matrix of its own, zero for the bias."""
        if self.weight is not None:
            nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    @property
    def output_weight(self) -> Float[Tensor, "vocabulary width"]:
        """The output matrix: the embedding's if weights are tied, else the head's own."""
        weight = self._tied_embedding[0].weight if self.weight is None else self.weight
        assert isinstance(weight, Tensor)
        return weight

    def logits(self, condition: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens vocabulary"]:
        """Unnormalised log-probabilities of every id, in float32."""
        with without_autocast(condition.device):
            return functional.linear(condition.float(), self.output_weight.float(), self.bias.float())

    def loss(
        self,
        condition: Float[Tensor, "tokens width"],
        target: Shaped[Tensor, "tokens *token"],
        *,
        random: KeyedRandom,
    ) -> TokenLoss:
        """Cross-entropy of each token in nats, unreduced.

        `parts["cross_entropy"]` is the one without label smoothing. Raises `InvalidTokensError` for a target
        that is no id of the vocabulary, and `InvalidRequestError` unless there is one of everything for each token.
        """
        self.token_space.validate(target)
        check_targets(condition, target, random, width=self.output_weight.shape[1])
        logits = self.logits(condition)
        plain = functional.cross_entropy(logits, target, reduction="none")
        total = plain
        if self.options.label_smoothing > 0.0:
            total = functional.cross_entropy(
                logits, target, reduction="none", label_smoothing=self.options.label_smoothing
            )
        return TokenLoss(total=total, parts={"cross_entropy": plain.detach()})

    @property
    def sampling_options(self) -> frozenset[str]:
        """Options that one generation may change: `top_k` and `top_p`."""
        return SAMPLING_OPTIONS

    def sampler(self, settings: SamplerSettings) -> "SoftmaxSampler | FusedSoftmaxSampler | CudaSoftmaxSampler":
        """A sampler: the fused one unless the vocabulary is limited by `top_k` or `top_p`, or the reference asked for.

        Weights must not change while it is in use. Raises `InvalidRequestError` for a number of steps other than 1,
        since an id is drawn at once, for options out of range, and if `fused` is asked for together with a limit.
        """
        options, limited = self._checked(settings)
        if settings.backend is SamplerBackend.REFERENCE or limited:
            return SoftmaxSampler(self.logits, condition_width=self.condition_width, options=options)
        if uses_kernels(self.bias.device.type):
            # Triton is loaded only where it is used.
            from fluid_heads.softmax.cuda_sampler import CudaSoftmaxSampler

            return CudaSoftmaxSampler(self.output_weight, self.bias)
        return FusedSoftmaxSampler(self.output_weight, self.bias)

    def confident_sampler(self, settings: SamplerSettings) -> SoftmaxSampler | FusedSoftmaxSampler:
        """A sampler that also tells the log-probability of each id it draws: the fused one where `sampler` takes it.

        The CUDA kernels never hold the logits of a token together, so that on such a device it is the reference. Raises
        `InvalidRequestError` where `sampler` does, and if `fused` is asked for there.
        """
        options, limited = self._checked(settings)
        kernels = uses_kernels(self.bias.device.type)
        if settings.backend is SamplerBackend.FUSED and kernels:
            raise InvalidRequestError(
                "The fused sampler of the softmax head can not tell its confidence on this device: ask for the backend "
                "'auto' or 'reference', or for an order that does not need it."
            )
        if settings.backend is SamplerBackend.REFERENCE or limited or kernels:
            return SoftmaxSampler(self.logits, condition_width=self.condition_width, options=options)
        return FusedSoftmaxSampler(self.output_weight, self.bias)

    def _checked(self, settings: SamplerSettings) -> tuple[SoftmaxOptions, bool]:
        """The options of one generation, and whether they limit the vocabulary. Raises `InvalidRequestError`."""
        if settings.num_steps not in (None, 1):
            raise InvalidRequestError(
                f"The softmax head draws a token in one step, found num_steps={settings.num_steps}. "
                "Leave the head's number of steps at its default."
            )
        options = with_overrides(self.options, settings, adjustable=SAMPLING_OPTIONS)
        limited = options.top_k is not None or options.top_p is not None
        if settings.backend is SamplerBackend.FUSED and limited:
            raise InvalidRequestError(
                "The fused sampler of the softmax head draws from the whole vocabulary, found "
                f"top_k={options.top_k} and top_p={options.top_p}. Ask for the backend 'auto' or 'reference', or leave "
                "both at None."
            )
        return options, limited
