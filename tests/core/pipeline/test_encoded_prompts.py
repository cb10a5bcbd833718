"""Prompts read before the model is loaded: the same pictures, and never two large things in memory at once."""

import weakref

import pytest
import torch
from safetensors.torch import load_file

from fluid_core import FluidPipeline
from fluid_core.atomic_files import read_safetensors, write_safetensors
from fluid_core.configuration import ComponentChoice
from fluid_core.errors import (
    CheckpointError,
    CheckpointMismatchError,
    InvalidRequestError,
    PromptError,
    UnknownComponentError,
)
from fluid_core.pipeline.encoded_prompts import PromptReader, encode_prompts
from fluid_core.saved_model import load_model
from fluid_core.text import TransformersEncoder, example_transformers_options
from fluid_core.text.byte_encoder import ByteEncoder

PROMPTS = ["a red circle", "two blue squares above a star"]
CALL = {"seed": 3, "num_inference_steps": 2, "output_type": "pt", "guidance_scale": 2.0}


@pytest.fixture
def pretrained(tmp_path):
    """The choice of a tiny pretrained text encoder, which is frozen."""
    path = example_transformers_options(tmp_path / "encoder").path
    return ComponentChoice(name="transformers-encoder", options={"path": path})


@pytest.fixture(params=["bytes", "pretrained"])
def choice(request, pretrained):
    """An encoder whose weights are in the model's folder, and one whose weights are not."""
    return ComponentChoice(name="bytes", options={"width": 16}) if request.param == "bytes" else pretrained


@pytest.fixture
def followed(monkeypatch):
    """Weak references to every text encoder that is built, and to what it is made of."""
    references = []
    for encoder in (ByteEncoder, TransformersEncoder):

        def init(self, *arguments, _init=encoder.__init__):
            _init(self, *arguments)
            references.extend(weakref.ref(module) for module in self.modules())
            references.extend(weakref.ref(parameter) for parameter in self.parameters())

        monkeypatch.setattr(encoder, "__init__", init)
    return references


@pytest.mark.parametrize("unconditional", ["learned", "empty-prompt"])
def test_pictures_are_those_of_the_whole_model(small_model, choice, tmp_path, unconditional):
    """Exactly, with guidance against no text and against negative prompts; the global generator is left alone."""
    whole = FluidPipeline(small_model(text_encoder=choice, unconditional=unconditional), weights="ema")
    whole.save_pretrained(tmp_path / "model")
    generator = torch.get_rng_state()
    encoded = encode_prompts(tmp_path / "model", PROMPTS, negative_prompts="grey")
    model, weights = load_model(tmp_path / "model", text_encoder=encoded.text_encoder)
    assert torch.equal(torch.get_rng_state(), generator)
    assert weights == "ema"
    pipeline = FluidPipeline(model)
    assert torch.equal(encoded.embeds.states, whole.encode_prompts(PROMPTS).states)
    assert torch.equal(pipeline(prompt_embeds=encoded.embeds, **CALL).images, whole(PROMPTS, **CALL).images)
    assert torch.equal(
        pipeline(prompt_embeds=encoded.embeds, negative_prompt_embeds=encoded.negative_embeds, **CALL).images,
        whole(PROMPTS, negative_prompt="grey", **CALL).images,
    )
    with pytest.raises(PromptError, match="text encoder was let go"):
        pipeline(PROMPTS, **CALL)
    assert encode_prompts(tmp_path / "model", "one").negative_embeds is None


def test_the_encoder_is_gone_before_the_model_comes(small_model, choice, followed, tmp_path, monkeypatch):
    """No part of it and none of its weights is alive when the model's weights are read, and none is built again."""
    FluidPipeline(small_model(text_encoder=choice)).save_pretrained(tmp_path / "model")
    followed.clear()
    alive_at_reading = []

    def read(path, *arguments):
        alive_at_reading.append(sum(one() is not None for one in followed))
        return read_safetensors(path, *arguments)

    encoded = encode_prompts(tmp_path / "model", PROMPTS)
    num_followed = len(followed)
    assert num_followed > 2
    monkeypatch.setattr("fluid_core.saved_model.read_safetensors", read)
    model, _ = load_model(tmp_path / "model", text_encoder=encoded.text_encoder)
    assert alive_at_reading == [0]
    assert len(followed) == num_followed
    assert not list(model.text_encoder.parameters())


def test_a_reader_encodes_several_times_until_it_is_released(small_model, choice, tmp_path):
    """Each time as the model does; afterwards it says that there is nothing left to read with."""
    whole = FluidPipeline(small_model(text_encoder=choice))
    whole.save_pretrained(tmp_path / "model")
    reader = PromptReader(tmp_path / "model")
    for prompts in ("one", PROMPTS):
        found, expected = reader.encode_prompts(prompts), whole.encode_prompts(prompts)
        assert torch.equal(found.states, expected.states)
        assert torch.equal(found.mask, expected.mask)
    left = reader.release()
    assert (left.width, left.max_length, left.frozen) == (
        whole.model.text_encoder.width,
        whole.model.text_encoder.max_length,
        whole.model.text_encoder.frozen,
    )
    with pytest.raises(InvalidRequestError, match="was released"):
        reader.encode_prompts("two")


def test_a_frozen_encoder_may_be_left_out_when_saving_again(small_model, pretrained, tmp_path):
    """The folder is the same as before; weights that belong to the model can not be left out."""
    FluidPipeline(small_model(text_encoder=pretrained), weights="ema").save_pretrained(tmp_path / "model")
    left = encode_prompts(tmp_path / "model", "a").text_encoder
    FluidPipeline(load_model(tmp_path / "model", text_encoder=left)[0], weights="ema").save_pretrained(
        tmp_path / "again"
    )
    for file in ("model_index.json", "model.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "model" / file).read_bytes()
    FluidPipeline(small_model()).save_pretrained(tmp_path / "bytes")
    left = encode_prompts(tmp_path / "bytes", "a").text_encoder
    with pytest.raises(CheckpointError, match="Save the model first"):
        FluidPipeline(load_model(tmp_path / "bytes", text_encoder=left)[0]).save_pretrained(tmp_path / "other")


def test_what_does_not_fit_is_refused(small_model, pretrained, tmp_path):
    """No model, prompts without words, weights that are missing, a plugin that is, an encoder of another width."""
    folder = tmp_path / "model"
    with pytest.raises(CheckpointError, match="Expected the folder of a saved model"):
        encode_prompts(folder, "a")
    FluidPipeline(small_model()).save_pretrained(folder)
    with pytest.raises(PromptError, match="empty text"):
        encode_prompts(folder, ["a", " "])
    FluidPipeline(small_model(text_encoder=pretrained)).save_pretrained(tmp_path / "wide")
    wide = encode_prompts(tmp_path / "wide", "a").text_encoder
    with pytest.raises(CheckpointMismatchError, match=r"aligner\.projection\.weight: shape"):
        load_model(folder, text_encoder=wide)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace('"name": "bytes"', '"name": "runes"'))
    with pytest.raises(UnknownComponentError, match="needs plugins that are not installed"):
        encode_prompts(folder, "a")
    index.write_text(index.read_text().replace('"name": "runes"', '"name": "bytes"'))
    weights = load_file(folder / "model.safetensors")
    write_safetensors(
        folder / "model.safetensors", {name: one for name, one in weights.items() if "byte_embedding" not in name}
    )
    with pytest.raises(CheckpointMismatchError, match=r"byte_embedding\.weight: missing"):
        encode_prompts(folder, "a")
