"""What every head of this package refuses, in one place, so that all of them say it alike."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplingRequest
from fluid_core.keyed_random import KeyedRandom

HIGHEST_TEMPERATURE = 1e4
"""Far beyond any use, and low enough for float32 to hold what a hundred steps make of it."""


def check_targets(condition: Float[Tensor, "tokens width"], target: Tensor, random: KeyedRandom, *, width: int) -> None:
    """Raise `InvalidRequestError` unless hidden vectors, tokens and rows of random numbers are as many, and fit."""
    counts = (condition.shape[0], target.shape[0], random.num_rows)
    if len(set(counts)) != 1 or condition.shape[1] != width:
        raise InvalidRequestError(
            f"Expected as many hidden vectors of width {width} as tokens and rows of random numbers, found {counts[0]} "
            f"of width {condition.shape[1]} for {counts[1]} tokens and {counts[2]} rows."
        )


def check_request(condition: Float[Tensor, "tokens width"], request: SamplingRequest, *, width: int) -> None:
    """Raise `InvalidRequestError` if the request does not fit the hidden vectors, or those not the head.

    `width` is the one the head was built for. Whether the hidden vectors and the guidance are finite is looked at on
    a CPU alone: elsewhere it would wait for the device.
    """
    num_tokens = condition.shape[0]
    if condition.shape[1] != width:
        raise InvalidRequestError(
            f"Expected hidden vectors of width {width}, found {condition.shape[1]}. "
            "The head was built for another backbone."
        )
    if not 0.0 <= request.temperature <= HIGHEST_TEMPERATURE:
        most = f", and {HIGHEST_TEMPERATURE:g} at most" if HIGHEST_TEMPERATURE < request.temperature < math.inf else ""
        raise InvalidRequestError(
            f"Expected a temperature of 0 or more{most}, found {request.temperature}. "
            "1 samples the learned distribution, less makes samples more alike; 0 draws nothing but the noise that "
            "ancestral sampling of a diffusion head starts from."
        )
    if request.random.num_rows != num_tokens:
        raise InvalidRequestError(
            f"Expected a random source with one row per token, found {request.random.num_rows} rows "
            f"for {num_tokens} tokens. Make one with a key for every token."
        )
    guidance = request.guidance
    if guidance is not None and not isinstance(guidance.negative, Tensor):
        raise InvalidRequestError(
            "Expected guidance with hidden vectors computed without the text (or with a negative prompt), found "
            f"{type(guidance.negative).__name__}: there is nothing to move away from. Compute them, or leave guidance "
            "out."
        )
    if guidance is not None and (
        guidance.negative.shape != condition.shape or tuple(guidance.scale.shape) != (num_tokens,)
    ):
        raise InvalidRequestError(
            f"Expected guidance with negative vectors of shape {tuple(condition.shape)} and one scale per token, "
            f"found shapes {tuple(guidance.negative.shape)} and {tuple(guidance.scale.shape)}."
        )
    if condition.device.type != "cpu":
        return
    _check_finite(condition, "hidden vectors")
    if guidance is not None:
        _check_finite(guidance.negative, "hidden vectors without the text")
        _check_finite(guidance.scale[:, None], "guidance scales")


def _check_finite(values: Float[Tensor, "rows columns"], what: str) -> None:
    """Raise `InvalidRequestError` if a row holds an infinite value or no number."""
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        num_wrong = int((~finite.all(dim=1)).sum())
        raise InvalidRequestError(
            f"Expected finite {what}, found {num_wrong} of {len(values)} rows with infinite values or NaN. "
            "No token can be drawn from them. Look at the weights of the backbone, its text features and its precision."
        )
