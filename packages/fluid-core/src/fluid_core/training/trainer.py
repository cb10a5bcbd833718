"""The training loop.

Everything random in step `s` follows from the seed and `s` alone: the batch, the order, the noise. A resumed run is
therefore bit-equal to one that was never interrupted (on a CPU), with no generator state to save.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch

from fluid_core.assembly import build_dataset, build_model
from fluid_core.atomic_files import write_bytes
from fluid_core.configuration import FluidConfig, TrainingConfig, config_to_json
from fluid_core.contact_sheet import contact_sheet, save_image
from fluid_core.data.batches import readable_items
from fluid_core.data.captioned_images import CaptionedImages, CaptionedStream
from fluid_core.data.encoded_images import EncodedImages
from fluid_core.data.open_batches import Batches, open_batches
from fluid_core.data.skipped_items import SkippedItems
from fluid_core.errors import ConfigurationError, NonFiniteLossError
from fluid_core.evaluation.validation_loss import validation_loss
from fluid_core.exchange import DatasetContext, EncodedBatch
from fluid_core.model import BatchLoss, FluidModel
from fluid_core.pipeline import FluidPipeline
from fluid_core.protocols import LearnsFromImages
from fluid_core.saved_model import save_model
from fluid_core.text.truncation_warnings import truncations_summed_up
from fluid_core.training.checkpoint import Progress, checkpoints, load_checkpoint, save_checkpoint
from fluid_core.training.devices import training_device
from fluid_core.training.gradient_step import (
    gradient_step,
    learning_rate,
    non_finite_cause,
    non_finite_gradient,
    seed_global_generator,
    step_seed,
)
from fluid_core.training.metrics import MetricsFile
from fluid_core.training.moving_average import MovingAverage
from fluid_core.training.optimizer import build_optimizer
from fluid_core.training.parts_elsewhere import identities_elsewhere
from fluid_core.training.processes import Processes
from fluid_core.training.progress import TrainingProgress
from fluid_core.training.run_clock import RunClock
from fluid_core.training.run_folder import CHECKPOINTS, CONFIG_FILE, check_run_folder, how_to_go_on
from fluid_core.training.skipped_file import SkippedFile, note_skipped
from fluid_core.training.tokenizer_fitting import fit_tokenizer

if TYPE_CHECKING:
    from fluid_core.catalog import ComponentCatalog


@attrs.frozen(kw_only=True)
class TrainingResult:
    """Where a finished run left its model, and its last figures."""

    model_folder: Path
    num_steps: int
    seconds: float
    images_per_second: float
    validation: dict[str, float]


class Trainer:
    """Trains the model of a configuration and writes everything below one folder.

    `config.json`, `metrics.jsonl`, `samples/step-*.png`, `checkpoints/step-*/` and at the end `model/` (the moving
    average, ready for `FluidPipeline.from_pretrained`) and `model-raw/` (the weights themselves).

    A new run refuses a folder that already holds one; `resume=True` continues from its newest checkpoint, or starts if
    there is none. What may change then says `fluid_core.training.same_run`.

    Started by `torchrun`, several processes train one model, each on its share of every batch (`processes.py`).

    Raises `ConfigurationError`, `CheckpointError`, `OutputError`, `PromptError` for a sample prompt that the text
    encoder refuses, and what building the parts raises: the folder is claimed, with `config.json`, once everything is
    built.
    """

    def __init__(
        self,
        config: FluidConfig,
        folder: str | Path,
        *,
        resume: bool = False,
        catalog: "ComponentCatalog | None" = None,
        progress: TrainingProgress | None = None,
    ) -> None:
        if config.training is None or config.data is None:
            raise ConfigurationError("Expected a [training] and a [data] section, found a configuration without.")
        self.config = config
        self.settings: TrainingConfig = config.training
        self.folder = Path(folder)
        self.processes = Processes.join()
        self.progress = progress or TrainingProgress(silent=not self.processes.is_first)
        self._share = self.processes.share(self.settings.batch_size)
        if self.processes.is_first:
            check_run_folder(self.folder, config, resume=resume)
        torch.manual_seed(self.settings.seed)
        self.model: FluidModel = build_model(config, catalog).to(training_device(self.settings.device))
        if config.sample_prompts and self.settings.sample_every:
            # An overlong prompt is refused now, not at the first sheet of samples.
            with torch.no_grad():
                self.model.encode_text(config.sample_prompts)
        self.train_data = self._dataset("train", catalog)
        measured = self.settings.num_validation_images > 0
        self.validation_data = self._dataset("validation", catalog) if measured else None
        self.average = MovingAverage(self.model, self.settings.ema_decay)
        self.optimizer = build_optimizer(self.model, self.settings)
        self.step = 0
        """Steps taken so far."""

        reached = Progress(step=0, seconds=0.0)
        found = checkpoints(self._checkpoints)
        if found:
            reached = load_checkpoint(
                found[-1],
                model=self.model,
                average=self.average,
                optimizer=self.optimizer,
                identities=identities_elsewhere(self.model),
            )
        self.step, self._data_state = reached.step, reached.data
        self._connect_or_fit()
        self.processes.copy_from_first(self.model)
        self._clock = RunClock(self.settings, seconds_before=reached.seconds)
        self.metrics: MetricsFile | None = None
        if self.processes.is_first:
            write_bytes(self.folder / CONFIG_FILE, config_to_json(self.config).encode())
            self.metrics = MetricsFile(self.folder / "metrics.jsonl", resume_step=self.step)
        self._skipped_file = SkippedFile(self.folder, self.processes)

    def train(self) -> TrainingResult:
        """Run to the last step. Raises `NonFiniteLossError` without touching weights or files if the loss is NaN."""
        settings = self.settings
        loader = open_batches(
            self.train_data,
            batch_size=settings.batch_size,
            seed=settings.seed,
            share=self._share,
            state=self._data_state,
            max_skipped_share=settings.max_skipped_share,
        )
        clock, first_step = self._clock, self.step
        clock.start()
        validation: dict[str, float] = {}
        self.model.train()
        running = self.progress.running(
            first_step, settings.num_steps, settings.batch_size, seconds_left=clock.seconds_left
        )
        # Where captions are long, a warning for each would bury everything else.
        with running, truncations_summed_up():
            try:
                share_of_time = self._share_of_time()
                last = clock.finished(self.step, share_of_time=share_of_time)
                while not last:
                    loss, norm, rate = self._train_step(loader, share_of_time)
                    self.step += 1
                    share_of_time = self._share_of_time()
                    last = clock.finished(self.step, share_of_time=share_of_time)
                    if self.step % settings.log_every == 0 or last:
                        self._log(loss, norm, rate, first_step, loader.skipped)
                    saves = _due(self.step, settings.checkpoint_every) or last
                    if saves and loader.state() is not None:
                        self._data_state = tuple(self.processes.gather_json(loader.state()))
                    # The others wait at the next step, where gradients are summed.
                    if not self.processes.is_first:
                        continue
                    if _due(self.step, settings.sample_every) or (last and settings.sample_every):
                        self._draw_samples()
                    if saves:
                        validation = self._validate()
                        self._save_checkpoint()
            finally:
                loader.close()
                self._skipped_file.add(loader.skipped.listed.values(), when="training")
        seconds = clock.seconds_here
        note_skipped(self.progress, loader.skipped, "in training")
        if self.processes.is_first:
            self._save_models()
        self.processes.wait()
        return TrainingResult(
            model_folder=self.folder / "model",
            num_steps=self.step,
            seconds=seconds,
            images_per_second=(self.step - first_step) * settings.batch_size / seconds,
            validation=validation,
        )

    def _share_of_time(self) -> float:
        """The same in all processes, whose clocks differ."""
        if self.settings.max_minutes is None:
            return 0.0
        return self.processes.from_first(self._clock.share_of_time)

    def _train_step(self, loader: Batches, share_of_time: float) -> tuple[BatchLoss, float, float]:
        settings, step = self.settings, self.step
        batch = loader.batch(step)
        seed_global_generator(settings.seed, step)
        drawn = self.model.prepare_encoded(
            batch if isinstance(batch, EncodedBatch) else self.model.encode(batch.images, batch.captions),
            generator=torch.Generator().manual_seed(step_seed(settings.seed, step)),
            text_drop_probability=settings.text_drop_probability,
            share=self._share,
        )
        loss: BatchLoss = self.model(drawn)
        mean = loss.mean
        if not math.isfinite(float(mean.detach())):
            raise NonFiniteLossError(self._non_finite_report(float(mean.detach()), loss, batch.captions))
        rate = learning_rate(settings, step, share_of_time=share_of_time)
        norm = gradient_step(
            mean,
            self.optimizer,
            learning_rate=rate,
            clip_norm=settings.gradient_clip_norm,
            non_finite=self._non_finite_gradient_report,
            processes=self.processes,
        )
        self.average.update(step)
        self.progress.stepped(step + 1, float(loss.total.detach()) / loss.num_tokens)
        return loss, norm, rate

    def _non_finite_report(self, value: float, loss: BatchLoss, captions: tuple[str, ...]) -> str:
        parts = [name for name, part in loss.parts.items() if not bool(part.isfinite())]
        where = f"part {', '.join(parts)} of the loss of {type(self.model.head).__name__}" if parts else "the loss"
        return (
            f"Step {self.step + 1}: {where} is {value}, expected a finite number. "
            f"{non_finite_cause(self.model)}; the step was not taken and "
            f"no file was changed. First captions of the batch: {list(captions[:3])}. Lower training.learning_rate, "
            f"set training.gradient_clip_norm{how_to_go_on(self.folder)}"
        )

    def _non_finite_gradient_report(self) -> str:
        return (
            f"Step {self.step + 1}: {non_finite_gradient(self.model)} is not finite. The step was not taken and no "
            f"file was changed. Lower training.learning_rate{how_to_go_on(self.folder)}"
        )

    def _dataset(
        self, split: str, catalog: "ComponentCatalog | None"
    ) -> CaptionedImages | CaptionedStream | EncodedImages:
        assert self.config.data is not None
        context = DatasetContext(
            image_size=self.model.tokenizer.image_size,
            split=split,
            seed=self.settings.seed,
        )
        dataset = build_dataset(self.config.data, context, catalog, may_be_encoded=True)
        assert isinstance(dataset, CaptionedImages | CaptionedStream | EncodedImages)
        return dataset

    def _connect_or_fit(self) -> None:
        """See that tokenizer and data belong together: a cache knows its tokenizer, others learn from the images."""
        tokenizer = self.model.tokenizer
        for data in (self.train_data, self.validation_data):
            if isinstance(data, EncodedImages):
                data.connect(tokenizer, self.model.text_encoder)
        if isinstance(self.train_data, EncodedImages):
            return
        if isinstance(tokenizer, LearnsFromImages) and not tokenizer.fitted:
            fit_tokenizer(tokenizer, self.train_data, self.settings, device=self.model.device, progress=self.progress)

    def _log(self, loss: BatchLoss, norm: float, rate: float, first_step: int, skipped: SkippedItems) -> None:
        seconds = self._clock.seconds_here
        names = list(loss.parts)
        own = torch.stack([loss.total.detach(), *loss.parts.values()]).double()
        sums = self.processes.sum(torch.cat([own, own.new_tensor([loss.num_tokens, len(skipped)])])).tolist()
        num_tokens, num_skipped = sums[-2], int(sums[-1])
        self._skipped_file.add(skipped.listed.values(), when="training")
        if self.metrics is None:
            return
        self.metrics.write(
            step=self.step,
            loss=sums[0] / num_tokens,
            **{name: total / num_tokens for name, total in zip(names, sums[1:-2], strict=True)},
            gradient_norm=norm,
            learning_rate=rate,
            images_per_second=(self.step - first_step) * self.settings.batch_size / seconds,
            seconds=seconds,
            num_skipped_images=num_skipped,
        )

    def _validate(self) -> dict[str, float]:
        if self.validation_data is None:
            return {}
        assert self.metrics is not None
        read = readable_items(self.validation_data, self.settings.num_validation_images)
        with self.average.applied():
            values = validation_loss(self.model, read.items)
        self.metrics.write(
            step=self.step,
            **{f"validation_{name}": value for name, value in values.items()},
            validation_num_skipped_images=len(read.skipped),
        )
        self.progress.note(f"step {self.step}: validation loss {values['loss']:.4f}")
        note_skipped(self.progress, read.skipped, "in validation")
        self._skipped_file.add(read.skipped, when="validation")
        return values

    def _draw_samples(self) -> None:
        if not self.config.sample_prompts:
            return
        prompts = list(self.config.sample_prompts)
        with self.average.applied():
            pictures = FluidPipeline(self.model, weights="ema")(prompts, seed=self.settings.seed).images
        self.model.train()
        path = self.folder / "samples" / f"step-{self.step:08d}.png"
        save_image(contact_sheet(pictures, prompts, title=f"step {self.step}"), path)
        self.progress.note(f"step {self.step}: samples in {path}")

    def _save_checkpoint(self) -> None:
        save_checkpoint(
            self._checkpoints,
            progress=Progress(step=self.step, seconds=self._clock.seconds, data=self._data_state),
            model=self.model,
            average=self.average,
            optimizer=self.optimizer,
            keep=self.settings.keep_checkpoints,
            identities=identities_elsewhere(self.model),
        )

    def _save_models(self) -> None:
        save_model(self.model, self.folder / "model-raw", weights="raw")
        with self.average.applied():
            save_model(self.model, self.folder / "model", weights="ema")

    @property
    def _checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
