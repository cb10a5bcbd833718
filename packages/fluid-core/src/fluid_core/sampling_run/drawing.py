"""Drawing the batches of a run and writing their pictures, one batch at a time."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from PIL import Image

from fluid_core.generation import GenerationProgress
from fluid_core.pipeline import FluidPipeline
from fluid_core.png_metadata import save_png
from fluid_core.protocols import OrderPolicy
from fluid_core.sampling_run.animation import AnimationFrames
from fluid_core.sampling_run.batch_texts import BatchText
from fluid_core.sampling_run.folder import package_versions
from fluid_core.sampling_run.plan import PlannedImage
from fluid_core.sampling_run.settings import SamplingSettings

_LAST_BYTES = {".png": b"IEND\xaeB`\x82", ".gif": b";"}


@attrs.frozen(kw_only=True)
class PictureWriter:
    """Draws batches and writes what is missing of them into a folder."""

    pipeline: FluidPipeline
    order: OrderPolicy | None
    settings: SamplingSettings
    model: Mapping[str, str]
    """What the pictures say about the model that drew them."""

    folder: Path
    animation: bool
    told: Callable[[PlannedImage, Path], None]
    """Called for each picture that was written."""

    def missing(self, batch: Sequence[PlannedImage]) -> list[PlannedImage]:
        """Pictures of a batch that are not there to their end, or lack their animation."""
        return [image for image in batch if not all(_is_whole(path) for path in self._files(image))]

    def draw(self, batch: Sequence[PlannedImage], text: BatchText) -> str:
        """Draw a batch and write those of its pictures that are missing; returns which sampler of the head ran.

        The whole batch is drawn even if some of it is there: rounding depends on what is computed together, and a
        picture must be the same to the byte whether the run was interrupted or not.
        """
        frames = AnimationFrames()

        def keep_frame(progress: GenerationProgress) -> None:
            if frames.shows(progress.step, progress.num_steps):
                frames.add(self.pipeline.preview(progress))

        result = self.pipeline(
            prompt_embeds=text.prompts,
            negative_prompt_embeds=text.negatives,
            seed=[image.seed for image in batch],
            order=self.order,
            callback_on_step_end=keep_frame if self.animation else None,
            **self.settings.call_arguments,
        )
        backend = str(result.head_backend.value)
        missing = {image.index for image in self.missing(batch)}
        for row, image in enumerate(batch):
            if image.index in missing:
                self._write(image, result.images[row], backend, frames, row)
        return backend

    def _write(
        self, image: PlannedImage, picture: Image.Image, backend: str, frames: AnimationFrames, row: int
    ) -> None:
        path, *animation = self._files(image)
        # The animation first: where the picture is, all of it is.
        for file in animation:
            frames.save(row, file)
        save_png(picture, path, self._metadata(image, backend))
        self.told(image, path)

    def _files(self, image: PlannedImage) -> list[Path]:
        endings = (".png", ".gif") if self.animation else (".png",)
        return [self.folder / f"{image.name}{ending}" for ending in endings]

    def _metadata(self, image: PlannedImage, backend: str) -> dict[str, Any]:
        return {
            "prompt": image.prompt,
            "negative_prompt": image.negative_prompt,
            "seed": image.seed,
            "index": image.index,
            "metadata": dict(image.metadata),
            "settings": self.settings.as_json() | {"head_backend": backend},
            "model": dict(self.model),
            "packages": package_versions(),
        }


def _is_whole(path: Path) -> bool:
    """Whether there is a picture with its end, which one that was cut short lacks."""
    if not path.is_file():
        return False
    end = _LAST_BYTES[path.suffix]
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(end)))
        return file.read() == end
