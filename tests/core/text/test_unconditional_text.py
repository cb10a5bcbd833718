"""What stands for no text: a learned state, or the empty prompt; in training, in guidance, and in a saved model."""

import pytest
import torch

from fluid_core import FluidModel, FluidPipeline
from fluid_core.backbone.sizes import BackboneShape
from fluid_core.configuration import ComponentChoice
from fluid_core.errors import IncompatibleComponentsError, InvalidRequestError
from fluid_core.evaluation.validation_loss import validation_loss
from fluid_core.exchange import TextFeatures
from fluid_core.testing.tiny import TinyTextEncoder, tiny_model
from fluid_core.text import example_transformers_options
from fluid_core.text.text_aligner import TextAligner

CALL = {"seed": 3, "num_inference_steps": 2, "output_type": "pt"}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> ComponentChoice:
    """The choice of a tiny pretrained encoder."""
    path = example_transformers_options(tmp_path_factory.mktemp("bert")).path
    return ComponentChoice(name="transformers-encoder", options={"path": path})


def features(batch, length, seed=0):
    """Random states of width 12, the last of each row padding."""
    mask = torch.ones(batch, length, dtype=torch.bool)
    mask[:, -1] = length == 1
    states = torch.randn(batch, length, 12, generator=torch.Generator().manual_seed(seed))
    return TextFeatures(states=states, mask=mask)


def test_a_dropped_caption_is_the_empty_prompt():
    """Dropped rows condition exactly as the empty prompt does, shorter or longer; the others keep their text."""
    shape = BackboneShape(width=32, depth=1, num_heads=4, aligner_depth=2)
    aligner = TextAligner(12, shape, "empty-prompt")
    dropped = torch.tensor([True, False])
    text = features(2, 5)
    for length in (2, 9):
        empty = features(1, length, seed=1)
        found, kept = aligner(text, dropped, empty), aligner(text)
        nothing = aligner.unconditional(2, empty)
        first, real = found.mask[0], nothing.mask[0]
        assert int(first.sum()) == int(real.sum())
        torch.testing.assert_close(found.states[0][first], nothing.states[0][real], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.states[1][found.mask[1]], kept.states[1][kept.mask[1]], rtol=1e-5, atol=1e-5)
    assert "no_text" not in aligner.state_dict()
    with pytest.raises(InvalidRequestError, match="states of the empty prompt"):
        aligner(text, dropped)


@pytest.mark.parametrize("encoder", ["trained", "frozen"])
def test_training_uses_the_empty_prompt(small_model, images, encoder, frozen):
    """With every caption dropped the loss does not depend on captions, and has gradients for the aligner."""
    choice = frozen if encoder == "frozen" else ComponentChoice(name="bytes", options={"width": 16})
    model = small_model(text_encoder=choice, unconditional="empty-prompt")

    def loss(caption, drop):
        generator = torch.Generator().manual_seed(1)
        return model.loss(images, [caption] * 4, generator=generator, text_drop_probability=drop).mean

    torch.testing.assert_close(loss("a red circle", 1.0), loss("b", 1.0), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(loss("a red circle", 0.0), loss("b", 0.0), rtol=1e-5)
    loss("a", 1.0).backward()
    assert float(model.aligner.projection.weight.grad.abs().sum()) > 0
    if encoder == "trained":
        assert float(model.text_encoder.byte_embedding.weight.grad.abs().sum()) > 0


def test_guidance_without_a_negative_prompt_uses_the_empty_prompt(small_model, frozen):
    """It equals guidance with the empty prompt's states given as negative, and differs from another's."""
    pipeline = FluidPipeline(small_model(text_encoder=frozen, unconditional="empty-prompt"))
    guided = pipeline("a cat", guidance_scale=3.0, **CALL).images
    empty = pipeline.model.empty_prompt()
    given = pipeline("a cat", negative_prompt_embeds=empty, guidance_scale=3.0, **CALL).images
    torch.testing.assert_close(guided, given, rtol=1e-5, atol=1e-5)
    other = pipeline("a cat", negative_prompt="a dog", guidance_scale=3.0, **CALL).images
    assert not torch.allclose(guided, other, atol=1e-3)


def test_the_empty_prompt_outlives_inference_mode(small_model, frozen):
    """A first call in inference mode leaves states that training can use."""
    model = small_model(text_encoder=frozen, unconditional="empty-prompt")
    with torch.inference_mode():
        FluidPipeline(model)("a cat", guidance_scale=3.0, **CALL)
    model.unconditional_text(2).states.square().mean().backward()
    assert float(model.aligner.projection.weight.grad.abs().sum()) > 0


def test_the_choice_is_saved_with_the_model(small_model, frozen, tmp_path):
    """A loaded model has the same unconditional text, and no learned state beside it."""
    model = small_model(text_encoder=frozen, unconditional="empty-prompt")
    FluidPipeline(model).save_pretrained(tmp_path / "saved")
    loaded = FluidPipeline.from_pretrained(tmp_path / "saved")
    assert loaded.model.config.unconditional == "empty-prompt"
    assert loaded.model.aligner.no_text is None
    expected = FluidPipeline(model)("a cat", guidance_scale=2.0, **CALL).images
    assert torch.equal(loaded("a cat", guidance_scale=2.0, **CALL).images, expected)
    learned = FluidModel.from_config(model.config.__class__(**{**_fields(model.config), "unconditional": "learned"}))
    assert learned.aligner.no_text is not None
    assert learned.empty_prompt() is None


def _fields(config):
    return {field.name: getattr(config, field.name) for field in config.__attrs_attrs__}


def test_validation_goes_through_the_same_path(small_model, frozen, images):
    """A model with the empty prompt has a validation loss, which drops no captions."""
    from fluid_core.data.captioned_images import CaptionedImage

    model = small_model(text_encoder=frozen, unconditional="empty-prompt")
    items = [CaptionedImage(image=image, caption="a circle") for image in images]
    assert validation_loss(model, items)["loss"] == pytest.approx(validation_loss(model, items)["loss"])


def test_an_encoder_without_an_empty_prompt_is_refused():
    """The message says what it lacks and what to set."""
    parts = tiny_model()
    with pytest.raises(IncompatibleComponentsError, match=r"'encode_empty'\. Set unconditional = 'learned'"):
        FluidModel(
            tokenizer=parts.tokenizer,
            text_encoder=TinyTextEncoder(),
            order=parts.order,
            head=parts.head,
            backbone="debug",
            unconditional="empty-prompt",
        )
