"""Floating-point operations of training on one image, counted while the real model runs without numbers.

A multiply-add is two operations, and matrix products alone count: those of linear layers, of attention (causal
attention as the whole square) and of convolutions. Tokenizer and text encoder, which do not train, are left out, as is
what activation checkpointing computes twice: it is the model's work that counts, not the machine's.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import attrs

from fluid_core.planning.rehearsal import Rehearsal
from fluid_core.planning.skeleton import Skeleton

_NUM_IMAGES = 64
"""Enough for the mean number of predicted tokens to be near a whole one. Shapes cost nothing."""


@attrs.frozen(kw_only=True)
class TrainingFlops:
    """FLOPs for one image."""

    aligner: float
    """Forward pass of the text aligner."""

    transformer: float
    """Forward pass of the transformer, with the keys and values of the text."""

    head: float
    """Loss of the head on the predicted tokens, with all its timesteps for each."""

    forward: float
    """The whole forward pass, with what is left beside these parts."""

    training: float
    """Forward and backward pass: close to three times the former, as inputs need no gradients."""

    predicted_share: float
    text_length: int


def count_training_flops(skeleton: Skeleton, text_length: int) -> TrainingFlops:
    """FLOPs of one image with a caption of `text_length` tokens."""
    model = skeleton.model
    counter = Rehearsal(num_chosen=skeleton.num_predicted(_NUM_IMAGES))
    parts = {"aligner": 0, "transformer": 0, "head": 0}

    def counted(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            before = counter.flops
            result = function(*args, **kwargs)
            parts[part] += counter.flops - before
            return result

        return call

    watched: list[tuple[Any, str, str]] = [
        (model.aligner, "forward", "aligner"),
        (model.transformer, "text", "transformer"),
        (model.transformer, "forward", "transformer"),
        (model.head, "loss", "head"),
    ]
    for module, method, part in watched:
        setattr(module, method, counted(getattr(module, method), part))
    try:
        with skeleton.fake, counter:
            loss = model(skeleton.batch(_NUM_IMAGES, text_length))
            forward = counter.flops
            loss.total.backward()
    finally:
        for module, method, _ in watched:
            # What was set on the object hid the method of its class.
            delattr(module, method)
        model.zero_grad(set_to_none=True)
    return TrainingFlops(
        aligner=parts["aligner"] / _NUM_IMAGES,
        transformer=parts["transformer"] / _NUM_IMAGES,
        head=parts["head"] / _NUM_IMAGES,
        forward=forward / _NUM_IMAGES,
        training=counter.flops / _NUM_IMAGES,
        predicted_share=skeleton.predicted_share,
        text_length=text_length,
    )
