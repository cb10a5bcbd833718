"""The training loop.

Everything random in step `s` follows from the seed and `s` alone: the batch, the order, the noise. A resumed run is
therefore bit-equal to one that was never interrupted (on a CPU), with no generator state to save.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch

from fluid_core.atomic_files import write_bytes
from fluid_core.configuration import FluidConfig, TrainingConfig, config_to_json
from fluid_core.contact_sheet import contact_sheet, save_image
from fluid_core.data.batches import readable_items
from fluid_core.data.open_batches import Batches, open_batches
from fluid_core.errors import ConfigurationError, NonFiniteLossError, OutputError, RunStoppedError
from fluid_core.evaluation.validation_loss import validation_loss
from fluid_core.model import FluidModel
from fluid_core.pipeline import FluidPipeline
from fluid_core.text.truncation_warnings import truncations_summed_up
from fluid_core.training.checkpoints.parts_elsewhere import identities_elsewhere
from fluid_core.training.checkpoints.run_checkpoints import RunCheckpoints
from fluid_core.training.checkpoints.whole import Progress, checkpoints
from fluid_core.training.devices import training_device
from fluid_core.training.processes import Processes
from fluid_core.training.run.clock import RunClock
from fluid_core.training.run.data import connect_or_fit, open_split
from fluid_core.training.run.data_warnings import DataWarnings
from fluid_core.training.run.disk_space import check_disk_space
from fluid_core.training.run.folder import CHECKPOINTS, CONFIG_FILE, check_run_folder, how_to_resume
from fluid_core.training.run.model import all_at_hand, build_run_model, open_sharding, save_run_models
from fluid_core.training.run.starting_weights import find_starting_weights, take_over
from fluid_core.training.run.stop_signal import StopSignal
from fluid_core.training.sight.figures import RunFigures
from fluid_core.training.sight.log import RunLog
from fluid_core.training.sight.progress import TrainingProgress
from fluid_core.training.sight.skipped_file import note_skipped
from fluid_core.training.step.activation_checkpointing import checkpoint_activations
from fluid_core.training.step.block_compilation import compile_blocks
from fluid_core.training.step.moving_average import MovingAverage, too_short_for_average
from fluid_core.training.step.optimizer import build_optimizer
from fluid_core.training.step.skipped_steps import SkippedSteps
from fluid_core.training.step.training_step import StepResult, TrainingStep

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
    there is none. What may change then says `fluid_core.training.checkpoints.same_run`.

    Started by `torchrun`, several processes train one model, each on its share of every batch (`processes.py`).

    Raises `ConfigurationError`, `CheckpointError`, `PromptError` for a sample prompt that the text encoder refuses,
    `OutputError` if nothing can be written or the disk is too small, and what building the parts raises: the folder is
    claimed, with `config.json`, once everything is built.
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
        self._sharding = open_sharding(self.processes, self.settings)
        self.model: FluidModel = self._build_model(catalog, is_new=not checkpoints(self._checkpoints))
        if config.sample_prompts and self.settings.sample_every:
            # An overlong prompt is refused now, not at the first sheet of samples.
            with torch.no_grad():
                self.model.encode_text(config.sample_prompts)
        size = self.model.tokenizer.image_size
        self.train_data = open_split(config, "train", image_size=size, catalog=catalog)
        measured = self.settings.num_validation_images > 0
        self.validation_data = open_split(config, "validation", image_size=size, catalog=catalog) if measured else None
        self.average = MovingAverage(self.model, self.settings.ema_decay)
        self.optimizer = build_optimizer(self.model, self.settings)
        self.step = 0
        """Steps taken so far."""

        self._saved = RunCheckpoints(
            self._checkpoints,
            model=self.model,
            average=self.average,
            optimizer=self.optimizer,
            keep=self.settings.keep_checkpoints,
            tell=self.progress.note,
            processes=self.processes,
            sharding=self._sharding,
            identities=lambda: identities_elsewhere(self.model),
        )
        reached = self._saved.load_newest()
        self.step, self._data_state = reached.step, reached.data
        connect_or_fit(self.model, self.train_data, self.validation_data, config, progress=self.progress)
        self.processes.copy_from_first(self.model)
        self._steps = TrainingStep(
            self.model, self.optimizer, self.settings, processes=self.processes, share=self._share
        )
        self._figures = RunFigures(self.model.device, self._steps.dtype, num_devices=self.processes.count)
        self._clock = RunClock(self.settings, seconds_before=reached.seconds)
        self._stop = StopSignal()
        self._data_warnings = DataWarnings()
        self._skipped_steps = SkippedSteps(self.folder, self.settings, self.processes, self.progress)
        if self.processes.is_first:
            check_disk_space(self.folder, self.model, keep=self.settings.keep_checkpoints)
        self._log = RunLog(self.folder, self.settings, self.processes, self.progress, step=self.step)
        if self.processes.is_first:
            write_bytes(self.folder / CONFIG_FILE, config_to_json(self.config).encode())

    def train(self) -> TrainingResult:
        """Run to the last step.

        Raises `NonFiniteLossError` without touching weights or checkpoints if a loss or gradient is not finite,
        `RunStoppedError` once a checkpoint is written if SIGTERM came, and `OutputError` if the disk is full.
        """
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
        short = too_short_for_average(settings.ema_decay, settings.num_steps)
        if short is not None:
            self.progress.note(short)
        clock.start()
        validation: dict[str, float] = {}
        stopped = False
        self.model.train()
        with self._watched(first_step), self._stop.awaited():
            try:
                share_of_time, _ = self._agreed()
                last = clock.finished(self.step, share_of_time=share_of_time)
                while not (last or stopped):
                    result = self._train_step(loader, share_of_time)
                    self.step += 1
                    share_of_time, stopped = self._agreed()
                    last = clock.finished(self.step, share_of_time=share_of_time)
                    if self.step % settings.log_every == 0 or last:
                        seconds = clock.seconds_here
                        speed = (self.step - first_step) * settings.batch_size / seconds
                        figures = {"images_per_second": speed, "seconds": seconds}
                        self._log.step(self.step, result, loader.skipped, self._figures, **figures)
                    saves = _due(self.step, settings.checkpoint_every) or last or stopped
                    if saves and loader.state() is not None:
                        self._data_state = tuple(self.processes.gather_json(loader.state()))
                    # The others wait at the next step, where gradients are summed; or all look at a divided model.
                    if not self.processes.is_first and self._sharding is None:
                        continue
                    # Whoever sent SIGTERM waits: nothing that another part of the run can do as well.
                    looks = last or not stopped
                    if looks and (_due(self.step, settings.sample_every) or (last and settings.sample_every)):
                        self._draw_samples()
                    if saves:
                        validation = self._validate() if looks else {}
                        self._saved.save(Progress(step=self.step, seconds=clock.seconds, data=self._data_state))
                self._saved.finish()
            finally:
                loader.close()
                self._log.skipped.add(loader.skipped.listed.values(), when="training")
                self._log.close()
        seconds = clock.seconds_here
        note_skipped(self.progress, loader.skipped, "in training")
        if stopped and not last:
            self.processes.wait()
            raise RunStoppedError(f"Stopped by SIGTERM after step {self.step}. {how_to_resume(self.folder)}")
        self._save_models()
        self.processes.wait()
        return TrainingResult(
            model_folder=self.folder / "model",
            num_steps=self.step,
            seconds=seconds,
            images_per_second=(self.step - first_step) * settings.batch_size / seconds,
            validation=validation,
        )

    def _build_model(self, catalog: "ComponentCatalog | None", *, is_new: bool) -> FluidModel:
        """The model on its device, its blocks as the settings want them, its weights fresh or those to start from."""
        settings = self.settings
        torch.manual_seed(settings.seed)
        model = build_run_model(self.config, self._sharding, training_device(settings.device), catalog)
        if is_new and settings.init_from is not None:
            found = find_starting_weights(
                model, self.config, settings.init_from, strict=settings.init_strict, catalog=catalog
            )
            take_over(model, found)
            self.progress.note(found.message())
        checkpoint_activations(model, settings.activation_checkpointing)
        if settings.compile:
            compile_blocks(model)
        return model

    @contextmanager
    def _watched(self, first_step: int) -> Iterator[None]:
        """Progress is shown in the block, and what ends it early says where the run goes on."""
        settings, seconds_left = self.settings, self._clock.seconds_left
        running = self.progress.running(first_step, settings.num_steps, settings.batch_size, seconds_left=seconds_left)
        # Where captions are long, a warning for each would bury everything else.
        with running, truncations_summed_up():
            try:
                yield
            except OutputError as error:
                error.add_note(f"The run ended after step {self.step}. {how_to_resume(self.folder)}")
                raise
            for finding in self._data_warnings.at_the_end():
                self.progress.note(finding)

    def _agreed(self) -> tuple[float, bool]:
        """Share of the time that has passed and whether SIGTERM came to anyone: the same in all processes."""
        own = [self._clock.share_of_time, float(self._stop.came)]
        if self.processes.count == 1:
            return own[0], bool(own[1])
        if not self.processes.is_first:
            # Clocks differ: that of the first process is taken.
            own[0] = 0.0
        share_of_time, came = self.processes.sum(torch.tensor(own, dtype=torch.float64, device=self.model.device))
        return float(share_of_time), bool(came)

    def _train_step(self, loader: Batches, share_of_time: float) -> StepResult | None:
        """One step; None if it was left out because of a loss or gradient that is not finite."""
        step = self.step
        self._figures.step_begins()
        batch = loader.batch(step)
        for finding in self._data_warnings.look(batch):
            self.progress.note(finding)
        try:
            result = self._steps.take(batch, step, share_of_time=share_of_time)
        except NonFiniteLossError as error:
            self._skipped_steps.skip_or_stop(error, self.model, step + 1, batch.captions, loader.items(step))
            self.progress.stepped(step + 1, math.nan)
            return None
        self._skipped_steps.taken()
        self.average.update(step)
        self._figures.step_ended(self.settings.batch_size, flops_per_image=self._steps.flops_per_image)
        self.progress.stepped(step + 1, float(result.loss.total) / result.loss.num_tokens)
        return result

    def _validate(self) -> dict[str, float]:
        if self.validation_data is None:
            return {}
        read = readable_items(self.validation_data, self.settings.num_validation_images)
        with self.average.applied(), self._steps.precision(), all_at_hand(self.model, self._sharding):
            values = validation_loss(self.model, read.items)
        self._log.row(
            step=self.step,
            **{f"validation_{name}": value for name, value in values.items()},
            validation_num_skipped_images=len(read.skipped),
        )
        self.progress.note(f"step {self.step}: validation loss {values['loss']:.4f}")
        note_skipped(self.progress, read.skipped, "in validation")
        self._log.skipped.add(read.skipped, when="validation")
        return values

    def _draw_samples(self) -> None:
        if not self.config.sample_prompts:
            return
        prompts = list(self.config.sample_prompts)
        with self.average.applied(), all_at_hand(self.model, self._sharding):
            pictures = FluidPipeline(self.model, weights="ema")(prompts, seed=self.settings.seed).images
        self.model.train()
        if not self.processes.is_first:
            return
        path = self.folder / "samples" / f"step-{self.step:08d}.png"
        save_image(contact_sheet(pictures, prompts, title=f"step {self.step}"), path)
        self.progress.note(f"step {self.step}: samples in {path}")

    def _save_models(self) -> None:
        save_run_models(self.model, self.average, self.folder, self.processes, self._sharding)

    @property
    def _checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
