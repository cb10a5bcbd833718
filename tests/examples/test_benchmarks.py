"""Benchmarks run, write the rows they promise, and find that what they compare is the same."""

import json


def test_whole_images(run_example, tmp_path):
    """Every order and case, with tokens that agree; the folder of the file is made."""
    out = tmp_path / "new" / "rows.json"
    run_example("benchmarks/generation.py", "--quick", "--json", out)
    rows = json.loads(out.read_text())
    cases = {(row["order"], row["case"]) for row in rows if row["order"] != "any"}
    assert cases == {
        ("random", "straightforward"),
        ("random", "same output"),
        ("random", "defaults"),
        ("causal-random", "defaults"),
        ("raster", "defaults"),
    }
    for row in rows:
        assert {"batch", "guidance", "seconds", "backbone_seconds", "head_seconds", "speedup"} <= row.keys()
        assert row["seconds"] >= row["backbone_seconds"] >= 0.0
    assert [row["same_output"] for row in rows if row["case"] == "same output"] == [True]


def test_drawing_tokens(run_example, tmp_path):
    """Both backends of all heads, with and without guidance, and samples that agree."""
    out = tmp_path / "new" / "rows.json"
    heads = ("diffusion", "flow", "softmax")
    sizes = ("--width", 64, "--depth", 2, "--tokens", 1, 3, "--steps", 5, "--loss-tokens", 2, "--repeats", 1)
    run_example("benchmarks/head_sampling.py", "--heads", *heads, *sizes, "--json", out)
    rows = json.loads(out.read_text())
    drawn = [row for row in rows if row["backend"] in ("reference", "fused")]
    assert len(drawn) == 3 * 2 * 2 * 2
    wanted = {"head", "solver", "steps", "tokens", "guidance", "seconds", "gflops", "gbytes_per_s", "share_of_limit"}
    assert all(wanted | {"speedup"} <= row.keys() for row in drawn)
    assert all(row["agrees"] for row in drawn)
