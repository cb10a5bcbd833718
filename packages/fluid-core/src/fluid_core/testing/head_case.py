"""What the tests of a head start from: the head, a small problem to train it on, and a way to draw samples."""

from typing import Any, ClassVar

import attrs
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from fluid_core.components import HeadComponent
from fluid_core.exchange import Guidance, HeadContext, SamplerSettings, SamplingRequest, TokenLoss
from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import Head
from fluid_core.testing import example_tokens as examples
from fluid_core.testing.conformance_suite import ConformanceSuite
from fluid_core.testing.global_random_state import seeded
from fluid_core.token_space import TokenSpace

_NUM_CASES = 4
_SHARE_OF_SURPRISES = 0.2


@attrs.frozen(kw_only=True, eq=False)
class TokenBatch:
    """Hidden vectors, the tokens that go with them, and the keys of the random numbers for each."""

    condition: Float[Tensor, "tokens width"]
    target: Shaped[Tensor, "tokens *token"]
    keys: Int[Tensor, "tokens"]

    def rows(self, index: Tensor) -> "TokenBatch":
        """The selected rows."""
        return TokenBatch(condition=self.condition[index], target=self.target[index], keys=self.keys[index])


class HeadCase(ConformanceSuite):
    """Supplies the head and what its tests need. The tests themselves are in the subclasses."""

    kind = "head"
    supplier = "head"

    width: int = 16
    """Length of the hidden vectors."""

    learning_rate: float = 1e-2
    num_training_steps: int = 30
    """Steps of Adam, 64 tokens each, on a problem that a linear layer can solve. Raise it for a head that starts
    slowly."""

    num_sampling_steps: int | None = None
    """Number of steps asked of the sampler; None is the head's default. Lower it if sampling is slow."""

    tolerance: float = 1e-4
    """How far losses and samples may differ when only the batch around them changes."""

    _trained_heads: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Every class trains heads of its own."""
        super().__init_subclass__(**arguments)
        cls._trained_heads = {}

    def head(self, context: HeadContext) -> Head:
        """The head to test, built for `context` with fresh weights (drawn from torch's global generator).

        By default the installed head called `component`.
        """
        built: Head = self.build(context)
        return built

    def token_space(self) -> TokenSpace:
        """The space the head is built for; by default a small one of the kind that `component` declares."""
        declared = self.installed.component
        assert isinstance(declared, HeadComponent)
        return examples.example_token_space(declared.predicts)

    def example_tokens(self, count: int, *, generator: torch.Generator) -> Shaped[Tensor, "count *token"]:
        """Random tokens of `token_space`. Define it for a token space of your own."""
        return examples.example_tokens(self.token_space(), count, generator=generator)

    def invalid_tokens(self, valid: Shaped[Tensor, "count *token"]) -> dict[str, Tensor]:
        """Tensors that are no tokens of `token_space`, each under a reason. Define it for a space of your own."""
        return examples.invalid_tokens(self.token_space(), valid)

    def sampling_option_values(self, head: Head) -> dict[str, Any]:
        """Values of the options that `head.sampling_options` names, as the head was built with.

        By default those of `head.options`. Define it for a head that keeps them elsewhere.
        """
        options, names = getattr(head, "options", None), getattr(head, "sampling_options", ())
        return {name: getattr(options, name) for name in names if hasattr(options, name)}

    def _context(self) -> HeadContext:
        space = self.token_space()
        with seeded(5):
            embedding = space.embedding(self.width)
        return HeadContext(token_space=space, width=self.width, token_embedding=embedding)

    def _head(self, context: HeadContext | None = None, *, seed: int = 0) -> Any:
        with seeded(seed):
            return self.head(context or self._context())

    def _batch(self, count: int, *, seed: int = 0) -> TokenBatch:
        """A problem with four cases: the hidden vector says which, and the token is that of the case, four times of
        five.
        """
        fixed, generator = torch.Generator().manual_seed(77), torch.Generator().manual_seed(seed)
        vectors = torch.randn(_NUM_CASES, self.width, generator=fixed)
        answers = self.example_tokens(_NUM_CASES, generator=fixed)
        case = torch.randint(_NUM_CASES, (count,), generator=generator)
        target = answers[case].clone()
        surprising = torch.rand(count, generator=generator) < _SHARE_OF_SURPRISES
        target[surprising] = self.example_tokens(count, generator=generator)[surprising]
        keys = torch.randint(2**62, (count,), generator=generator)
        return TokenBatch(condition=vectors[case], target=target, keys=keys)

    def _trained(self, context: HeadContext | None = None) -> Any:
        """A head after brief training: many heads start from weights that are zero and ignore what they are given.

        Without `context` it is shared by the tests of a class, which leave its weights alone.
        """
        if context is None and self.component in self._trained_heads:
            return self._trained_heads[self.component]
        own_context = context or self._context()
        head = self._head(own_context)
        self._train(head, own_context)
        if context is None:
            self._trained_heads[self.component] = head
        return head

    def _train(self, head: Any, context: HeadContext) -> None:
        parameters = {id(p): p for p in [*head.parameters(), *context.token_embedding.parameters()]}
        optimizer = torch.optim.Adam(parameters.values(), lr=self.learning_rate)
        for step in range(self.num_training_steps):
            optimizer.zero_grad()
            self._loss(head, self._batch(64, seed=1000 + step)).total.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def _loss(self, head: Any, batch: TokenBatch) -> TokenLoss:
        loss: TokenLoss = head.loss(batch.condition, batch.target, random=KeyedRandom(batch.keys))
        return loss

    def _draw(self, head: Any, batch: TokenBatch, **request: Any) -> Tensor:
        """Samples for the conditions of `batch`; `request` are further fields of `SamplingRequest`."""
        sampler = head.sampler(SamplerSettings(num_steps=self.num_sampling_steps))
        drawn: Tensor = sampler(batch.condition, SamplingRequest(random=KeyedRandom(batch.keys), **request))
        return drawn

    def _guidance(self, batch: TokenBatch, scale: Tensor) -> Guidance:
        """Guidance away from the hidden vectors of other cases."""
        return Guidance(negative=batch.condition.roll(1, dims=0), scale=scale)
