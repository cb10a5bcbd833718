"""The four models of the paper at two sizes, as the benchmarks of training train them: on shapes, on one device.

`tiny` is what examples/configs/shapes.toml trains: width 128, five blocks, 16 tokens to a picture, and for continuous
tokens its flow head. `wide` is six blocks of width 768 with the paper's diffusion head, 64 tokens to a picture.
"""

from pathlib import Path
from typing import Any

import attrs

from fluid_core.configuration import BackboneConfig, ComponentChoice, FluidConfig, load_config

CONFIG = Path(__file__).parents[1] / "configs" / "shapes.toml"
MODELS = tuple(f"{tokens}-{order}" for tokens in ("continuous", "discrete") for order in ("random", "raster"))
SIZES = ("tiny", "wide")


def configuration(model: str, size: str, *, batch_size: int) -> FluidConfig:
    """The training of one of `MODELS` at one of `SIZES`, with nothing at intervals: no checkpoint, samples, validation.

    Metrics are logged as often as the configuration's default says.
    """
    base = load_config(CONFIG)
    assert base.training is not None
    tokens, order = model.split("-")
    pixels, patch = (32, 8) if size == "tiny" else (64, 8)
    space: dict[str, Any] = {"image_size": pixels, "patch_size": patch}
    tokenizer = ComponentChoice(name="pixel-patches", options=space)
    head = base.head if size == "tiny" else ComponentChoice(name="diffusion")
    if tokens == "discrete":
        vocabulary = 128 if size == "tiny" else 1024
        tokenizer = ComponentChoice(name="patch-codebook", options={**space, "vocabulary_size": vocabulary})
        head = ComponentChoice(name="softmax")
    wide = BackboneConfig(width=768, depth=6, num_heads=12, aligner_depth=1)
    return attrs.evolve(
        base,
        sample_prompts=(),
        tokenizer=tokenizer,
        order=ComponentChoice(name=order),
        head=head,
        backbone=base.backbone if size == "tiny" else wide,
        training=attrs.evolve(
            base.training,
            num_steps=10**6,
            batch_size=batch_size,
            learning_rate=1.8e-3 if size == "tiny" else 2e-4,
            sample_every=0,
            checkpoint_every=10**6,
            num_validation_images=0,
            num_fit_images=256 if tokens == "continuous" else 1024,
        ),
    )
