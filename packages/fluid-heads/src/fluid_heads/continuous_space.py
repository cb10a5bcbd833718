"""The token space of a head for vectors."""

from fluid_core.errors import IncompatibleComponentsError
from fluid_core.exchange import HeadContext
from fluid_core.token_space import ContinuousTokens


def continuous_space(context: HeadContext, head: str) -> ContinuousTokens:
    """The tokens that a head is built for. Raises `IncompatibleComponentsError`, naming the head, for other kinds."""
    space = context.token_space
    if not isinstance(space, ContinuousTokens):
        raise IncompatibleComponentsError(
            f"The {head} head predicts continuous tokens, found {space.kind} ones. "
            "Choose a tokenizer that produces vectors, or a head for ids such as 'softmax'."
        )
    return space
