"""Compiles every Triton kernel ahead of time, for two generations of GPUs, on a machine that needs none.

Command:   python examples/benchmarks/compile_kernels.py [--few] [--write-docs] [--json FILE]
Shows:     registers, spills and shared memory of every kernel, for the shapes of the paper's heads
Runtime:   two to four minutes on one core
Expected:  no spills, and shared memory within the chip's limit, for all rows; the exit status is 1 otherwise

Each row is the code that a launch with these shapes runs: block sizes are chosen by the same functions, and pointers
are taken to be aligned to 16 bytes and sizes that divide by 16 to do so, as Triton's launcher finds them.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Both before triton is imported: the compiler rather than the interpreter, and no results of earlier runs.
os.environ["TRITON_INTERPRET"] = "0"
os.environ["TRITON_ALWAYS_COMPILE"] = "1"

import attrs
import torch
import triton
from performance_document import markdown_table, replace_section
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fluid_heads.kernels.modulated_norm import modulated_norm_kernel, num_warps_for
from fluid_heads.kernels.reverse_step import ReverseStepTiling, reverse_step_kernel
from fluid_heads.kernels.vocabulary_sampling import (
    MOST_REGISTERS,
    VocabularyTiling,
    best_of_splits_kernel,
    vocabulary_kernel,
)

SHARED_MEMORY_LIMIT = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes a block of threads may have, by compute capability (CUDA C++ programming guide, technical specifications)."""

TYPES = {"float32": "*fp32", "bfloat16": "*bf16"}


_REPORTS: dict[str, tuple[int, int, int]] = {}


@attrs.frozen(kw_only=True)
class Case:
    """A kernel with the constants and arguments of one launch. `sizes` are its whole-number arguments."""

    kernel: Any
    shape: str
    pointers: dict[str, str]
    sizes: dict[str, int]
    numbers: tuple[str, ...]
    constants: dict[str, Any]
    options: dict[str, int]


@attrs.frozen(kw_only=True)
class CompiledKernel:
    """What the assembler reports."""

    kernel: str
    shape: str
    capability: int
    registers: int
    spilled_bytes: int
    shared_bytes: int
    shared_limit: int


def modulated_norm_cases() -> Iterator[Case]:
    """Width 1024, in both precisions, between blocks and at both ends."""
    for precision, pointer in TYPES.items():
        for has_update, has_affine in ((False, True), (True, True), (True, False)):
            names = ("x", "update", "gate", "weight", "bias", "shift", "scale", "new_x", "y")
            yield Case(
                kernel=modulated_norm_kernel,
                shape=f"width 1024, {precision}, {'gated residual' if has_update else 'first'}"
                f"{'' if has_affine else ', last'}",
                pointers={**{f"{name}_pointer": pointer for name in names}, "step_pointer": "*i32"},
                sizes={
                    "num_x_rows": 5,
                    "num_held_steps": 100,
                    "width": 1024,
                    "step_stride": 20480 * 5,
                    "row_stride": 20480,
                },
                numbers=("epsilon",),
                constants={"HAS_UPDATE": has_update, "HAS_AFFINE": has_affine, "BLOCK": 1024},
                options={"num_warps": num_warps_for(1024)},
            )


def reverse_step_cases() -> Iterator[Case]:
    """Tokens of 16 and 48 channels in both precisions, with everything and with nothing, and a single token; tokens
    without a limit, as the predecessor draws them, and of an odd number of channels.
    """
    wanted = itertools.product((16, 48), TYPES.items(), ((True, 5), (False, 5), (True, 1)), (True,))
    special = ((16, ("float32", "*fp32"), (True, 5), False), (5, ("float32", "*fp32"), (True, 5), True))
    for channels, (precision, pointer), (guided, num_tokens), limited in (*wanted, *special):
        tiling = ReverseStepTiling.choose(channels)
        yield Case(
            kernel=reverse_step_kernel,
            shape=f"{channels} channels, {precision}, {'guided, rescaled' if guided else 'plain'}"
            f"{', one token' if num_tokens == 1 else ''}{'' if limited else ', no limit'}",
            pointers={
                "output_pointer": pointer,
                "x_pointer": "*fp32",
                "scale_pointer": "*fp32",
                "keys_pointer": "*i64",
                "first_draw_pointer": "*i32",
                "temperature_pointer": "*fp32",
                "step_pointer": "*i32",
                "coefficients_pointer": "*fp32",
                "positions_pointer": "*i32",
                "new_x_pointer": "*fp32",
                "input_pointer": pointer,
            },
            sizes={"num_tokens": num_tokens, "channels": channels},
            numbers=("limit", "rescale"),
            constants={
                "GUIDED": guided,
                "RESCALED": guided,
                "LIMITED": limited,
                "HALF_IS_EVEN": channels % 2 == 0,
                "BLOCK_TOKENS": tiling.block_tokens,
                "BLOCK_CHANNELS": tiling.block_channels,
            },
            options={"num_warps": tiling.num_warps},
        )


def vocabulary_cases(*, few: bool) -> Iterator[Case]:
    """Width 1024, both vocabularies, few and many tokens, both precisions of weights; and the second kernel."""
    every = itertools.product((8192, 16384), (1, 16, 256))
    for vocabulary, num_tokens in ((8192, 1), (8192, 16), (16384, 256)) if few else every:
        tiling = VocabularyTiling.choose(num_tokens, vocabulary)
        for precision, pointer in TYPES.items():
            ways = itertools.product((True, False), repeat=2)
            for guided, random in ((True, True), (False, False)) if few else ways:
                yield Case(
                    kernel=vocabulary_kernel,
                    shape=f"{num_tokens} token{'s' if num_tokens > 1 else ''}, {vocabulary} ids, {precision}, "
                    f"{'guided' if guided else 'plain'}{'' if random else ', likeliest'}",
                    pointers={
                        **dict.fromkeys(("condition_pointer", "negative_pointer", "scale_pointer"), "*fp32"),
                        **dict.fromkeys(("weight_pointer", "bias_pointer"), pointer),
                        "keys_pointer": "*i64",
                        "best_pointer": "*fp32",
                        "best_id_pointer": "*i32",
                    },
                    sizes={
                        "num_tokens": num_tokens,
                        "vocabulary": vocabulary,
                        "width": 1024,
                        "draw": 3,
                        "num_splits": tiling.num_splits,
                    },
                    numbers=("temperature",),
                    constants={
                        "GUIDED": guided,
                        "RANDOM": random,
                        "HIDDEN_IN_TWO": precision != "float32",
                        "PRECISION": "tf32x3",
                        "BLOCK_TOKENS": tiling.block_tokens,
                        "BLOCK_IDS": tiling.block_ids,
                        "BLOCK_WIDTH": tiling.block_width,
                    },
                    options={
                        "num_warps": tiling.num_warps,
                        "num_stages": tiling.num_stages,
                        "maxnreg": MOST_REGISTERS,
                    },
                )
        yield Case(
            kernel=best_of_splits_kernel,
            shape=f"{num_tokens} token{'s' if num_tokens > 1 else ''}, {vocabulary} ids",
            pointers={"best_pointer": "*fp32", "best_id_pointer": "*i32", "id_pointer": "*i64"},
            sizes={"num_tokens": num_tokens, "num_splits": tiling.num_splits, "vocabulary": vocabulary},
            numbers=(),
            constants={"BLOCK_SPLITS": triton.next_power_of_2(tiling.num_splits)},
            options={"num_warps": 1},
        )


def compiled(case: Case, capability: int) -> CompiledKernel:
    """Compile for one generation and read what the assembler says."""
    # Triton's launcher builds sizes of one into the code, and tells the compiler which ones divide by 16.
    ones = {name: 1 for name, size in case.sizes.items() if size == 1}
    constants = {**case.constants, **ones}
    types = {**case.pointers, **dict.fromkeys(case.sizes, "i32"), **dict.fromkeys(case.numbers, "fp32")}
    signature = {name: "constexpr" if name in constants else types[name] for name in case.kernel.arg_names}
    divisible = [
        (index,)
        for index, name in enumerate(case.kernel.arg_names)
        if name in case.pointers or (name in case.sizes and name not in ones and case.sizes[name] % 16 == 0)
    ]
    attributes = {place: [["tt.divisibility", 16]] for place in divisible}
    code = json.dumps([case.kernel.__name__, signature, constants, divisible, case.options, capability])
    # Many shapes run the same code, and are compiled once.
    if code not in _REPORTS:
        log = io.StringIO()
        with contextlib.redirect_stdout(log):
            program = triton.compile(
                ASTSource(case.kernel, signature, constants, attributes),
                target=GPUTarget("cuda", capability, 32),
                options={**case.options, "enable_fp_fusion": True},
            )
        registers = re.search(r"Used (\d+) registers", log.getvalue())
        spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", log.getvalue())
        if registers is None or not spills:
            raise SystemExit(f"The assembler's report was not understood:\n{log.getvalue()}")
        _REPORTS[code] = int(registers[1]), sum(map(int, spills)), program.metadata.shared
    num_registers, spilled_bytes, shared_bytes = _REPORTS[code]
    return CompiledKernel(
        kernel=case.kernel.__name__,
        shape=case.shape,
        capability=capability,
        registers=num_registers,
        spilled_bytes=spilled_bytes,
        shared_bytes=shared_bytes,
        shared_limit=SHARED_MEMORY_LIMIT[capability],
    )


def document(found: list[CompiledKernel], table: str) -> str:
    """What the documentation says: the worst of all in a sentence, and the table for those who unfold it."""
    spilled = sum(one.spilled_bytes > 0 for one in found)
    spills = f"{spilled} spill" if spilled else "none spills"
    return (
        f"With triton {triton.__version__}, {len(found)} shapes and chips: {spills} "
        f"registers, of which they take {max(one.registers for one in found)} at most, and shared memory is "
        f"{max(one.shared_bytes / one.shared_limit for one in found):.0%} of a chip's limit at most.\n\n"
        f"<details><summary>All of them</summary>\n\n{table}\n\n</details>"
    )


def main() -> None:
    """Compile all, print the table, and fail if a kernel spills or asks for too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--few", action="store_true", help="every kernel and kind of shape, but not all together")
    arguments = parser.parse_args()
    knobs.nvidia.dump_ptxas_log = True
    torch.set_num_threads(1)

    found: list[CompiledKernel] = []
    with tempfile.TemporaryDirectory() as cache:
        knobs.cache.dir = cache
        for case in (*modulated_norm_cases(), *reverse_step_cases(), *vocabulary_cases(few=arguments.few)):
            found += [compiled(case, capability) for capability in SHARED_MEMORY_LIMIT]

    header = ("kernel", "shape", "chip", "registers", "spilled bytes", "shared memory", "of its limit")
    rows = [
        (
            f"`{one.kernel}`",
            one.shape,
            f"sm_{one.capability}",
            str(one.registers),
            str(one.spilled_bytes),
            f"{one.shared_bytes / 1024:.1f} KiB",
            f"{one.shared_bytes / one.shared_limit:.0%}",
        )
        for one in found
    ]
    table = markdown_table(header, rows)
    print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([attrs.asdict(one) for one in found], indent=2) + "\n")
    if arguments.write_docs:
        replace_section("compiled kernels", document(found, table))
    wrong = [one for one in found if one.spilled_bytes > 0 or one.shared_bytes > one.shared_limit]
    if wrong:
        print(f"{len(wrong)} kernels spill registers or need more shared memory than there is", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
