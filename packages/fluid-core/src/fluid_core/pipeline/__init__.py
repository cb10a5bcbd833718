"""`FluidPipeline`: prompts in, images out; and what a call of it goes through.

Importing this package is cheap: names load the modules behind them when they are first used.
"""

from typing import TYPE_CHECKING

from fluid_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from fluid_core.pipeline.encoded_prompts import EncodedPrompts, PromptReader, encode_prompts
    from fluid_core.pipeline.fluid_pipeline import FluidPipeline
    from fluid_core.pipeline.output import PipelineOutput, to_pil

_HOMES = {
    "EncodedPrompts": "fluid_core.pipeline.encoded_prompts",
    "FluidPipeline": "fluid_core.pipeline.fluid_pipeline",
    "PipelineOutput": "fluid_core.pipeline.output",
    "PromptReader": "fluid_core.pipeline.encoded_prompts",
    "encode_prompts": "fluid_core.pipeline.encoded_prompts",
    "to_pil": "fluid_core.pipeline.output",
}

__all__ = ["EncodedPrompts", "FluidPipeline", "PipelineOutput", "PromptReader", "encode_prompts", "to_pil"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
