"""Tiny random models of the kinds GenEval judges with, a file of its prompts, and the program."""

import json
from pathlib import Path

import pytest
import torch

from fluid_core.evaluation.geneval.words import OBJECT_NAMES

PROMPTS = (
    {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a photo of a dog"},
    {
        "tag": "counting",
        "include": [{"class": "tv remote", "count": 2}],
        "exclude": [{"class": "tv remote", "count": 3}],
        "prompt": "a photo of two tv remotes",
    },
    {
        "tag": "color_attr",
        "include": [{"class": "cup", "count": 1, "color": "red"}, {"class": "cat", "count": 1, "color": "brown"}],
        "prompt": "a photo of a red cup and a brown cat",
    },
)


@pytest.fixture(scope="session")
def metadata(tmp_path_factory) -> Path:
    """A file like the official `evaluation_metadata.jsonl`, of three lines."""
    path = tmp_path_factory.mktemp("geneval") / "evaluation_metadata.jsonl"
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in PROMPTS))
    return path


@pytest.fixture(scope="session")
def detector(tmp_path_factory) -> Path:
    """A saved Mask2Former of COCO's classes with random weights, which looks at pictures of 64 pixels."""
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessorPil,
        SwinConfig,
    )

    config = Mask2FormerConfig(
        backbone_config=SwinConfig(
            image_size=64,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=4,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=6,
        id2label={index: name.replace("tv remote", "remote") for index, name in enumerate(OBJECT_NAMES)},
    )
    folder = tmp_path_factory.mktemp("models") / "detector"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Mask2FormerForUniversalSegmentation(config)
        with torch.no_grad():
            # Random logits are all alike: sharper ones, so that something is found.
            model.class_predictor.weight.mul_(30)
    model.save_pretrained(folder)
    Mask2FormerImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder
