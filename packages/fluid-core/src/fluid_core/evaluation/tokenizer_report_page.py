"""The report on tokenizers as a page for people."""

import json
from collections.abc import Mapping
from typing import Any


def report_page(document: Mapping[str, Any]) -> str:
    """The page for people, in Markdown, from what `report.json` holds."""
    settings = document["settings"]
    network = settings["feature_network"]
    height, width = settings["image_size"]
    lines = [
        "# Tokenizers side by side",
        "",
        f"{settings['num_images']} held-out pictures of the data set `{settings['data']['name']}` (split "
        f"`{settings['split']}`, {height} x {width} pixels, seed {settings['seed']}), the same for all.",
        "",
        "![Originals and reconstructions](reconstructions.png)",
        "",
        "| tokenizer | PSNR (dB) | SSIM | Frechet distance | tokens | bits stored | bits of information | ids used |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in document["tokenizers"]:
        figures = one["figures"]
        frechet, bits, codebook = figures["frechet"], figures["bits_per_image"], figures["codebook"]
        cells = [
            f"`{one['label']}`",
            f"{figures['psnr']:.2f}" if figures["psnr"] < settings["largest_psnr"] else "exact",
            f"{figures['ssim']:.4f}",
            "-" if frechet is None else f"{frechet['value']:.4g}",
            str(figures["tokens_per_image"]),
            f"{bits['stored']:,.0f}",
            "unknown" if bits["informative"] is None else f"{bits['informative']:,.0f}",
            "-"
            if codebook is None
            else f"{codebook['num_used']} of {codebook['vocabulary_size']} (perplexity {codebook['perplexity']:.1f})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## How to read it", ""]
    lines += [
        "- PSNR and SSIM compare each reconstruction with its original, and are means over pictures: higher is closer.",
        _frechet_sentence(network, settings["num_images"]),
        "- Bits stored count ids at log2 of the vocabulary and numbers at 32 bits. Bits of information are what tokens "
        "tell under a fixed distribution, the same for every place: the entropy of ids, or the divergence of a "
        "posterior. They are the ones to compare between ids and numbers.",
        "",
        "## What was measured",
        "",
    ]
    for one in document["tokenizers"]:
        bits = one["figures"]["bits_per_image"]
        lines.append(
            f"- `{one['label']}`: `{one['name']}` of {one['provided_by']} from `{one['source']}`, identity "
            f"`{one['identity'][:16]}`. Stored: {bits['stored_as']}. Information: {bits['informative_as']}. Options: "
            f"`{json.dumps(one['options'], ensure_ascii=False)}`."
        )
    versions = ", ".join(f"{name} {version}" for name, version in document["packages"].items())
    lines += ["", f"Versions: {versions}. Every setting is in `report.json`.", ""]
    return "\n".join(lines)


def _frechet_sentence(network: Mapping[str, Any] | None, num_images: int) -> str:
    if network is None:
        return "- No Frechet distance was measured: no feature network was named."
    sentence = (
        f"- The Frechet distance between originals and reconstructions is on the {network['width']} features of "
        f"{network['description']}: lower is closer. It compares with other distances on the same network alone, and "
        "is the FID only where that network is the Inception of the FID."
    )
    if num_images <= network["width"]:
        sentence += (
            f" With {num_images} pictures, no more than features, it is too large by an unknown amount: read it as an "
            "order among these rows."
        )
    return sentence
