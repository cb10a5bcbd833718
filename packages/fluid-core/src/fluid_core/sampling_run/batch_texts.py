"""The text of a run: read before anything is drawn, and held or read again, whichever takes less memory."""

from collections.abc import Sequence

import attrs
import torch
from torch import nn

from fluid_core.errors import PromptError
from fluid_core.exchange import TextFeatures
from fluid_core.pipeline import FluidPipeline
from fluid_core.sampling_run.plan import PlannedImage


@attrs.frozen(kw_only=True)
class BatchText:
    """The text encoder's states for the pictures of a batch, on the CPU until they are needed."""

    prompts: TextFeatures
    negatives: TextFeatures | None

    @property
    def num_bytes(self) -> int:
        """The memory it takes."""
        parts = [self.prompts] if self.negatives is None else [self.prompts, self.negatives]
        return sum(part.states.nbytes + part.mask.nbytes for part in parts)


class BatchTexts:
    """The text of each batch of a run, by the batch's number.

    All prompts are encoded at the start, so that one that can not be used stops the run before its first picture. If
    what is left of them takes less memory than the encoder, that goes, which may be larger than the model; the text of
    tens of thousands of pictures takes more, and then the encoder stays and reads each batch again when it is drawn.
    Raises `PromptError` for a prompt that the text encoder refuses, saying which.
    """

    def __init__(self, pipeline: FluidPipeline, batches: Sequence[Sequence[PlannedImage]]) -> None:
        self._pipeline = pipeline
        self._batches = batches
        self._held: list[BatchText] | None = []
        encoder = pipeline.model.text_encoder
        assert isinstance(encoder, nn.Module)
        left = sum(tensor.nbytes for tensor in (*encoder.parameters(), *encoder.buffers()))
        for batch in batches:
            text = encode_batch(pipeline, batch)
            left -= text.num_bytes
            if left < 0:
                self._held = None
            if self._held is not None:
                self._held.append(text)
        if self._held is not None:
            pipeline.release_text_encoder()

    def __getitem__(self, number: int) -> BatchText:
        """The text of batch `number`."""
        return encode_batch(self._pipeline, self._batches[number]) if self._held is None else self._held[number]


def encode_batch(pipeline: FluidPipeline, batch: Sequence[PlannedImage]) -> BatchText:
    """Encode what a batch needs. Raises `PromptError` for a prompt that the text encoder refuses, saying which."""
    prompts = _encoded(pipeline, [image.prompt for image in batch], batch)
    negatives = [image.negative_prompt for image in batch if image.negative_prompt is not None]
    if not negatives:
        return BatchText(prompts=prompts, negatives=None)
    return BatchText(prompts=prompts, negatives=_encoded(pipeline, negatives, batch))


def _encoded(pipeline: FluidPipeline, texts: Sequence[str], batch: Sequence[PlannedImage]) -> TextFeatures:
    unique = list(dict.fromkeys(texts))
    try:
        features = pipeline.encode_prompts(unique)
    except PromptError:
        # Once more, one by one: the message of a batch counts prompts in it, which tells nobody which it was.
        for text, image in zip(texts, batch, strict=True):
            try:
                pipeline.encode_prompts([text])
            except PromptError as error:
                place = f"picture {image.name}" if image.source is None else image.source
                raise PromptError(f"{place}: {error}") from error
        raise
    rows = torch.tensor([unique.index(text) for text in texts])
    return TextFeatures(states=features.states.cpu()[rows], mask=features.mask.cpu()[rows])
