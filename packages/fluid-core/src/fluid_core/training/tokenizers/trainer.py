"""Training a tokenizer that is itself a model, such as an autoencoder.

As in the training of models, everything random in step `s` follows from the seed and `s` alone, so that a resumed run
is bit-equal to one that was never interrupted (on a CPU).
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch
from torch import nn

from fluid_core.assembly import build_dataset
from fluid_core.atomic_files import new_folder, write_bytes
from fluid_core.catalog import installed_components
from fluid_core.configuration import PerceptualTerm, TokenizerRunConfig, TokenizerTrainingConfig, config_to_json
from fluid_core.data.batches import ImageBatch, readable_items, stack
from fluid_core.data.captioned_images import CaptionedImages, CaptionedStream
from fluid_core.data.open_batches import Batches, open_batches
from fluid_core.data.skipped_items import SkippedItems
from fluid_core.errors import ConfigurationError, NonFiniteLossError
from fluid_core.exchange import DatasetContext, ReconstructionLoss
from fluid_core.protocols import FeatureNetwork, LearnsFromImages, StoredApart, Tokenizer, TrainsOnImages
from fluid_core.training.checkpoints.run_checkpoints import RunCheckpoints
from fluid_core.training.checkpoints.whole import Progress
from fluid_core.training.devices import training_device
from fluid_core.training.processes import Processes
from fluid_core.training.run.clock import RunClock
from fluid_core.training.run.folder import CHECKPOINTS, CONFIG_FILE, check_run_folder, how_to_go_on
from fluid_core.training.sight.metrics import MetricsFile
from fluid_core.training.sight.progress import TrainingProgress
from fluid_core.training.sight.skipped_file import SkippedFile, note_skipped
from fluid_core.training.step.gradient_step import (
    gradient_step,
    learning_rate,
    seed_global_generator,
    step_seed,
)
from fluid_core.training.step.moving_average import MovingAverage
from fluid_core.training.step.non_finite import non_finite_cause, non_finite_gradient
from fluid_core.training.step.optimizer import build_optimizer
from fluid_core.training.tokenizers.fitting import fit_tokenizer
from fluid_core.training.tokenizers.perceptual import perceptual_distance
from fluid_core.training.tokenizers.reconstructions import mean_psnr, reconstructed, save_reconstructions
from fluid_core.training.tokenizers.trained_tokenizer import TrainedTokenizer

if TYPE_CHECKING:
    from fluid_core.catalog import ComponentCatalog

_NUM_SHOWN = 8
"""Pictures on a sheet of reconstructions."""


@attrs.frozen(kw_only=True)
class TokenizerTrainingResult:
    """Where a finished run left its tokenizer, and its last figures."""

    tokenizer_folder: Path
    num_steps: int
    seconds: float
    images_per_second: float
    validation: dict[str, float]
    """`psnr`, in decibels, of the averaged weights on held-out images; empty if none are measured."""


class TokenizerTrainer:
    """Trains the tokenizer of a configuration and writes everything below one folder.

    `config.json`, `metrics.jsonl`, `reconstructions/step-*.png`, `checkpoints/step-*/` and at the end `tokenizer/`: the
    moving average with statistics of the training images, for the option of a model's tokenizer that names a folder.

    A new run refuses a folder that already holds one; `resume=True` continues from its newest checkpoint, or starts if
    there is none.

    Started by `torchrun`, several processes train one tokenizer, each on its share of every batch (`processes.py`).

    Raises `ConfigurationError`, also for a tokenizer that does not train, `CheckpointError`, `OutputError`, and what
    building the parts raises: the folder is claimed, with `config.json`, once everything is built.
    """

    def __init__(
        self,
        config: TokenizerRunConfig,
        folder: str | Path,
        *,
        resume: bool = False,
        catalog: "ComponentCatalog | None" = None,
        progress: TrainingProgress | None = None,
    ) -> None:
        self.config = config
        self.settings: TokenizerTrainingConfig = config.training
        self.folder = Path(folder)
        self.processes = Processes.join()
        self.progress = progress or TrainingProgress(silent=not self.processes.is_first)
        self._share = self.processes.share(self.settings.batch_size)
        catalog = catalog or installed_components()
        if self.processes.is_first:
            check_run_folder(self.folder, config, resume=resume)
        self.device = training_device(self.settings.device)
        torch.manual_seed(self.settings.seed)
        tokenizer = catalog.build(
            "tokenizer", config.tokenizer.name, config.tokenizer.options, root="$.tokenizer.options"
        )
        self.tokenizer: nn.Module = _trainable(tokenizer, config.tokenizer.name).to(self.device)
        self.tokenizer.train()
        self.perceptual = _feature_network(self.settings.perceptual, catalog, self.device)
        self.train_data = self._dataset("train", catalog)
        measured = self.settings.num_validation_images > 0
        self.validation_data = self._dataset("validation", catalog) if measured else None
        self.average = MovingAverage(self.tokenizer, self.settings.ema_decay)
        self.optimizer = build_optimizer(self.tokenizer, self.settings)
        self.step = 0
        """Steps taken so far."""

        self._state = TrainedTokenizer(self.tokenizer)
        self._saved = RunCheckpoints(
            self.folder / CHECKPOINTS,
            model=self._state,
            average=self.average,
            optimizer=self.optimizer,
            keep=self.settings.keep_checkpoints,
            tell=self.progress.note,
            processes=self.processes,
        )
        reached = self._saved.load_newest()
        self.step, self._data_state = reached.step, reached.data
        self.processes.copy_from_first(self.tokenizer)
        self._clock = RunClock(self.settings, seconds_before=reached.seconds)
        self.metrics: MetricsFile | None = None
        if self.processes.is_first:
            write_bytes(self.folder / CONFIG_FILE, config_to_json(self.config).encode())
            self.metrics = MetricsFile(self.folder / "metrics.jsonl", resume_step=self.step)
        self._skipped_file = SkippedFile(self.folder, self.processes)

    def train(self) -> TokenizerTrainingResult:
        """Run to the last step. Raises `NonFiniteLossError` without touching weights or files if the loss is NaN."""
        settings, clock, first_step = self.settings, self._clock, self.step
        loader = open_batches(
            self.train_data,
            batch_size=settings.batch_size,
            seed=settings.seed,
            share=self._share,
            state=self._data_state,
            max_skipped_share=settings.max_skipped_share,
        )
        validation: dict[str, float] = {}
        clock.start()
        with self.progress.running(
            first_step, settings.num_steps, settings.batch_size, seconds_left=clock.seconds_left
        ):
            try:
                share_of_time = self._share_of_time()
                last = clock.finished(self.step, share_of_time=share_of_time)
                while not last:
                    losses, figures = self._train_step(loader, share_of_time)
                    self.step += 1
                    share_of_time = self._share_of_time()
                    last = clock.finished(self.step, share_of_time=share_of_time)
                    if self.step % settings.log_every == 0 or last:
                        self._log(losses, figures, first_step, loader.skipped)
                    saves = self.step % settings.checkpoint_every == 0 or last
                    if saves and loader.state() is not None:
                        self._data_state = tuple(self.processes.gather_json(loader.state()))
                    # The others wait at the next step, where gradients are summed.
                    if not self.processes.is_first:
                        continue
                    if settings.sample_every and (self.step % settings.sample_every == 0 or last):
                        self._draw_reconstructions()
                    if saves:
                        validation = self._validate()
                        self._saved.save(Progress(step=self.step, seconds=clock.seconds, data=self._data_state))
            finally:
                loader.close()
                self._skipped_file.add(loader.skipped.listed.values(), when="training")
        seconds = clock.seconds_here
        note_skipped(self.progress, loader.skipped, "in training")
        if self.processes.is_first:
            self._save_tokenizer()
        self.processes.wait()
        return TokenizerTrainingResult(
            tokenizer_folder=self._tokenizer_folder,
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

    def _train_step(self, loader: Batches, share_of_time: float) -> tuple[dict[str, float], dict[str, float]]:
        """One step: the loss and its parts on this process's images, and figures that are the same in all processes."""
        settings, step, tokenizer = self.settings, self.step, self.tokenizer
        assert isinstance(tokenizer, TrainsOnImages)
        batch = loader.batch(step)
        assert isinstance(batch, ImageBatch)
        images = batch.images.to(self.device)
        generator = torch.Generator().manual_seed(step_seed(settings.seed, step))
        seed_global_generator(settings.seed, step)
        loss: ReconstructionLoss = tokenizer.reconstruction_loss(images, generator=generator, share=self._share)
        total, parts = loss.total, {name: float(part) for name, part in loss.parts.items()}
        if self.perceptual is not None and settings.perceptual is not None:
            distance = perceptual_distance(self.perceptual, loss.reconstruction, images)
            total = total + settings.perceptual.weight * distance
            parts["perceptual"] = float(distance.detach())
        value = float(total.detach())
        if not math.isfinite(value):
            raise NonFiniteLossError(self._non_finite_report(value, parts))
        rate = learning_rate(settings, step, share_of_time=share_of_time)
        norm = gradient_step(
            total * (self._share.count / self._share.total),
            self.optimizer,
            learning_rate=rate,
            clip_norm=settings.gradient_clip_norm,
            non_finite=self._non_finite_gradient_report,
            processes=self.processes,
        )
        upkeep = tokenizer.after_step(generator=generator)
        self.average.update(step)
        self.progress.stepped(step + 1, value)
        return {"loss": value, **parts}, {**upkeep, "gradient_norm": norm, "learning_rate": rate}

    def _non_finite_report(self, value: float, parts: dict[str, float]) -> str:
        names = [name for name, part in parts.items() if not math.isfinite(part)]
        where = f"part {', '.join(names)} of the loss" if names else "the loss"
        return (
            f"Step {self.step + 1}: {where} is {value}, expected a finite number. {non_finite_cause(self.tokenizer)}; "
            f"the step was not taken and no file was changed. Lower training.learning_rate, set "
            f"training.gradient_clip_norm{how_to_go_on(self.folder)}"
        )

    def _non_finite_gradient_report(self) -> str:
        return (
            f"Step {self.step + 1}: {non_finite_gradient(self.tokenizer)}. The step was not taken and no "
            f"file was changed. Lower training.learning_rate{how_to_go_on(self.folder)}"
        )

    def _dataset(self, split: str, catalog: "ComponentCatalog") -> CaptionedImages | CaptionedStream:
        context = DatasetContext(image_size=self._tokenizer.image_size, split=split, seed=self.settings.seed)
        dataset = build_dataset(self.config.data, context, catalog)
        assert isinstance(dataset, CaptionedImages | CaptionedStream)
        return dataset

    def _log(self, losses: dict[str, float], figures: dict[str, float], first_step: int, skipped: SkippedItems) -> None:
        seconds = self._clock.seconds_here
        weight = self._share.count / self._share.total
        own = torch.tensor([weight * value for value in losses.values()] + [float(len(skipped))])
        *means, num_skipped = self.processes.sum(own.to(self.device)).tolist()
        self._skipped_file.add(skipped.listed.values(), when="training")
        if self.metrics is None:
            return
        self.metrics.write(
            step=self.step,
            **dict(zip(losses, means, strict=True)),
            **figures,
            images_per_second=(self.step - first_step) * self.settings.batch_size / seconds,
            seconds=seconds,
            num_skipped_images=int(num_skipped),
        )

    def _validate(self) -> dict[str, float]:
        if self.validation_data is None:
            return {}
        assert self.metrics is not None
        read = readable_items(self.validation_data, self.settings.num_validation_images)
        images = stack(read.items).images
        with self.average.applied():
            found = reconstructed(self._tokenizer, images, device=self.device)
        values = {"psnr": mean_psnr(found, images)}
        self.metrics.write(
            step=self.step,
            **{f"validation_{name}": value for name, value in values.items()},
            validation_num_skipped_images=len(read.skipped),
        )
        self.progress.note(f"step {self.step}: validation PSNR {values['psnr']:.2f} dB")
        note_skipped(self.progress, read.skipped, "in validation")
        self._skipped_file.add(read.skipped, when="validation")
        return values

    def _draw_reconstructions(self) -> None:
        data = self.train_data if self.validation_data is None else self.validation_data
        images = stack(readable_items(data, _NUM_SHOWN).items).images
        with self.average.applied():
            found = reconstructed(self._tokenizer, images, device=self.device)
        path = self.folder / "reconstructions" / f"step-{self.step:08d}.png"
        save_reconstructions(path, images, found, title=f"step {self.step}")
        self.progress.note(f"step {self.step}: reconstructions in {path}")

    def _save_tokenizer(self) -> None:
        """Write the averaged weights, with what the tokenizer learns from images measured under them."""
        tokenizer = self.tokenizer
        assert isinstance(tokenizer, StoredApart)
        with self.average.applied():
            tokenizer.eval()
            if isinstance(tokenizer, LearnsFromImages):
                fit_tokenizer(tokenizer, self.train_data, self.settings, device=self.device, progress=self.progress)
            with new_folder(self._tokenizer_folder) as new:
                tokenizer.save_pretrained(new)
            tokenizer.train()

    @property
    def _tokenizer_folder(self) -> Path:
        return self.folder / "tokenizer"

    @property
    def _tokenizer(self) -> Tokenizer:
        assert isinstance(self.tokenizer, Tokenizer)
        return self.tokenizer


def _trainable(tokenizer: object, name: str) -> nn.Module:
    """The tokenizer, with gradients for all of its weights. Raises `ConfigurationError` if it can not be trained."""
    if not (isinstance(tokenizer, TrainsOnImages) and isinstance(tokenizer, StoredApart)):
        raise ConfigurationError(
            "Expected a tokenizer with weights to train, such as 'kl-autoencoder' or 'vq-autoencoder', found "
            f"'{name}': it has none, or no folder to keep them in. Train a model with it at once (fluid train)."
        )
    assert isinstance(tokenizer, nn.Module)
    others = {str(p.dtype).removeprefix("torch.") for p in tokenizer.parameters() if p.dtype != torch.float32}
    if others:
        raise ConfigurationError(
            f"Expected a tokenizer with weights in float32 to train, found {', '.join(sorted(others))}: steps of "
            "training are too small for it. Set tokenizer.options.dtype to 'float32'."
        )
    return tokenizer.requires_grad_(True)


def _feature_network(
    term: PerceptualTerm | None, catalog: "ComponentCatalog", device: torch.device
) -> FeatureNetwork | None:
    """The fixed network of the perceptual term, if there is one."""
    if term is None:
        return None
    network = catalog.build("feature-network", term.network, term.options, root="$.training.perceptual.options")
    if isinstance(network, nn.Module):
        network.requires_grad_(False).eval().to(device)
    assert isinstance(network, FeatureNetwork)
    return network
