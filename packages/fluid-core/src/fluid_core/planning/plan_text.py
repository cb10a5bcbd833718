"""A plan as people read it: tables in the width of a terminal."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fluid_core.data.token_cache.size_estimate import readable_bytes, readable_seconds
from fluid_core.planning.memory import USABLE_SHARE, MemoryUse
from fluid_core.planning.plan import Plan


def print_plan(plan: Plan, console: Console) -> None:
    """Print every part of a plan."""
    for title, table, notes in (
        ("Parameters", _parameters(plan), _parameter_notes(plan)),
        ("Computation", _computation(plan), _computation_notes(plan)),
        ("Memory of one GPU", _memory(plan), _memory_notes(plan)),
        ("Speed", _speed(plan), _speed_notes(plan)),
        ("Cache on disk", _cache(plan), _cache_notes(plan)),
    ):
        console.print(Text(title, style="bold"))
        console.print(table)
        for note in notes:
            console.print(Text(note))
        console.print()


def readable_count(number: float) -> str:
    """Such as `369 M` or `10.5 B`: three digits, powers of a thousand."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{unit}" if number < 999.5 * size else f"{number / size:,.0f}{unit}"
    return f"{number:.3g}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, show_header=any(columns))
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def _rows(table: Table, rows: Iterable[tuple[str, ...]]) -> Table:
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _parameters(plan: Plan) -> Table:
    counts = plan.parameters
    rows = [
        ("token embedding", f"{counts.token_embedding:,}"),
        ("transformer", f"{counts.transformer:,}"),
        ("head", f"{counts.head:,}"),
        ("  together, as sizes are named", f"{counts.as_named:,}"),
        ("text aligner", f"{counts.aligner:,}"),
    ]
    if counts.trained_text_encoder:
        rows.append(("text encoder", f"{counts.trained_text_encoder:,}"))
    rows += [
        ("  trained in all", f"{counts.trained:,}"),
        ("tokenizer (frozen)", _counted(counts.frozen_tokenizer)),
    ]
    if not counts.trained_text_encoder:
        rows.append(("text encoder (frozen)", _counted(counts.frozen_text_encoder)))
    return _rows(_table("part", "parameters"), rows)


def _counted(number: int | None) -> str:
    return "not counted" if number is None else f"{number:,}"


def _parameter_notes(plan: Plan) -> list[str]:
    notes = [f"Tokenizer: {plan.tokenizer_source}. Text encoder: {plan.text_encoder_source}."]
    if plan.paper is not None and plan.paper.parameters is not None:
        notes.append(
            f"The paper's {plan.paper.size.upper()} with such tokens: {readable_count(plan.paper.parameters)}."
        )
    return notes


def _computation(plan: Plan) -> Table:
    flops = plan.flops
    rows = [
        ("text aligner, forward", f"{readable_count(flops.aligner)}FLOP"),
        ("transformer, forward", f"{readable_count(flops.transformer)}FLOP"),
        ("head, forward", f"{readable_count(flops.head)}FLOP"),
        ("one image, forward", f"{readable_count(flops.forward)}FLOP"),
        ("one image, forward and backward", f"{readable_count(flops.training)}FLOP"),
        (f"{plan.num_images:,} images", f"{plan.training_flops:.3g} FLOP"),
    ]
    units = {" B": " G", " k": " k"}
    return _rows(_table("", ""), [(name, _replaced(value, units)) for name, value in rows])


def _replaced(value: str, units: dict[str, str]) -> str:
    for old, new in units.items():
        value = value.replace(f"{old}FLOP", f"{new}FLOP")
    return value


def _computation_notes(plan: Plan) -> list[str]:
    flops = plan.flops
    notes = [
        f"Counted in the real layers for {plan.tokens_per_image} tokens, of which {flops.predicted_share:.1%} are "
        f"predicted on average, and captions of {flops.text_length} text tokens."
    ]
    paper = plan.paper
    if paper is not None:
        said = "the paper's figure has no such model" if paper.flops is None else f"the paper: {paper.flops:.2g}"
        notes.append(f"Over the paper's million steps of 2048 images: {paper.own_flops:.2g} FLOP ({said}).")
    return notes


def _memory(plan: Plan) -> Table:
    table = _table("sharding", *(_sharding_title(use) for use in plan.memory))
    kinds = (
        ("weights (float32)", "weights"),
        ("gradients", "gradients"),
        ("optimizer (two moments)", "optimizer"),
        ("moving average", "average"),
        ("frozen parts", "frozen"),
        ("working copies", "working_copies"),
        ("activations", "activations"),
        ("total", "total"),
    )
    _rows(table, ((title, *(readable_bytes(getattr(use, name)) for use in plan.memory)) for title, name in kinds))
    return _rows(table, [("fits", *(_yes(use, plan) for use in plan.memory))])


def _sharding_title(use: MemoryUse) -> str:
    return use.sharding if use.num_shards == 1 else f"{use.sharding}, over {use.num_shards} GPUs"


def _yes(use: MemoryUse, plan: Plan) -> str:
    return "yes" if use.fits(plan.gpu) else "NO"


def _memory_notes(plan: Plan) -> list[str]:
    activations = plan.activations
    notes = [
        f"{plan.num_gpus} x {plan.gpu.title}: {readable_bytes(plan.usable_memory)} each, {USABLE_SHARE:.0%} of its "
        "memory; the rest is for temporary tensors and the libraries.",
        f"Micro-batch: {plan.micro_batch} images ({plan.batch_size} / {plan.num_gpus} GPUs / {plan.accumulation_steps} "
        f"accumulation steps), products in {plan.precision}, activation checkpointing "
        f"'{plan.activation_checkpointing}'.",
        f"Activations with 'none': {readable_bytes(activations.none)}, 'selective': "
        f"{readable_bytes(activations.selective)}, 'full': {readable_bytes(activations.full)}.",
    ]
    if None in (plan.parameters.frozen_tokenizer, plan.parameters.frozen_text_encoder):
        notes.append("Frozen parts that could not be counted are missing from this table.")
    if plan.fits:
        return [*notes, f"The configuration (sharding '{plan.sharding}') fits."]
    if plan.remedy is None:
        return [
            *notes,
            "The configuration does NOT fit, and neither sharding nor activation checkpointing nor micro-batches of "
            "one image help: take GPUs with more memory, more GPUs, or a smaller model.",
        ]
    remedy = plan.remedy
    changes = []
    if remedy.sharding != plan.sharding:
        changes.append(f'training.sharding = "{remedy.sharding}"')
    if remedy.activation_checkpointing != plan.activation_checkpointing:
        changes.append(f'training.activation_checkpointing = "{remedy.activation_checkpointing}"')
    if remedy.accumulation_steps != plan.accumulation_steps:
        changes.append(f"training.accumulation_steps = {remedy.accumulation_steps}")
    return [
        *notes,
        f"The configuration (sharding '{plan.sharding}') does NOT fit. It would with {', '.join(changes)}: "
        f"{readable_bytes(remedy.memory.total)}.",
    ]


def _speed(plan: Plan) -> Table:
    speed = plan.throughput
    hours = speed.days * 24 * plan.num_gpus
    return _rows(
        _table("", ""),
        [
            ("images a second", f"{speed.images_per_second:,.0f}"),
            ("tokens a second", f"{speed.tokens_per_second:,.0f}"),
            ("seconds a step", f"{speed.seconds_per_step:.3g}"),
            ("  of it to update the weights, at least", f"{speed.optimizer_seconds_per_step:.2g}"),
            (f"time for {plan.num_images:,} images ({plan.num_steps:,} steps)", readable_seconds(speed.days * 86_400)),
            ("GPU hours", f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"),
        ],
    )


def _speed_notes(plan: Plan) -> list[str]:
    speed = plan.throughput
    peak = plan.gpu.bfloat16_flops if plan.precision == "bfloat16" else plan.gpu.float32_flops
    notes = [
        f"Assuming that the model's own FLOPs reach {speed.utilisation:.0%} of the peak of {peak / 1e12:,.0f} TFLOP/s "
        f"in {plan.precision} (--mfu): nothing was measured. Encoders, data and activations computed twice come on top."
    ]
    if speed.largest_utilisation < 0.995:
        excess = " That is less than what is assumed here." if speed.largest_utilisation < speed.utilisation else ""
        notes.append(
            f"The head computes in float32: with everything at its peak that leaves {speed.largest_utilisation:.0%}, "
            f"or {speed.largest_utilisation_with_tensorfloat32:.0%} with TensorFloat-32.{excess}"
        )
    return notes


def _cache(plan: Plan) -> Table:
    cache = plan.cache
    rows = [("tokens" if cache.tokens_are_ids else "moments", cache.tokens_float32, cache.tokens_half)]
    if cache.text_float32:
        rows.append(("text states", cache.text_float32, cache.text_bfloat16))
        rows.append(("together", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    shown = ((name, readable_bytes(first), readable_bytes(second)) for name, first, second in rows)
    return _rows(_table("", "float32", "bfloat16"), shown)


def _cache_notes(plan: Plan) -> list[str]:
    cache = plan.cache
    text = (
        f", each with a caption of {cache.text_length} text tokens of its own; shorter ones take less"
        if cache.text_float32
        else "; the text encoder trains with the model, so that captions alone are kept"
    )
    return [f"{cache.num_images:,} images{text} (`fluid cache build`)."]
