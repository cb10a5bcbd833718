"""What a position looks at: attention of trained models while they draw, under a causal and a bidirectional order.

Command:   python examples/attention_maps.py RUN [RUN...] [--prompt "a red circle"] [--out attention-maps.png]
Shows:     for every model a picture it is drawing; for three positions about to be predicted the weights they give to
           all others, averaged over heads, in three layers; and the words they look at, where the text has a state
           for each word
Runtime:   seconds for a small model
Expected:  under raster nothing that comes after a position has any weight; under random order weight goes anywhere,
           to known tokens and to places that are not known yet. Layers differ: some look at neighbours, some at an
           object far away

Two small models to look at, minutes on two cores:
  fluid train examples/configs/shapes.toml tokenizer.options.patch_size=4 order.name=raster --out runs/raster
  fluid train examples/configs/shapes.toml tokenizer.options.patch_size=4 --out runs/random
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import attrs
import matplotlib
import torch
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from fluid_core import AttentionPattern, FluidPipeline, TrainedPermutations
from fluid_core.backbone.attention_maps import AttentionMaps, recorded_attention
from fluid_core.generation import GenerationProgress

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

QUERY_COLOURS = ("#d6336c", "#1971c2", "#e8890c")
UNSEEN_COLOUR = "#e9e9e6"


@attrs.frozen(kw_only=True)
class Look:
    """What one position sees when it is about to be predicted; grids have the shape of the picture's tokens."""

    query: int
    known: Tensor
    """Which tokens are known at that moment."""

    visible: Tensor
    """Which positions can have weight at all."""

    weights: list[Tensor]
    """For each chosen layer, the weight of every position, averaged over heads."""

    start: list[float]
    """For each chosen layer, the weight of the start row, which stands at no position; 0 where there is none."""

    words: Tensor
    """The weight of each state of the text, averaged over heads and the chosen layers."""


@attrs.frozen(kw_only=True)
class Scene:
    """One model at work."""

    title: str
    picture: Tensor
    """The picture at the moment that is looked at, `height width 3`."""

    looks: list[Look]
    layer_names: list[str]


def main() -> None:
    """Draw the figure."""
    arguments = _arguments()
    scenes = []
    for folder in arguments.models:
        pipeline = FluidPipeline.from_pretrained(folder / "model" if (folder / "model").is_dir() else folder)
        scenes.append(look_at(pipeline, arguments))
    draw(scenes, arguments)
    for scene in scenes:
        print(scene.title)
        for look in scene.looks:
            print(f"  {describe(look)}")
    print(arguments.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="folders of runs or saved models")
    parser.add_argument("--prompt", default="a red circle")
    parser.add_argument("--share-known", type=float, default=0.4, help="share of tokens known at the moment shown")
    parser.add_argument("--layers", type=int, nargs="+", help="layers, from 1; default: first, middle and last")
    parser.add_argument(
        "--positions",
        nargs="+",
        metavar="ROW,COLUMN",
        help="positions from 0,0, up to three; default: some of each part",
    )
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("attention-maps.png"))
    arguments = parser.parse_args()
    if not 0 < arguments.share_known < 1:
        parser.error(f"--share-known must lie between 0 and 1, found {arguments.share_known:g}")
    return arguments


@torch.no_grad()
def look_at(pipeline: FluidPipeline, arguments: argparse.Namespace) -> Scene:
    """Draw a picture, stop where the share is known, and ask each position what it sees."""
    model = pipeline.model
    grid = model.tokenizer.token_space.grid
    states: list[GenerationProgress] = []
    result = pipeline(
        arguments.prompt,
        seed=arguments.seed,
        guidance_scale=arguments.guidance,
        temperature=0.8,
        callback_on_step_end=states.append,
    )
    wanted = arguments.share_known * grid.length
    # After the last step nothing is about to be predicted.
    moments = states[:-1]
    if not moments:
        raise SystemExit("The model draws all tokens in one step: there is no moment in between to look at.")
    state = min(moments, key=lambda one: abs(int(one.known.sum()) - wanted))
    order = [position for one in states for position in one.kept[0].tolist()]
    fixed = model.order.trained_permutations is TrainedPermutations.FIXED
    queries = _queries(arguments, state.known[0], grid.height, grid.width, anywhere=fixed)
    num_layers = len(model.transformer.blocks)
    usual = {num_layers: "last layer", 1: "first layer"}
    usual.setdefault((num_layers + 1) // 2, "middle layer")
    layers = arguments.layers or sorted(usual)
    if min(layers) < 1 or max(layers) > num_layers:
        raise SystemExit(f"--layers must lie between 1 and {num_layers}, found {layers}.")
    looks = []
    for query in queries:
        if model.order.attention is AttentionPattern.CAUSAL:
            # A fixed permutation asks a position when all before it are known, whatever is known of the picture shown.
            num_known = order.index(query) if fixed else int(state.known.sum())
            looks.append(_causal_look(pipeline, arguments.prompt, result.tokens, order, num_known, query, layers))
        else:
            looks.append(_canvas_look(pipeline, arguments.prompt, state, query, layers))
    # Where each position is asked at its own time, the whole picture says more than any moment of it.
    shown = states[-1] if fixed else state
    kind = "one fixed order" if fixed else "any order"
    assert model.config is not None, "a model from a folder has a configuration"
    return Scene(
        title=f"{model.config.order.name}: {model.order.attention} attention, {kind}",
        picture=pipeline.preview(shown)[0].permute(1, 2, 0).cpu(),
        looks=looks,
        layer_names=[f"layer {layer}" if arguments.layers else usual[layer] for layer in layers],
    )


def _queries(arguments: argparse.Namespace, known: Tensor, height: int, width: int, *, anywhere: bool) -> list[int]:
    """The positions to ask: those given, or the nearest possible to three points of the picture, as far as they go."""
    possible = torch.ones_like(known) if anywhere else ~known
    if arguments.positions:
        chosen = [tuple(map(int, text.split(","))) for text in arguments.positions[: len(QUERY_COLOURS)]]
        queries = [row * width + column for row, column in chosen]
        for (row, column), query in zip(chosen, queries, strict=True):
            if not (0 <= row < height and 0 <= column < width) or not possible[query]:
                raise SystemExit(f"The position {row},{column} is outside the picture, or known at this moment.")
        return queries
    queries = []
    positions = torch.arange(height * width)
    for down, right in ((0.3, 0.3), (0.55, 0.75), (0.85, 0.4))[: int(possible.sum())]:
        distance = (positions // width - down * (height - 1)) ** 2 + (positions % width - right * (width - 1)) ** 2
        distance[~possible.cpu()] = torch.inf
        distance[queries] = torch.inf
        queries.append(int(distance.argmin()))
    return queries


def _maps(pipeline: FluidPipeline, prompt: str, rows: Tensor, *, causal: bool) -> AttentionMaps:
    model = pipeline.model
    aligned = model.align_text([prompt])
    with recorded_attention(model.transformer) as recorder:
        model.transformer(rows, model.transformer.text(aligned.states, aligned.mask), causal=causal)
    return recorder.maps(causal=causal)


def _canvas_look(
    pipeline: FluidPipeline, prompt: str, state: GenerationProgress, query: int, layers: Sequence[int]
) -> Look:
    """Bidirectional: the row of a position stands at that position, and sees all others, known or not."""
    grid = pipeline.model.tokenizer.token_space.grid
    rows = pipeline.model.token_embedding.canvas(state.tokens, state.known)
    maps = _maps(pipeline, prompt, rows, causal=False)
    shape = (grid.height, grid.width)
    return Look(
        query=query,
        known=state.known[0].view(shape),
        visible=torch.ones(shape, dtype=torch.bool),
        weights=[maps.to_image[layer - 1][0, :, query].mean(0).view(shape) for layer in layers],
        start=[0.0 for _ in layers],
        words=torch.stack([maps.to_text[layer - 1][0, :, query].mean(0) for layer in layers]).mean(0),
    )


def _causal_look(
    pipeline: FluidPipeline,
    prompt: str,
    tokens: Tensor,
    order: Sequence[int],
    num_known: int,
    query: int,
    layers: Sequence[int],
) -> Look:
    """Causal: the row that predicts a position holds the token before it, and sees that and the earlier ones."""
    grid = pipeline.model.tokenizer.token_space.grid
    before = list(order[:num_known])
    rest = [position for position in range(grid.length) if position != query and position not in set(before)]
    rows = pipeline.model.token_embedding.sequence(
        tokens, torch.tensor([[*before, query, *rest]], device=tokens.device)
    )
    maps = _maps(pipeline, prompt, rows, causal=True)
    weights, start = [], []
    for layer in layers:
        of_rows = maps.to_image[layer - 1][0, :, num_known].mean(0)
        at_positions = of_rows.new_zeros(grid.length)
        # Row 0 is the start; row i holds the token at position i - 1 of the order. The last ones have no weight.
        at_positions[torch.tensor([*before, query, *rest])[:-1]] = of_rows[1:]
        weights.append(at_positions.view(grid.height, grid.width))
        start.append(float(of_rows[0]))
    visible = torch.zeros(grid.length, dtype=torch.bool)
    visible[before] = True
    return Look(
        query=query,
        known=visible.view(grid.height, grid.width),
        visible=visible.view(grid.height, grid.width),
        weights=weights,
        start=start,
        words=torch.stack([maps.to_text[layer - 1][0, :, num_known].mean(0) for layer in layers]).mean(0),
    )


def describe(look: Look) -> str:
    """A look in figures: where the weight goes, and how far."""
    height, width = look.known.shape
    row, column = divmod(look.query, width)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    distance = ((rows - row) ** 2 + (columns - column) ** 2).sqrt()
    parts = []
    for weights, start in zip(look.weights, look.start, strict=True):
        known, unseen = float(weights[look.known].sum()), float(weights[~look.visible].sum())
        unknown = float(weights[look.visible & ~look.known].sum())
        far = float((weights * distance).sum() / weights.sum().clamp(min=1e-9))
        parts.append(
            f"known {known:.2f} unknown {unknown:.2f} start {start:.2f} unseen {unseen:.2f} distance {far:.1f}"
        )
    return f"position {row},{column} ({int(look.known.sum())} known): " + "; ".join(parts)


def draw(scenes: Sequence[Scene], arguments: argparse.Namespace) -> None:
    """One block for each model: its picture, and below each position's maps from the first layer to the last."""
    words = arguments.prompt.split()
    num_layers = max(len(look.weights) for scene in scenes for look in scene.looks)
    with_words = all(len(look.words) == len(words) for scene in scenes for look in scene.looks)
    num_rows = num_layers + with_words
    figure = plt.figure(figsize=(1.55 * sum(1 + len(scene.looks) for scene in scenes) + 0.6, 1.62 * num_rows + 0.75))
    blocks = figure.subfigures(1, len(scenes), squeeze=False, wspace=0.03)[0]
    for scene, block in zip(scenes, blocks, strict=True):
        block.suptitle(scene.title, fontsize=11)
        panels = block.subplots(num_rows, 1 + len(scene.looks), squeeze=False)
        block.subplots_adjust(left=0.03, right=0.98, top=0.905, bottom=0.03, wspace=0.17, hspace=0.17)
        for panel in panels[:, 0]:
            panel.axis("off")
        _draw_picture(panels[0, 0], scene)
        _draw_legend(panels[1, 0] if num_rows > 1 else panels[0, 0], scene)
        for column, (look, colour) in enumerate(zip(scene.looks, QUERY_COLOURS, strict=False), start=1):
            for row, weights in enumerate(look.weights):
                _draw_weights(panels[row, column], look, weights, colour)
                if look.start[row] > 0:
                    panels[row, column].set_xlabel(f"start {look.start[row]:.0%}", fontsize=7, labelpad=2)
            for panel in panels[len(look.weights) : num_layers, column]:
                panel.axis("off")
            if with_words:
                _draw_words(panels[-1, column], words, look.words, colour)
        for row, name in enumerate(scene.layer_names):
            panels[row, 1].set_ylabel(name, fontsize=8, labelpad=3)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, facecolor="white")
    plt.close(figure)
    # A palette is all that the figure needs, and takes a third of the space.
    Image.open(drawn).convert("RGB").quantize(255).save(arguments.out, optimize=True)


def _draw_picture(panel: Axes, scene: Scene) -> None:
    height, width = scene.looks[0].known.shape
    panel.axis("on")
    panel.imshow(scene.picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
    for look, colour in zip(scene.looks, QUERY_COLOURS, strict=False):
        _mark(panel, look.query, width, colour)
    _bare(panel)


def _draw_legend(panel: Axes, scene: Scene) -> None:
    """What frames, grey and dots mean, as far as this model's panels have them."""
    lines = ["framed: the position", "that is predicted", "", "dark: much weight", "bright: little"]
    if any(not bool(look.visible.all()) for look in scene.looks):
        lines += ["grey: not seen"]
    if any(bool((look.visible & ~look.known).any()) for look in scene.looks):
        lines += ["dot: not known yet"]
    if any(start > 0 for look in scene.looks for start in look.start):
        lines += ["start: weight of the row", "before the first token"]
    panel.text(0.0, 0.98, "\n".join(lines), transform=panel.transAxes, va="top", fontsize=7.5, color="#4a4a50")


def _draw_weights(panel: Axes, look: Look, weights: Tensor, colour: str) -> None:
    """Weights relative to the largest; flat grey where nothing can be seen, a dot where nothing is known yet."""
    height, width = weights.shape
    shown = weights.clone()
    shown[~look.visible] = torch.nan
    panel.set_facecolor(UNSEEN_COLOUR)
    panel.imshow(shown, cmap="magma_r", vmin=0.0, vmax=max(float(weights.max()), 1e-9), interpolation="nearest")
    for position in (look.visible & ~look.known).flatten().nonzero()[:, 0].tolist():
        panel.plot(position % width, position // width, ".", color="#7a7a80", markersize=2.2, markeredgewidth=0)
    _mark(panel, look.query, width, colour)
    panel.set_xlim(-0.5, width - 0.5)
    panel.set_ylim(height - 0.5, -0.5)
    _bare(panel)


def _draw_words(panel: Axes, words: Sequence[str], weights: Tensor, colour: str) -> None:
    places = range(len(words))
    panel.barh(places, weights.tolist(), color=colour, alpha=0.35, height=0.7)
    for place, word in zip(places, words, strict=True):
        panel.text(0.02, place, word, va="center", fontsize=8)
    panel.set_xlim(0.0, 1.0)
    panel.invert_yaxis()
    _bare(panel)
    panel.spines[:].set_visible(False)


def _mark(panel: Axes, position: int, width: int, colour: str) -> None:
    row, column = divmod(position, width)
    panel.add_patch(
        Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=colour, linewidth=2.2, clip_on=False)
    )


def _bare(panel: Axes) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_color("#c8c8c4")


if __name__ == "__main__":
    main()
