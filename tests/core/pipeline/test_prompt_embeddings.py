"""Prompts encoded before they are used, and a text encoder that is let go."""

import attrs
import pytest
import torch

from fluid_core import FluidPipeline
from fluid_core.configuration import ComponentChoice
from fluid_core.errors import CheckpointError, InvalidRequestError, PromptError
from fluid_core.text import example_transformers_options

PROMPTS = ["a red circle", "two blue squares above a star"]
CALL = {"seed": 3, "num_inference_steps": 2, "output_type": "pt", "num_images_per_prompt": 2}


@pytest.fixture
def frozen_pipeline(small_model, tmp_path):
    """A pipeline whose text encoder is pretrained and frozen."""
    path = example_transformers_options(tmp_path).path
    return FluidPipeline(small_model(text_encoder=ComponentChoice(name="transformers-encoder", options={"path": path})))


def test_encoded_prompts_draw_what_prompts_draw(small_model):
    """Exactly, with and without guidance, one negative prompt for all or one for each."""
    pipeline = FluidPipeline(small_model())
    embeds = pipeline.encode_prompts(PROMPTS)
    assert embeds.states.shape == (2, embeds.mask.shape[1], 16)
    assert torch.equal(pipeline(prompt_embeds=embeds, **CALL).images, pipeline(PROMPTS, **CALL).images)
    for negative in ("ugly", ["ugly", "blurred and grey"]):
        expected = pipeline(PROMPTS, negative_prompt=negative, guidance_scale=3.0, **CALL).images
        found = pipeline(
            prompt_embeds=embeds,
            negative_prompt_embeds=pipeline.encode_prompts(negative),
            guidance_scale=3.0,
            **CALL,
        ).images
        assert torch.equal(found, expected)
        mixed = pipeline(prompt_embeds=embeds, negative_prompt=negative, guidance_scale=3.0, **CALL).images
        assert torch.equal(mixed, expected)


@pytest.mark.parametrize("unconditional", ["learned", "empty-prompt"])
def test_a_model_without_its_encoder_draws_from_embeddings(frozen_pipeline, small_model, unconditional):
    """The same pictures, guided by the unconditional state as before; its weights are gone."""
    choice = frozen_pipeline.model.config.text_encoder
    pipeline = FluidPipeline(small_model(text_encoder=choice, unconditional=unconditional))
    expected = pipeline(PROMPTS, guidance_scale=2.0, **CALL).images
    embeds = pipeline.encode_prompts(PROMPTS)
    before = sum(parameter.numel() for parameter in pipeline.model.text_encoder.parameters())
    assert pipeline.release_text_encoder() is pipeline
    assert before > 0
    assert not list(pipeline.model.text_encoder.parameters())
    assert torch.equal(pipeline(prompt_embeds=embeds, guidance_scale=2.0, **CALL).images, expected)
    pipeline.release_text_encoder()
    assert torch.equal(pipeline(prompt_embeds=embeds, guidance_scale=2.0, **CALL).images, expected)


def test_prompts_are_refused_once_the_encoder_is_gone(frozen_pipeline):
    """One sentence says what to pass; that holds for negative prompts and encoding as well."""
    embeds = frozen_pipeline.encode_prompts(PROMPTS)
    frozen_pipeline.release_text_encoder()
    with pytest.raises(PromptError, match=r"text encoder was let go.*Pass prompt_embeds"):
        frozen_pipeline(PROMPTS, **CALL)
    with pytest.raises(PromptError, match="was let go"):
        frozen_pipeline.encode_prompts("a")
    with pytest.raises(PromptError, match="was let go"):
        frozen_pipeline(prompt_embeds=embeds, negative_prompt="a", guidance_scale=2.0, **CALL)


def test_saving_without_the_encoder(frozen_pipeline, small_model, tmp_path):
    """A frozen encoder is only named, so nothing is missing; one that trained with the model would be lost."""
    expected = frozen_pipeline(PROMPTS, **CALL).images
    frozen_pipeline.release_text_encoder()
    frozen_pipeline.save_pretrained(tmp_path / "saved")
    assert torch.equal(FluidPipeline.from_pretrained(tmp_path / "saved")(PROMPTS, **CALL).images, expected)
    trained = FluidPipeline(small_model()).release_text_encoder()
    with pytest.raises(CheckpointError, match="Save the model first"):
        trained.save_pretrained(tmp_path / "other")


def test_what_does_not_fit_is_refused(small_model):
    """Both at once, neither, another width or number, a row without text, or something else entirely."""
    pipeline = FluidPipeline(small_model())
    embeds = pipeline.encode_prompts(PROMPTS)
    with pytest.raises(InvalidRequestError, match="prompt or prompt_embeds, found both"):
        pipeline("a", prompt_embeds=embeds)
    with pytest.raises(InvalidRequestError, match="negative_prompt or negative_prompt_embeds, found both"):
        pipeline("a", negative_prompt="b", negative_prompt_embeds=embeds)
    with pytest.raises(PromptError, match="found neither"):
        pipeline()
    narrow = attrs.evolve(embeds, states=embeds.states[:, :, :8])
    with pytest.raises(InvalidRequestError, match=r"\(prompts, text length, 16\).*Encode the prompts with this model"):
        pipeline(prompt_embeds=narrow)
    with pytest.raises(InvalidRequestError, match="found a row without"):
        pipeline(prompt_embeds=attrs.evolve(embeds, mask=torch.zeros_like(embeds.mask)))
    for kind in (torch.float32, torch.int64):
        with pytest.raises(InvalidRequestError, match=r"True and False, found one of .*Convert it with mask.bool"):
            pipeline(prompt_embeds=attrs.evolve(embeds, mask=embeds.mask.to(kind)))
    with pytest.raises(PromptError, match=r"one per prompt \(3\), found 2"):
        pipeline(["a", "b", "c"], negative_prompt_embeds=embeds, guidance_scale=2.0)
