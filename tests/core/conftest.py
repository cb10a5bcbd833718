"""Small models, one of them saved, an order that no plugin offers, and the program, for the tests of core."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fluid_core import AttentionPattern, FluidConfig, FluidModel, FluidPipeline, TrainedPermutations
from fluid_core.cli import main
from fluid_core.configuration import BackboneConfig, ComponentChoice
from fluid_core.exchange import TrainingView
from fluid_core.planned_steps import PlannedSteps

CONTINUOUS = {"tokenizer": "pixel-patches", "head": "diffusion"}
DISCRETE = {"tokenizer": "patch-codebook", "head": "softmax"}
PATCHES = {"image_size": 24, "patch_size": 8}


class ShuffledCausalOrder:
    """Causal over any permutation; generation proposes `tokens_per_step` positions at a time."""

    attention = AttentionPattern.CAUSAL
    trained_permutations = TrainedPermutations.ANY

    def __init__(self, tokens_per_step: int = 1) -> None:
        self.tokens_per_step = tokens_per_step

    def training_view(self, batch_size, grid, *, generator, device):
        """A permutation for each image."""
        order = torch.rand(batch_size, grid.length, generator=generator).argsort(dim=1)
        return TrainingView(order=order.to(device), num_known=torch.zeros(batch_size, dtype=torch.int64))

    def generation(self, unknown, grid, *, num_steps, random):
        """A permutation of the unknown positions of each image."""
        num_unknown = int(unknown[0].sum())
        ranks = random.uniform((grid.length,)).masked_fill(~unknown, 2.0)
        sizes = [self.tokens_per_step] * (num_unknown // self.tokens_per_step)
        rest = num_unknown - sum(sizes)
        return PlannedSteps(ranks.argsort(dim=1)[:, :num_unknown], [*sizes, rest] if rest else sizes)


@pytest.fixture(scope="session")
def shuffled_causal_order() -> type[ShuffledCausalOrder]:
    """An order that is causal over any permutation."""
    return ShuffledCausalOrder


@pytest.fixture(scope="session")
def small_config() -> Callable[..., FluidConfig]:
    """A function that makes the configuration of a tiny model over 9 tokens: 24 x 24 pixels in patches of 8.

    It takes `tokens` (`continuous` or `discrete`), the name of an `order`, and other fields of `FluidConfig`.
    """

    def make(tokens: str = "continuous", order: str = "random", **others: Any) -> FluidConfig:
        names = CONTINUOUS if tokens == "continuous" else DISCRETE
        options = PATCHES if tokens == "continuous" else {**PATCHES, "vocabulary_size": 24}
        head = {"depth": 1, "timesteps_per_token": 1, "num_sampling_steps": 2} if tokens == "continuous" else {}
        fields = {
            "tokenizer": ComponentChoice(name=names["tokenizer"], options=options),
            "text_encoder": ComponentChoice(name="bytes", options={"width": 16}),
            "order": ComponentChoice(name=order),
            "head": ComponentChoice(name=names["head"], options=head),
            "backbone": BackboneConfig(size="debug"),
            **others,
        }
        return FluidConfig(**fields)

    return make


@pytest.fixture(scope="session")
def small_model(small_config) -> Callable[..., FluidModel]:
    """A function that builds such a model, its tokenizer fitted on noise.

    Its predictions depend on what it sees, as those of a trained model: fresh diffusion heads have weights of zero, and
    the logits of fresh tables are close to each other. `order` may also be an order itself.
    """

    def make(tokens: str = "continuous", order: Any = "random", *, seed: int = 0, **others: Any) -> FluidModel:
        name = order if isinstance(order, str) else "random"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = small_config(tokens, name, **others)
            model = FluidModel.from_config(config)
            if not isinstance(order, str):
                # The order decides how tokens are embedded, so a model with another one is put together anew.
                model = FluidModel(
                    tokenizer=model.tokenizer,
                    text_encoder=model.text_encoder,
                    order=order,
                    head=lambda context: model.catalog.build("head", config.head.name, config.head.options, context),
                    backbone=config.backbone.shape(),
                )
            with torch.no_grad():
                for parameter in model.head.parameters():
                    parameter.add_(0.05 * torch.randn_like(parameter))
                if tokens == "discrete":
                    model.token_embedding.content.weight.mul_(6.0)
            model.tokenizer.fit(torch.rand(8, 3, 24, 24) * 2 - 1, seed=0)
        return model

    return make


@pytest.fixture(scope="session")
def saved_model(small_model, tmp_path_factory) -> Path:
    """The folder of such a model, over random orders."""
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    FluidPipeline(small_model(), weights="ema").save_pretrained(folder)
    return folder


@pytest.fixture
def fluid(monkeypatch, capsys, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """A function that runs the program in this process, in `tmp_path`: exit code, output and error output."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["fluid", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Variables for programs that must draw to the byte what this process draws: as many threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "NO_COLOR": "1"}


@pytest.fixture
def fluid_in_processes(torchrun, environment, tmp_path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """A function that runs the program through `torchrun`, as a user does, in `tmp_path`."""

    def run(num_processes: int, *arguments: Any, **how: Any) -> "subprocess.CompletedProcess[str]":
        return torchrun(num_processes, "-m", "fluid_core.cli", *arguments, cwd=tmp_path, environment=environment, **how)

    return run


@pytest.fixture
def images() -> torch.Tensor:
    """Four pictures in [-1, 1]."""
    return torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.fixture
def captions() -> list[str]:
    """A caption for each of `images`, of different lengths."""
    return ["a red circle", "two blue squares", "a", "a green star above a yellow triangle"]
