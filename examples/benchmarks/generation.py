"""How fast whole images come into being: every order beside a straightforward loop, in one run.

Command:   python examples/benchmarks/generation.py [--json FILE] [--batches 1 4] [--guidance off on]
Shows:     seconds per call, divided into backbone and head, and the speedup over the straightforward loop; what the
           tokenizer's decoder adds
Runtime:   about five minutes for one image without guidance on two cores, half an hour with all that can be asked for
Expected:  random order 2.2 to 2.5 times as fast with the same output and 3.0 to 3.7 times with the default settings;
           causal-random nine to twelve times, raster three to four; docs/performance.md has the figures

The model has the size of the predecessor's base model: a backbone of about 170M parameters (18 blocks of width 768;
the text aligner is not counted) and a diffusion head of 36M (six blocks of width 1024), 256 tokens of 16 channels,
float32, random weights: speed does not depend on training. Cases:

- straightforward: random order as one would write it down. Every step projects the text, computes the whole canvas
  with every block, and draws the step's tokens with the head's plain sampler in 100 steps;
- same output: `fluid_core.generation` with the same 100 head steps; its tokens are compared with the former's;
- defaults: with the head's default number of steps.

`share_of_limit`, for raster alone, is the time in which the weights that a token needs can be read once per token, at
the mean rate of large copies right before and after the run, over the time its backbone took.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from machine_limits import measure_limits, rate_of_copies, seconds_of
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from fluid_core import ContinuousTokens, FluidModel, Grid
from fluid_core.backbone.sizes import BackboneShape
from fluid_core.exchange import Guidance, SamplerSettings, SamplingRequest
from fluid_core.generation import GenerationSettings, generate
from fluid_core.guidance import GuidanceSchedule
from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import OrderPolicy
from fluid_core.sampler_choice import ChosenSampler, build_sampler
from fluid_core.text import ByteEncoder, ByteEncoderOptions
from fluid_core.text.text_aligner import AlignedText
from fluid_heads import DiffusionHead, DiffusionOptions
from fluid_orders import CausalRandomOrder, RandomOrder, RasterOrder
from fluid_tokenizers import KLAutoencoder, KLAutoencoderOptions

PROMPT = "a watercolour of two herons by a lake at dawn, reeds in front, mist over the water, mountains far away"
SCALE = 3.0
SAME_OUTPUT_STEPS = 100
AGREE_WITHIN = 1e-3
console = Console(width=None if sys.stdout.isatty() else 140)


@attrs.frozen(kw_only=True)
class Sizes:
    """The model that is measured."""

    width: int = 768
    depth: int = 18
    num_heads: int = 12
    head_width: int = 1024
    head_depth: int = 6
    grid: int = 16
    channels: int = 16


BASE = Sizes()
QUICK = Sizes(width=64, depth=3, num_heads=4, head_width=64, head_depth=2, grid=6)


class LatentSpace(nn.Module):
    """A tokenizer that stands for any with tokens of this space: nothing is encoded or decoded while drawing tokens."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.token_space = ContinuousTokens(grid=Grid(height=sizes.grid, width=sizes.grid), channels=sizes.channels)
        self.image_size = (16 * sizes.grid, 16 * sizes.grid)

    def precompute(self, images: Tensor) -> dict[str, Tensor]:
        """Not needed here."""
        raise NotImplementedError

    def tokens(self, precomputed: dict[str, Tensor], *, random: KeyedRandom) -> Tensor:
        """Not needed here."""
        raise NotImplementedError

    def decode(self, tokens: Tensor) -> Tensor:
        """Not needed here."""
        raise NotImplementedError


class TimedSampler:
    """A head's sampler that adds up the time in which it is prepared and called."""

    def __init__(self, build: Callable[[], ChosenSampler]) -> None:
        started = time.perf_counter()
        self._chosen = build()
        self.seconds = time.perf_counter() - started

    def __call__(self, condition: Tensor, request: SamplingRequest) -> Tensor:
        """One token for each hidden vector."""
        started = time.perf_counter()
        drawn = self._chosen.sampler(condition, request)
        self.seconds += time.perf_counter() - started
        return drawn

    def chosen(self) -> ChosenSampler:
        """In place of the sampler that is timed."""
        return ChosenSampler(sampler=self, backend=self._chosen.backend)


@attrs.frozen(kw_only=True)
class Run:
    """One call: its tokens and where its time went."""

    tokens: Tensor
    seconds: float
    head_seconds: float
    bytes_per_second: float | None = None
    """Rate of copies around it, where that was measured."""


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
    console.print(str(measure_limits()))
    sizes = QUICK if arguments.quick else BASE
    rows: list[dict[str, Any]] = []
    for batch in arguments.batches:
        for guided in [word == "on" for word in arguments.guidance]:
            rows += measure(sizes, batch, guided=guided, repeats=arguments.repeats)
    rows += [decoding(sizes, batch, repeats=arguments.repeats) for batch in arguments.batches]
    console.print(_table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if any(row["same_output"] is False for row in rows):
        sys.exit("The tokens of the straightforward loop and of the library differ.")


def build_model(order: OrderPolicy, sizes: Sizes) -> FluidModel:
    """A model of the predecessor's base size that samples in `order`."""
    torch.manual_seed(0)
    options = DiffusionOptions(width=sizes.head_width, depth=sizes.head_depth)
    model = FluidModel(
        tokenizer=LatentSpace(sizes),
        text_encoder=ByteEncoder(ByteEncoderOptions(width=sizes.width)),
        order=order,
        head=lambda context: DiffusionHead(context.token_space, context.width, options),
        backbone=BackboneShape(width=sizes.width, depth=sizes.depth, num_heads=sizes.num_heads, aligner_depth=2),
    )
    for parameter in model.head.parameters():
        if parameter.ndim > 1:
            # A fresh head predicts zero whatever it is told; this one listens.
            nn.init.normal_(parameter, std=0.02)
    return model.eval()


def measure(sizes: Sizes, batch: int, *, guided: bool, repeats: int) -> list[dict[str, Any]]:
    """All cases for one batch size; those of random order take turns, so that a slow spell meets all of them."""
    cases: list[tuple[str, str, Callable[[], Run]]] = []
    runs: dict[tuple[str, str], list[Run]] = {}
    rows = []
    model = build_model(RandomOrder(), sizes)
    cases.append(("random", "straightforward", lambda: straightforward(model, batch, guided=guided)))
    cases.append(("random", "same output", lambda: fluid(model, batch, guided=guided, head_steps=SAME_OUTPUT_STEPS)))
    cases.append(("random", "defaults", lambda: fluid(model, batch, guided=guided)))
    causal = build_model(CausalRandomOrder(), sizes)
    cases.append(("causal-random", "defaults", lambda: fluid(causal, batch, guided=guided)))
    raster = build_model(RasterOrder(), sizes)
    cases.append(("raster", "defaults", lambda: beside_copies(lambda: fluid(raster, batch, guided=guided))))
    for _ in range(repeats):
        for order, case, run in cases:
            runs.setdefault((order, case), []).append(run())
            last = runs[order, case][-1]
            console.print(f"{order}, {case}, batch {batch}, guidance {_on_off(guided)}: {last.seconds:.1f} s")
    plain = _median(runs["random", "straightforward"])
    for (order, case), found in runs.items():
        middle = _median(found)
        backbone = middle.seconds - middle.head_seconds
        rows.append(
            {
                "order": order,
                "case": case,
                "batch": batch,
                "guidance": guided,
                "seconds": middle.seconds,
                "backbone_seconds": backbone,
                "head_seconds": middle.head_seconds,
                "speedup": plain.seconds / middle.seconds,
                "share_of_limit": None,
                "same_output": None,
            }
        )
        if middle.bytes_per_second is not None:
            reading = 4.0 * weights_per_token(raster) * raster.tokenizer.token_space.grid.length
            rows[-1]["share_of_limit"] = reading / middle.bytes_per_second / backbone
        if case == "same output":
            rows[-1]["same_output"] = _agree(plain.tokens, middle.tokens)
    return rows


@torch.no_grad()
def straightforward(model: FluidModel, batch: int, *, guided: bool) -> Run:
    """Random order as one would write it down: nothing is computed once that could be computed again."""
    started, head_seconds = time.perf_counter(), 0.0
    text = _text(model, batch)
    if guided:
        nothing = model.unconditional_text(batch)
        padding = text.states.shape[1] - nothing.states.shape[1]
        text = AlignedText(
            states=torch.cat([text.states, nn.functional.pad(nothing.states, (0, 0, 0, padding))]),
            mask=torch.cat([text.mask, nn.functional.pad(nothing.mask, (0, padding))]),
        )
    grid = model.tokenizer.token_space.grid
    tokens = model.tokenizer.token_space.empty(batch)
    known = torch.zeros(batch, grid.length, dtype=torch.bool)
    random = _random(batch)
    sampler = model.head.sampler(SamplerSettings(num_steps=SAME_OUTPUT_STEPS, backend="reference"))
    steps = model.order.generation(~known, grid, num_steps=None, random=random.child(0))
    rows = torch.arange(batch)[:, None]
    step = 0
    while (positions := steps.propose()) is not None:
        halves = 2 if guided else 1
        canvas = model.token_embedding.canvas(tokens.repeat(halves, 1, 1), known.repeat(halves, 1))
        keys_values = model.transformer.text(text.states, text.mask)
        hidden = model.transformer(canvas, keys_values, causal=False)
        condition = hidden[:batch][rows, positions].flatten(0, 1)
        guidance = None
        if guided:
            negative = hidden[batch:][rows, positions].flatten(0, 1)
            guidance = Guidance(negative=negative, scale=negative.new_full(negative.shape[:1], SCALE))
        request = SamplingRequest(
            random=random.child(1 + step).children(positions),
            temperature=1.0,
            guidance=guidance,
            progress=float(known[0].float().mean()),
        )
        head_started = time.perf_counter()
        drawn = sampler(condition, request)
        head_seconds += time.perf_counter() - head_started
        tokens[rows, positions] = drawn.view(*positions.shape, -1)
        known[rows, positions] = True
        steps.accept(None)
        step += 1
    return Run(tokens=tokens, seconds=time.perf_counter() - started, head_seconds=head_seconds)


def fluid(model: FluidModel, batch: int, *, guided: bool, head_steps: int | None = None) -> Run:
    """The library's own loop, with everything a call prepares counted."""
    started = time.perf_counter()
    settings = GenerationSettings(num_head_steps=head_steps, guidance=GuidanceSchedule(scale=SCALE if guided else 1.0))
    with torch.no_grad():
        text = _text(model, batch)
    sampler = TimedSampler(lambda: build_sampler(model.head, settings.sampler_settings))
    tokens = generate(model, text, random=_random(batch), settings=settings, sampler=sampler.chosen())
    return Run(tokens=tokens, seconds=time.perf_counter() - started, head_seconds=sampler.seconds)


def beside_copies(run: Callable[[], Run]) -> Run:
    """A run, and the mean rate of copies right before and after it."""
    before = rate_of_copies()
    found = run()
    return attrs.evolve(found, bytes_per_second=(before + rate_of_copies()) / 2.0)


def weights_per_token(model: FluidModel) -> int:
    """Weights that a token of a cached sequence meets: those that project the text serve a prompt once."""
    total = sum(parameter.numel() for parameter in model.transformer.parameters())
    text = sum(
        parameter.numel()
        for block in model.transformer.blocks
        for parameter in block.cross_attention.keys_values.parameters()
    )
    return total - text


def decoding(sizes: Sizes, batch: int, *, repeats: int) -> dict[str, Any]:
    """The tokenizer's part: the decoder of Stable Diffusion's autoencoder, whose weights do not matter here."""
    widths = [32, 32] if sizes is QUICK else [128, 256, 512, 512]
    architecture = {
        "class": "AutoencoderKL",
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "block_out_channels": widths,
        "layers_per_block": 2,
    }
    side = 16 * sizes.grid if sizes is BASE else 32
    tokenizer = KLAutoencoder(KLAutoencoderOptions(architecture=architecture, image_size=side, patch_size=2))
    space = tokenizer.token_space
    tokens = torch.randn(batch, space.grid.length, *space.token_shape)
    with torch.no_grad():
        times = sorted(seconds_of(lambda: tokenizer.decode(tokens)) for _ in range(repeats))
    return {
        "order": "any",
        "case": f"decoding {side} x {side} pixels",
        "batch": batch,
        "guidance": False,
        "seconds": times[len(times) // 2],
        "backbone_seconds": 0.0,
        "head_seconds": 0.0,
        "speedup": None,
        "share_of_limit": None,
        "same_output": None,
    }


def _text(model: FluidModel, batch: int) -> AlignedText:
    return model.align_text([PROMPT] * batch)


def _random(batch: int) -> KeyedRandom:
    return KeyedRandom(torch.arange(batch) + 7)


def _median(runs: list[Run]) -> Run:
    return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]


def _agree(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() < AGREE_WITHIN * max(1.0, float(one.abs().max())))


def _on_off(guided: bool) -> str:
    return "on" if guided else "off"


def _table(rows: list[dict[str, Any]]) -> Table:
    columns = (
        "order",
        "case",
        "batch",
        "guidance",
        "seconds",
        "backbone",
        "head",
        "speedup",
        "of limit",
        "same output",
    )
    table = Table(*columns, title="Whole images")
    for row in rows:
        table.add_row(
            row["order"],
            row["case"],
            str(row["batch"]),
            _on_off(row["guidance"]),
            f"{row['seconds']:.2f}",
            f"{row['backbone_seconds']:.2f}",
            f"{row['head_seconds']:.2f}",
            "" if row["speedup"] is None else f"{row['speedup']:.2f}",
            "" if row["share_of_limit"] is None else f"{row['share_of_limit']:.2f}",
            {None: "", True: "yes", False: "NO"}[row["same_output"]],
        )
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", nargs="+", type=int, default=[1], help="images drawn at once")
    parser.add_argument("--guidance", nargs="+", default=["off"], choices=["off", "on"])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a tiny model, to see that the script runs")
    parser.add_argument("--json", type=Path, help="write the rows here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
