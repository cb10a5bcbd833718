"""A tiny saved model, a tiny CLIP, and the program, for the tests of evaluation."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fluid_core import FluidPipeline
from fluid_core.cli import main


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """A saved CLIP with random weights and a vocabulary of single letters."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("models") / "clip"
    folder.mkdir()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    signs = [*letters, "-", *(f"{letter}</w>" for letter in [*letters, "-"]), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({sign: index for index, sign in enumerate(signs)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **size,
            "vocab_size": len(signs),
            "bos_token_id": len(signs) - 2,
            "eos_token_id": len(signs) - 1,
            "max_position_embeddings": 64,
        },
        vision_config={**size, "image_size": 16, "patch_size": 8},
        projection_dim=12,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(config)
    model.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def saved_model(small_model, tmp_path_factory) -> Path:
    """The folder of a tiny model of 24 x 24 pixels."""
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


@pytest.fixture
def fluid_in_processes(tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """A function that runs the program through `torchrun`, as a user does."""

    def run(num_processes: int, *arguments: Any) -> subprocess.CompletedProcess:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
        return subprocess.run(
            [*start, "-m", "fluid_core.cli", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run
