"""The training loop.

Everything random in step `s` follows from the seed and `s` alone: the batch, the order, the noise. A resumed run is
therefore bit-equal to one that was never interrupted (on a CPU), with no generator state to save.
"""

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch

from fluid_core.assembly import build_dataset, build_model
from fluid_core.atomic_files import check_writable, remove_unfinished, write_bytes
from fluid_core.configuration import FluidConfig, TrainingConfig, config_from_json, config_to_json
from fluid_core.contact_sheet import contact_sheet, save_image
from fluid_core.data.batches import BatchLoader, readable_items, stack
from fluid_core.data.captioned_images import CaptionedImages
from fluid_core.errors import CheckpointError, ConfigurationError, NonFiniteLossError
from fluid_core.evaluation.validation_loss import validation_loss
from fluid_core.exchange import DatasetContext
from fluid_core.model import BatchLoss, FluidModel
from fluid_core.pipeline import FluidPipeline
from fluid_core.protocols import LearnsFromImages
from fluid_core.saved_model import save_model
from fluid_core.training.checkpoint import Progress, checkpoints, load_checkpoint, save_checkpoint
from fluid_core.training.learning_rate import learning_rate_factor
from fluid_core.training.metrics import MetricsFile
from fluid_core.training.moving_average import MovingAverage
from fluid_core.training.optimizer import build_optimizer
from fluid_core.training.progress import TrainingProgress
from fluid_core.training.same_run import check_same_run

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
        self.progress = progress or TrainingProgress()
        self._check_folder(resume)
        torch.manual_seed(self.settings.seed)
        self.model: FluidModel = build_model(config, catalog).to(_device(self.settings.device))
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

        self._started: float | None = None
        self._seconds_before = 0.0
        found = checkpoints(self._checkpoints)
        if found:
            reached = load_checkpoint(found[-1], model=self.model, average=self.average, optimizer=self.optimizer)
            self.step, self._seconds_before = reached.step, reached.seconds
        else:
            self._fit_tokenizer()
        write_bytes(self.folder / "config.json", config_to_json(self.config).encode())
        self.metrics = MetricsFile(self.folder / "metrics.jsonl", resume_step=self.step)

    def train(self) -> TrainingResult:
        """Run to the last step. Raises `NonFiniteLossError` without touching weights or files if the loss is NaN."""
        settings = self.settings
        loader = BatchLoader(self.train_data, batch_size=settings.batch_size, seed=settings.seed)
        started, first_step = time.perf_counter(), self.step
        self._started = started
        validation: dict[str, float] = {}
        self.model.train()
        limit = settings.max_minutes
        left = None if limit is None else 60.0 * limit - self._seconds_before
        with self.progress.running(first_step, settings.num_steps, settings.batch_size, seconds_left=left):
            try:
                last = self._finished()
                while not last:
                    loss, norm, rate = self._train_step(loader)
                    self.step += 1
                    last = self._finished()
                    if self.step % settings.log_every == 0 or last:
                        self._log(loss, norm, rate, started, first_step, len(loader.unreadable))
                    if _due(self.step, settings.sample_every) or (last and settings.sample_every):
                        self._draw_samples()
                    if _due(self.step, settings.checkpoint_every) or last:
                        validation = self._validate()
                        self._save_checkpoint()
            finally:
                loader.close()
        seconds = time.perf_counter() - started
        self._report_unreadable(loader.unreadable, "in training")
        return TrainingResult(
            model_folder=self._save_models(),
            num_steps=self.step,
            seconds=seconds,
            images_per_second=(self.step - first_step) * settings.batch_size / seconds,
            validation=validation,
        )

    def _seconds(self) -> float:
        """Time trained so far, in this process and those it continues."""
        return self._seconds_before + (0.0 if self._started is None else time.perf_counter() - self._started)

    def _share_of_time(self) -> float:
        limit = self.settings.max_minutes
        return 0.0 if limit is None else min(1.0, self._seconds() / (60.0 * limit))

    def _finished(self) -> bool:
        return self.step >= self.settings.num_steps or self._share_of_time() >= 1.0

    def _train_step(self, loader: BatchLoader) -> tuple[BatchLoss, float, float]:
        settings, step = self.settings, self.step
        batch = loader.batch(step)
        generator = torch.Generator().manual_seed(_step_seed(settings.seed, step))
        # Parts with dropout, and plugins that use it, draw from the global generator: other numbers than those above.
        torch.manual_seed((_step_seed(settings.seed, step) + 2**62) % 2**63)
        loss: BatchLoss = self.model.loss(
            batch.images,
            batch.captions,
            generator=generator,
            text_drop_probability=settings.text_drop_probability,
        )
        mean = loss.mean
        if not math.isfinite(float(mean.detach())):
            raise NonFiniteLossError(self._non_finite_report(float(mean.detach()), loss, batch.captions))
        self.optimizer.zero_grad(set_to_none=True)
        mean.backward()  # type: ignore[no-untyped-call]
        trained = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in trained])
        # Before clipping, which would spread what is not finite to all gradients.
        if not math.isfinite(float(norm)):
            raise NonFiniteLossError(self._non_finite_gradient_report())
        if settings.gradient_clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(trained, settings.gradient_clip_norm, norm)
        rate = settings.learning_rate * learning_rate_factor(
            step,
            num_steps=settings.num_steps,
            warmup_steps=settings.warmup_steps,
            schedule=settings.schedule,
            share_of_time=self._share_of_time(),
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.average.update(step)
        self.progress.stepped(step + 1, float(mean.detach()))
        return loss, float(norm), rate

    def _non_finite_report(self, value: float, loss: BatchLoss, captions: tuple[str, ...]) -> str:
        parts = [name for name, part in loss.parts.items() if not bool(part.isfinite())]
        weights = [name for name, p in self.model.named_parameters() if not bool(p.isfinite().all())]
        where = f"part {', '.join(parts)} of the loss of {type(self.model.head).__name__}" if parts else "the loss"
        cause = f"The weights {weights[0]} are already not finite" if weights else "All weights are finite"
        return (
            f"Step {self.step + 1}: {where} is {value}, expected a finite number. {cause}; the step was not taken and "
            f"no file was changed. First captions of the batch: {list(captions[:3])}. Lower training.learning_rate, "
            f"set training.gradient_clip_norm{self._how_to_go_on()}"
        )

    def _non_finite_gradient_report(self) -> str:
        names = [n for n, p in self.model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        others = f" and of {len(names) - 1} more parameters" if len(names) > 1 else ""
        where = f"the gradient of {names[0]}{others}" if names else "the norm of all gradients together"
        return (
            f"Step {self.step + 1}: {where} is not finite. The step was not taken and no file was changed. Lower "
            f"training.learning_rate{self._how_to_go_on()}"
        )

    def _how_to_go_on(self) -> str:
        """The end of a sentence that says what to change."""
        found = checkpoints(self._checkpoints)
        if not found:
            return ", and start again."
        before = f"continues from {found[-2].name}" if len(found) > 1 else "starts anew"
        return (
            f", and resume (--resume), which continues from {found[-1].name}. If the weights had gone wrong by then, "
            f"delete the folder {found[-1]} first: the run then {before}."
        )

    def _check_folder(self, resume: bool) -> None:
        saved = self.folder / "config.json"
        if not resume and (saved.exists() or checkpoints(self._checkpoints)):
            raise CheckpointError(
                f"{self.folder} already holds a run. Continue it with resume (--resume), or choose another folder "
                "(--out)."
            )
        if saved.exists():
            text = saved.read_text(encoding="utf-8", errors="replace")
            check_same_run(config_from_json(text, source=f"configuration {saved}"), self.config, self.folder)
        check_writable(self.folder)
        if resume:
            remove_unfinished(self.folder)
            remove_unfinished(self._checkpoints)

    def _dataset(self, split: str, catalog: "ComponentCatalog | None") -> CaptionedImages:
        assert self.config.data is not None
        context = DatasetContext(
            image_size=self.model.tokenizer.image_size,
            split=split,
            seed=self.settings.seed,
        )
        dataset = build_dataset(self.config.data, context, catalog)
        assert isinstance(dataset, CaptionedImages)
        return dataset

    def _fit_tokenizer(self) -> None:
        tokenizer = self.model.tokenizer
        if isinstance(tokenizer, LearnsFromImages) and not tokenizer.fitted:
            read = readable_items(self.train_data, self.settings.num_fit_images, shuffle_seed=self.settings.seed)
            self.progress.note(f"fitting the tokenizer on {len(read.items)} images")
            self._report_unreadable(read.unreadable, "while fitting the tokenizer")
            tokenizer.fit(stack(read.items).images.to(self.model.device), seed=self.settings.seed)

    def _log(
        self, loss: BatchLoss, norm: float, rate: float, started: float, first_step: int, num_unreadable: int
    ) -> None:
        seconds = time.perf_counter() - started
        self.metrics.write(
            step=self.step,
            loss=float(loss.mean.detach()),
            **{name: float(part) / loss.num_tokens for name, part in loss.parts.items()},
            gradient_norm=norm,
            learning_rate=rate,
            images_per_second=(self.step - first_step) * self.settings.batch_size / seconds,
            seconds=seconds,
            num_unreadable_images=num_unreadable,
        )

    def _validate(self) -> dict[str, float]:
        if self.validation_data is None:
            return {}
        read = readable_items(self.validation_data, self.settings.num_validation_images)
        with self.average.applied():
            values = validation_loss(self.model, read.items)
        self.metrics.write(
            step=self.step,
            **{f"validation_{name}": value for name, value in values.items()},
            validation_num_unreadable_images=len(read.unreadable),
        )
        self.progress.note(f"step {self.step}: validation loss {values['loss']:.4f}")
        self._report_unreadable(read.unreadable, "in validation")
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
            progress=Progress(step=self.step, seconds=self._seconds()),
            model=self.model,
            average=self.average,
            optimizer=self.optimizer,
            keep=self.settings.keep_checkpoints,
        )

    def _save_models(self) -> Path:
        save_model(self.model, self.folder / "model-raw", weights="raw")
        with self.average.applied():
            save_model(self.model, self.folder / "model", weights="ema")
        return self.folder / "model"

    def _report_unreadable(self, unreadable: dict[int, str], when: str) -> None:
        if unreadable:
            reasons = list(unreadable.values())
            self.progress.note(f"skipped {len(reasons)} pictures {when} that can not be read, such as: {reasons[0]}")

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _step_seed(seed: int, step: int) -> int:
    # A prime apart, so that runs with neighbouring seeds do not share steps.
    return (seed * 1_000_000_007 + step) % 2**63


def _device(name: str) -> torch.device:
    """The device that `training.device` names. Raises `ConfigurationError` for one this machine does not have."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(
            f"training.device is '{name}', which can not be used here: {reason}. Set it to 'auto' or 'cpu'."
        ) from error
