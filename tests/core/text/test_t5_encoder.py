"""T5 through transformers, on tiny models saved to disk."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import torch

from fluid_core.errors import CheckpointError, ConfigurationError, InvalidRequestError, PromptError
from fluid_core.protocols import TextEncoder
from fluid_core.text import T5Encoder, T5EncoderOptions, build_t5_encoder, example_t5_options

PROMPTS = ["a red circle above a blue square", "hi", "three green triangles"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> T5EncoderOptions:
    """A tiny T5 over bytes, saved to disk."""
    return example_t5_options(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def encoder(saved: T5EncoderOptions) -> T5Encoder:
    """The tiny T5, loaded."""
    return build_t5_encoder(saved)


@pytest.fixture(scope="module")
def word_piece_options(saved: T5EncoderOptions, tmp_path_factory: pytest.TempPathFactory) -> T5EncoderOptions:
    """The same weights with a unigram tokenizer of word pieces, the kind that T5 has, in tokenizer.json."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import T5TokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([*PROMPTS, "a dog and a cat on a hill in the rain"] * 5, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder = tmp_path_factory.mktemp("unigram") / "t5"
    shutil.copytree(saved.path, folder)
    for left_over in ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"):
        (folder / left_over).unlink(missing_ok=True)
    T5TokenizerFast(tokenizer_object=tokenizer, extra_ids=0).save_pretrained(folder)
    return T5EncoderOptions(path=str(folder), max_length=32)


@pytest.fixture
def copy(saved: T5EncoderOptions, tmp_path: Path) -> Path:
    """A copy of the saved folder that a test may damage."""
    shutil.copytree(saved.path, tmp_path / "t5")
    return tmp_path / "t5"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No request leaves the machine: the hub behaves as without a network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return


def test_it_keeps_the_contract(encoder: T5Encoder):
    """It is a frozen text encoder with the width of its model."""
    assert isinstance(encoder, TextEncoder)
    assert isinstance(encoder, torch.nn.Module)
    assert (encoder.width, encoder.max_length, encoder.frozen) == (32, 64, True)


def test_states_are_those_of_transformers(encoder: T5Encoder, saved: T5EncoderOptions):
    """One prompt gives exactly what T5EncoderModel gives for its ids."""
    from transformers import ByT5Tokenizer, T5EncoderModel

    ids = ByT5Tokenizer()(PROMPTS[0], return_tensors="pt")
    with torch.no_grad():
        expected = T5EncoderModel.from_pretrained(saved.path)(**ids).last_hidden_state
    features = encoder.encode(PROMPTS[:1])
    assert features.mask.all()
    torch.testing.assert_close(features.states, expected, rtol=1e-6, atol=1e-6)
    assert float(features.states.std()) > 0.01


def test_padding_changes_nothing(encoder: T5Encoder):
    """A prompt has the same states alone and beside a longer one; states of padding are zero."""
    together = encoder.encode(PROMPTS)
    assert together.states.shape == (3, 33, 32)
    assert together.mask.sum(dim=1).tolist() == [33, 3, 22]
    assert (together.states[~together.mask] == 0).all()
    for index, prompt in enumerate(PROMPTS):
        alone = encoder.encode([prompt])
        length = alone.states.shape[1]
        torch.testing.assert_close(together.states[index, :length], alone.states[0], rtol=1e-5, atol=1e-5)


def test_it_stays_frozen(saved: T5EncoderOptions):
    """No gradients, and `train()` on the model around it does not switch dropout on."""
    encoder = build_t5_encoder(saved)
    model = torch.nn.ModuleDict({"text": encoder, "layer": torch.nn.Linear(2, 2)}).train()
    assert model["layer"].training
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    states = encoder.encode(PROMPTS).states
    assert not states.requires_grad
    assert torch.equal(states, encoder.encode(PROMPTS).states)


def test_states_can_be_trained_upon(encoder: T5Encoder):
    """An aligner behind it gets gradients: the states are ordinary tensors to autograd."""
    aligner = torch.nn.Linear(32, 4)
    aligner(encoder.encode(PROMPTS).states).sum().backward()
    assert aligner.weight.grad.abs().sum() > 0


def test_autocast_changes_nothing(encoder: T5Encoder):
    """States computed within a trainer's autocast equal those of generation and of a cache."""
    expected = encoder.encode(PROMPTS).states
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder.encode(PROMPTS).states, expected)


def test_bfloat16_weights_give_float32_states(saved: T5EncoderOptions, encoder: T5Encoder):
    """Weights in half the memory, states in single precision, close to the full model's."""
    small = build_t5_encoder(attrs.evolve(saved, dtype="bfloat16"))
    assert small.model.dtype == torch.bfloat16
    states, expected = small.encode(PROMPTS).states, encoder.encode(PROMPTS).states
    assert states.dtype == torch.float32
    assert not torch.equal(states, expected)
    torch.testing.assert_close(states, expected, rtol=0.1, atol=0.1 * float(expected.std()))


def test_float16_is_refused(saved: T5EncoderOptions):
    """In the options with the reason, and at use if the weights were cast later."""
    with pytest.raises(ConfigurationError, match="'float16': its activations exceed the range"):
        T5EncoderOptions(path="anywhere", dtype="float16")
    with pytest.raises(ConfigurationError, match="found 'int8'"):
        T5EncoderOptions(path="anywhere", dtype="int8")
    with pytest.raises(InvalidRequestError, match="cast to float16"):
        build_t5_encoder(saved).half().encode(PROMPTS)


def test_prompts_are_checked(saved: T5EncoderOptions):
    """Empty prompts are refused by number, and if the options say so, prompts of more tokens than the limit."""
    encoder = build_t5_encoder(attrs.evolve(saved, overlong="error"))
    with pytest.raises(PromptError, match="prompt 1 of 2 to say something"):
        encoder.encode(["", "a"])
    assert encoder.encode(["x" * 63]).states.shape[1] == 64
    with pytest.raises(PromptError, match=r"prompt 2 of 2 to have at most 64 tokens .*, found 65"):
        encoder.encode(["a", "x" * 64])


def test_the_defaults_are_those_of_the_paper():
    """128 tokens, and longer prompts are cut rather than refused."""
    options = T5EncoderOptions(path="anywhere")
    assert (options.max_length, options.overlong, options.dtype) == (128, "truncate", "float32")


def test_the_empty_prompt_is_the_end_mark(encoder: T5Encoder):
    """Its states are what T5 makes of the end mark alone, and they can stand for no text."""
    features = encoder.encode_empty()
    with torch.no_grad():
        expected = encoder.model(input_ids=torch.tensor([[1]])).last_hidden_state
    assert features.mask.tolist() == [[True]]
    torch.testing.assert_close(features.states, expected, rtol=1e-6, atol=1e-6)


def test_truncation_keeps_the_end_mark(saved: T5EncoderOptions, caplog: pytest.LogCaptureFixture):
    """A cut prompt equals the prompt that ends there, and the warning says what was cut."""
    encoder = build_t5_encoder(attrs.evolve(saved, max_length=9))
    with caplog.at_level(logging.WARNING, logger="fluid_core"):
        cut = encoder.encode(["a red circle"])
    assert torch.equal(cut.states, encoder.encode(["a red ci"]).states)
    assert caplog.messages == [
        "Truncated the prompt from 13 to 9 tokens with the end mark: 'rcle' was cut from the end."
    ]


def test_word_pieces(word_piece_options: T5EncoderOptions, caplog: pytest.LogCaptureFixture):
    """A tokenizer.json of word pieces works as the byte tokenizer does: marks, padding, limit, truncation."""
    encoder = build_t5_encoder(attrs.evolve(word_piece_options, overlong="error"))
    together, alone = encoder.encode(PROMPTS), encoder.encode(PROMPTS[2:])
    length = alone.states.shape[1]
    assert length < len(PROMPTS[2])
    torch.testing.assert_close(together.states[2, :length], alone.states[0], rtol=1e-5, atol=1e-5)
    long_prompt = " and ".join(["a red circle"] * 10)
    with pytest.raises(PromptError, match="at most 32 tokens"):
        encoder.encode([long_prompt])
    truncating = build_t5_encoder(word_piece_options)
    with caplog.at_level(logging.WARNING, logger="fluid_core"):
        assert truncating.encode([long_prompt]).mask.sum() == 32
    lost = caplog.messages[-1].split("end mark: '")[1].split("' was cut")[0]
    assert len(lost) > 20
    assert long_prompt.endswith(lost)


def test_a_missing_folder_is_named(tmp_path: Path):
    """No hub is asked for a path that can only be a folder."""
    for path in (str(tmp_path / "nowhere"), "./nowhere", "some/where/else"):
        with pytest.raises(CheckpointError, match="found no such folder"):
            build_t5_encoder(T5EncoderOptions(path=path))


@pytest.mark.usefixtures("offline")
def test_a_hub_that_can_not_be_reached_is_reported():
    """The message says that either a folder or a network is needed."""
    with pytest.raises(CheckpointError, match=r"no-one/no-such-t5.*a folder .* or the id of a hub model"):
        build_t5_encoder(T5EncoderOptions(path="no-one/no-such-t5", revision="main"))


def test_an_empty_folder_is_reported(tmp_path: Path):
    """A folder without a configuration says what it should hold."""
    with pytest.raises(CheckpointError, match=r"no readable configuration.*config\.json, model\.safetensors"):
        build_t5_encoder(T5EncoderOptions(path=str(tmp_path)))


def test_another_kind_of_model_is_refused(copy: Path):
    """A BERT has no T5 encoder in it."""
    (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="found one of type 'bert'"):
        build_t5_encoder(T5EncoderOptions(path=str(copy)))


def test_truncated_weights_are_refused(copy: Path):
    """Half a file of weights is not loaded."""
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match=r"weights of a T5 model in safetensors files .* none that can be read"):
        build_t5_encoder(T5EncoderOptions(path=str(copy)))


def test_missing_weights_are_refused(copy: Path):
    """Neither a folder without weights, nor weights without some layers, become a random encoder."""
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["encoder.block.1.layer.0.SelfAttention.q.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"found 1 missing .* such as encoder\.block\.1"):
        build_t5_encoder(T5EncoderOptions(path=str(copy)))
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="none that can be read"):
        build_t5_encoder(T5EncoderOptions(path=str(copy)))


def test_a_missing_tokenizer_is_refused(copy: Path):
    """Transformers makes up a tokenizer without words if there is none; it must not be used."""
    for file in ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"):
        (copy / file).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="tokenizer of a T5 model beside its weights"):
        build_t5_encoder(T5EncoderOptions(path=str(copy)))


def test_a_tokenizer_of_another_model_is_refused(copy: Path):
    """More tokens than the model has embeddings would crash in the middle of training."""
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    for name in ("shared.weight", "encoder.embed_tokens.weight"):
        if name in weights:
            weights[name] = weights[name][:200].clone()
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": 200}))
    with pytest.raises(CheckpointError, match=r"at most 200 tokens .* found one of 384"):
        build_t5_encoder(T5EncoderOptions(path=str(copy)))


def test_making_the_example_leaves_the_global_generator_alone(tmp_path: Path):
    """The tiny weights are seeded, and nobody else's random numbers change."""
    from safetensors.torch import load_file

    before = torch.get_rng_state()
    first, second = (example_t5_options(tmp_path / name) for name in ("a", "b"))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [load_file(Path(options.path) / "model.safetensors") for options in (first, second)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_options_are_checked():
    """Empty paths and limits too small for one token are refused."""
    with pytest.raises(ConfigurationError, match="found an empty string"):
        T5EncoderOptions(path=" ")
    with pytest.raises(ValueError, match="max_length"):
        T5EncoderOptions(path="x", max_length=1)
