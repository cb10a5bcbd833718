"""Letting a tokenizer learn from training images what it needs to, such as statistics of its channels."""

import torch

from fluid_core.configuration import TrainingCourse
from fluid_core.data.batches import readable_items, stack
from fluid_core.data.captioned_images import CaptionedImages, CaptionedStream
from fluid_core.protocols import LearnsFromImages
from fluid_core.training.sight.progress import TrainingProgress
from fluid_core.training.sight.skipped_file import note_skipped


def fit_tokenizer(
    tokenizer: LearnsFromImages,
    data: CaptionedImages | CaptionedStream,
    course: TrainingCourse,
    *,
    device: torch.device,
    progress: TrainingProgress,
) -> None:
    """Fit on `num_fit_images` of `data`, drawn with the run's seed. Raises what `fit` and reading images raise."""
    read = readable_items(data, course.num_fit_images, shuffle_seed=course.seed)
    progress.note(f"fitting the tokenizer on {len(read.items)} images")
    note_skipped(progress, read.skipped, "while fitting the tokenizer")
    tokenizer.fit(stack(read.items).images.to(device), seed=course.seed)
