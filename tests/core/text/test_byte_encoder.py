"""The byte-level text encoder."""

import pytest
import torch

from fluid_core.errors import PromptError
from fluid_core.protocols import TextEncoder
from fluid_core.text import ByteEncoder, ByteEncoderOptions, build_byte_encoder

PROMPTS = ["a red circle above a blue square", "hi", "緑の円"]


def test_it_keeps_the_contract():
    """It is a trainable text encoder with the width and length of its options."""
    encoder = build_byte_encoder(ByteEncoderOptions(width=24, max_length=40))
    assert isinstance(encoder, TextEncoder)
    assert isinstance(encoder, torch.nn.Module)
    assert (encoder.width, encoder.max_length, encoder.frozen) == (24, 40, False)
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_one_state_per_byte_and_two_marks():
    """Shapes, types and mask follow the UTF-8 bytes of each prompt; padding has zero states."""
    features = ByteEncoder().encode(PROMPTS)
    lengths = [len(prompt.encode()) + 2 for prompt in PROMPTS]
    assert features.mask.sum(dim=1).tolist() == lengths == [34, 4, 11]
    assert features.states.shape == (3, 34, 128)
    assert features.states.dtype == torch.float32
    assert features.mask[1].tolist() == [True] * 4 + [False] * 30
    assert (features.states[~features.mask] == 0).all()
    assert (features.states[features.mask].abs().sum(dim=1) > 0).all()


def test_states_tell_bytes_and_places_apart():
    """The same letter at two places differs, as do two letters at one place; the marks differ from all bytes."""
    states = ByteEncoder().encode(["aba", "abb"]).states
    assert torch.equal(states[0, 1], states[1, 1])
    assert not torch.equal(states[0, 1], states[0, 3])
    assert not torch.equal(states[0, 3], states[1, 3])
    table = ByteEncoder().byte_embedding.weight
    assert len(table[:258].unique(dim=0)) == 258


def test_new_states_have_about_unit_variance():
    """The aligner behind it starts from states of ordinary size."""
    features = ByteEncoder(ByteEncoderOptions(width=512)).encode(PROMPTS)
    assert features.states[features.mask].std().item() == pytest.approx(1, abs=0.1)


def test_a_prompt_does_not_depend_on_its_neighbours():
    """Alone or beside a longer prompt: the same states."""
    encoder = ByteEncoder()
    together, alone = encoder.encode(PROMPTS), encoder.encode(PROMPTS[1:2])
    assert torch.equal(together.states[1, :4], alone.states[0])


def test_it_trains():
    """Gradients reach the bytes and places that occur, and no others; padding stays zero."""
    encoder = ByteEncoder()
    encoder.encode(["ab", "abcd"]).states.square().sum().backward()
    rows = encoder.byte_embedding.weight.grad.abs().sum(dim=1)
    assert rows.nonzero()[:, 0].tolist() == [97, 98, 99, 100, 256, 257]
    assert encoder.position_embedding.weight.grad.abs().sum(dim=1).nonzero().max() == 5
    assert (encoder.byte_embedding.weight[258] == 0).all()


def test_the_longest_prompt_fits():
    """`max_length` counts the marks: two bytes fewer fit, one more is refused."""
    encoder = ByteEncoder(ByteEncoderOptions(max_length=10))
    assert encoder.encode(["12345678"]).states.shape[1] == 10
    with pytest.raises(PromptError, match="prompt 2 of 2 to have at most 8 bytes, found 9"):
        encoder.encode(["1", "123456789"])


def test_truncation_falls_between_characters(caplog: pytest.LogCaptureFixture):
    """A character of three bytes is not cut in two; the warning says what is lost."""
    encoder = ByteEncoder(ByteEncoderOptions(max_length=10, overlong="truncate"))
    truncated = encoder.encode(["緑の円です"])
    assert torch.equal(truncated.states, encoder.encode(["緑の"]).states)
    assert caplog.messages == ["Truncated the prompt from 15 to 8 bytes: '円です' was cut from the end."]
    exact = encoder.encode(["12345678 and more"])
    assert torch.equal(exact.states, encoder.encode(["12345678"]).states)
    assert "' and more' was cut" in caplog.messages[1]


def test_empty_prompts_are_refused():
    """The shared checks apply."""
    with pytest.raises(PromptError, match="prompt 2 of 2"):
        ByteEncoder().encode(["a", " "])


def test_state_dict_round_trip():
    """Its tables are saved with the model."""
    encoder, loaded = ByteEncoder(), ByteEncoder()
    assert not torch.equal(encoder.encode(PROMPTS).states, loaded.encode(PROMPTS).states)
    loaded.load_state_dict(encoder.state_dict())
    assert torch.equal(encoder.encode(PROMPTS).states, loaded.encode(PROMPTS).states)


def test_it_can_be_built_on_the_meta_device():
    """`reset_parameters` fills tables that were built without memory."""
    with torch.device("meta"):
        encoder = ByteEncoder()
    encoder.to_empty(device="cpu").reset_parameters()
    assert torch.isfinite(encoder.encode(PROMPTS).states).all()
    assert (encoder.byte_embedding.weight[258] == 0).all()


@pytest.mark.parametrize("options", [{"width": 0}, {"max_length": 2}, {"overlong": "ignore"}])
def test_options_are_checked(options: dict):
    """Widths, lengths and words out of range are refused by name."""
    with pytest.raises(ValueError, match=next(iter(options))):
        ByteEncoderOptions(**options)


def test_the_last_byte_of_a_word_carries_the_word_wherever_it_stands():
    """Without positions, the state at the end of a word is the same in any prompt, and differs between words."""
    torch.manual_seed(0)
    encoder = ByteEncoder(ByteEncoderOptions(ngram_sizes=(3, 6)))
    torch.nn.init.zeros_(encoder.position_embedding.weight)
    early, late = "a circle is here", "here is, by the way, a circle"
    states = encoder.encode([early, late, "a bicycle", "a muscle"]).states
    end = [len("a circle"), len(late), len("a bicycle"), len("a muscle")]
    ends = [states[row, end[row]] for row in range(4)]
    torch.testing.assert_close(ends[0], ends[1])
    assert not torch.allclose(ends[0], ends[2])
    assert not torch.allclose(ends[0], ends[3])


def test_without_ngrams_a_state_is_byte_and_place():
    """An empty list of n-gram sizes leaves the embedding of single bytes and places."""
    torch.manual_seed(0)
    encoder = ByteEncoder(ByteEncoderOptions(ngram_sizes=()))
    states = encoder.encode(["ab"]).states[0]
    expected = encoder.byte_embedding.weight[ord("b")] + encoder.position_embedding.weight[2]
    torch.testing.assert_close(states[2], expected)


def test_merged_words_hold_the_embeddings_of_their_bytes():
    """One state per word, the sum over its bytes by the root of its length, marks included; more spaces do no harm."""
    torch.manual_seed(0)
    options = {"width": 6, "max_length": 32, "ngram_sizes": (), "merge_words": True}
    encoder = ByteEncoder(ByteEncoderOptions(**options))
    features = encoder.encode(["ab  c", "d"])
    assert features.states.shape == (2, 3, 6)
    assert features.mask.tolist() == [[True, False, True], [True, False, False]]
    table, places = encoder.byte_embedding.weight, encoder.position_embedding.weight
    first = (table[256] + table[ord("a")] + table[ord("b")]) / 3**0.5 + places[0]
    last = (table[ord("c")] + table[257]) / 2**0.5 + places[2]
    torch.testing.assert_close(features.states[0, 0], first)
    torch.testing.assert_close(features.states[0, 2], last)
    torch.testing.assert_close(features.states[1, 0], (table[256] + table[ord("d")] + table[257]) / 3**0.5 + places[0])
    assert float(features.states[~features.mask].abs().max()) == 0.0


def test_a_merged_prompt_does_not_depend_on_its_neighbours():
    """Words of a prompt are the same alone and beside a longer one, n-grams included."""
    torch.manual_seed(0)
    encoder = ByteEncoder(ByteEncoderOptions(width=8, merge_words=True))
    alone = encoder.encode(["a red circle"])
    beside = encoder.encode(["a red circle", "a red circle above a blue square"])
    torch.testing.assert_close(beside.states[0, :3], alone.states[0])
    assert beside.mask.tolist() == [[True] * 3 + [False] * 4, [True] * 7]
