"""`FluidPipeline.inpaint`: what is kept, what is drawn, and what is not known of what lies under the mask."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fluid_core import FluidPipeline
from fluid_core.errors import IncompatibleComponentsError, InvalidRequestError, PromptError
from fluid_orders import ConfidenceOrder, FixedOrder, FixedOrderOptions, HaltonOrder, RasterOrder

WHITE = np.ones((24, 24), dtype=bool)


def in_token(index):
    """A mask over one token."""
    values = np.zeros((24, 24), dtype=bool)
    row, column = divmod(index, 3)
    values[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = True
    return values


@pytest.mark.parametrize(
    ("tokens", "order"),
    [
        ("continuous", "random"),
        ("continuous", "halton"),
        ("continuous", "fixed"),
        ("continuous", "causal-random"),
        ("discrete", "random"),
        ("discrete", "confidence"),
        ("discrete", "causal-random"),
    ],
)
def test_kept_tokens_and_pixels_are_the_pictures_own(small_model, picture, mask, encoded, call, tokens, order):
    """For every kind of token and every order over any permutation; what is masked is drawn, and seeds differ there."""
    pipeline = FluidPipeline(small_model(tokens, order))
    kept = ~np.array(mask)
    known = torch.ones(9, dtype=torch.bool)
    known[[1, 4]] = False
    first = pipeline.inpaint("a red circle", picture, mask, **call)
    assert torch.equal(first.tokens[0][known], encoded(pipeline, picture)[0][known])
    assert not torch.equal(first.tokens[0][~known], encoded(pipeline, picture)[0][~known])
    as_pil = pipeline.inpaint("a red circle", picture, mask, **{**call, "output_type": "pil"}).images[0]
    assert np.array_equal(np.array(as_pil)[kept], np.array(picture)[kept])
    assert not np.array_equal(np.array(as_pil)[~kept], np.array(picture)[~kept])
    several = pipeline.inpaint("a red circle", picture, mask, num_images_per_prompt=6, temperature=9.0, **call)
    for image, found in zip(several.images, several.tokens, strict=True):
        assert torch.equal(image[:, kept], first.images[0][:, kept])
        assert torch.equal(found[known], first.tokens[0][known])
    assert any(not torch.equal(found, first.tokens[0]) for found in several.tokens)


@pytest.mark.parametrize("order", ["random", "causal-random"])
def test_what_is_drawn_depends_on_every_kept_token(small_model, picture, call, order):
    """Also on those that come after it row by row: in a causal order the known tokens go first."""
    pipeline = FluidPipeline(small_model(order=order))
    base = pipeline.inpaint("a", picture, in_token(4), **call).tokens[0, 4]
    for index in (0, 1, 2, 3, 5, 6, 7, 8):
        changed = np.array(picture)
        changed[in_token(index)] = 255 - changed[in_token(index)]
        other = pipeline.inpaint("a", Image.fromarray(changed), in_token(4), **call).tokens[0, 4]
        assert not torch.allclose(other, base, atol=1e-5, rtol=0), index


def test_what_is_drawn_is_what_the_decoder_makes(pipeline, picture, mask, call):
    """Under the mask stand the decoded tokens, also those pixels of a drawn token that the mask leaves are kept."""
    result = pipeline.inpaint("a", picture, mask, **call)
    drawn = torch.from_numpy(np.array(mask))
    assert torch.equal(result.images[0][:, drawn], pipeline.decode(result.tokens)[0][:, drawn])


@pytest.mark.parametrize("tokens", ["continuous", "discrete"])
def test_nothing_under_the_mask_is_known(small_model, picture, noise_of, mask, call, tokens):
    """Two pictures that differ under the mask alone give the same, to the bit, with a soft seam as well."""
    pipeline = FluidPipeline(small_model(tokens))
    other = picture.copy()
    other.paste(noise_of(24, 24, seed=2), mask=mask)
    assert not np.array_equal(np.array(other), np.array(picture))
    for blend in (0, 3):
        results = [pipeline.inpaint("a", one, mask, blend=blend, **call) for one in (picture, other)]
        assert torch.equal(results[0].tokens, results[1].tokens)
        assert torch.equal(results[0].images, results[1].images)


def test_nothing_under_the_mask_is_known_through_an_autoencoder(autoencoder_model, noise_of, call):
    """Not either where each token sees far beyond its own pixels, nor through resizing; what is kept is known."""
    pipeline = FluidPipeline(autoencoder_model())
    for size in (16, 40):
        mask = np.zeros((size, size), dtype=bool)
        mask[size // 4 : size // 2, size // 4 : size // 2] = True
        one, other, hidden = (noise_of(size, size, seed=seed) for seed in range(3))
        hidden.paste(one, mask=Image.fromarray(~mask))
        assert not np.array_equal(np.array(one), np.array(hidden))
        results = [pipeline.inpaint("a", picture, mask, **call) for picture in (one, hidden, other)]
        assert torch.equal(results[0].tokens, results[1].tokens)
        assert torch.equal(results[0].images, results[1].images)
        assert not torch.equal(results[0].tokens, results[2].tokens)


def test_kept_tokens_of_an_autoencoder_are_draws_that_the_seed_decides(autoencoder_model, noise_of, call):
    """One draw for each image: the same for the same seed, another for another."""
    pipeline = FluidPipeline(autoencoder_model())
    mask = np.zeros((16, 16), dtype=bool)
    mask[:4, :4] = True
    picture = noise_of(16, 16, seed=1)
    first, second = pipeline.inpaint("a", picture, mask, num_images_per_prompt=2, **call).tokens
    assert not torch.equal(first[5], second[5])
    again = pipeline.inpaint("a", picture, mask, num_images_per_prompt=2, **call).tokens
    assert torch.equal(again[0], first)


def test_a_white_mask_is_a_call_without_a_picture(pipeline, picture, call):
    """To the bit."""
    whole = pipeline.inpaint("a red circle", picture, WHITE, guidance_scale=2.0, **call)
    plain = pipeline("a red circle", guidance_scale=2.0, **call)
    assert torch.equal(whole.tokens, plain.tokens)
    assert torch.equal(whole.images, plain.images)


def test_all_arguments_of_a_call_work(pipeline, picture, call):
    """Each changes what is drawn as it does in a call; output types and the callback are those of a call, too."""
    mask = in_token(1) | in_token(3) | in_token(4) | in_token(5) | in_token(7)
    base = pipeline.inpaint("a", picture, mask, guidance_scale=3.0, **call)
    embeds = pipeline.encode_prompts("a")
    again = pipeline.inpaint(None, picture, mask, prompt_embeds=embeds, guidance_scale=3.0, **call)
    assert torch.equal(base.tokens, again.tokens)
    for changed in (
        {"negative_prompt": "ugly"},
        {"negative_prompt_embeds": pipeline.encode_prompts("ugly")},
        {"guidance_scale": 1.0},
        {"guidance_schedule": "linear"},
        {"guidance_schedule": "interval", "guidance_interval": (0.0, 0.9)},
        {"temperature": 0.5},
        {"num_head_steps": 3},
        {"head_options": {"num_sampling_steps": 4}},
        {"num_inference_steps": 1},
        {"order": HaltonOrder()},
        {"order": FixedOrder()},
        {"seed": 8},
    ):
        other = pipeline.inpaint("a", picture, mask, **{"guidance_scale": 3.0, **call, **changed})
        assert not torch.equal(base.tokens, other.tokens), changed
    told = []
    result = pipeline.inpaint("a", picture, mask, seed=7, num_inference_steps=2, callback_on_step_end=told.append)
    assert [progress.step for progress in told] == [1, 2]
    assert 4 < int(told[0].known.sum()) < int(told[1].known.sum()) == 9
    assert isinstance(result.images[0], Image.Image)
    assert pipeline.inpaint("a", picture, mask, **{**call, "output_type": "np"}).images.shape == (1, 24, 24, 3)
    only_tokens = pipeline.inpaint("a", picture, mask, **{**call, "output_type": "tokens"})
    assert only_tokens.images is None
    assert only_tokens.tokens.shape == (1, 9, 192)
    generators = [torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)]
    two = pipeline.inpaint("a", picture, mask, num_images_per_prompt=2, generator=generators, output_type="pt")
    assert len(set(two.seeds)) == 2
    assert pipeline.inpaint("a", picture, mask, **call, head_backend="reference").head_backend == "reference"


def test_no_prompt_stands_for_no_text(pipeline, picture, mask, call):
    """The model is told nothing, which differs from being told something; a call without a picture needs a prompt."""
    result = pipeline.inpaint(None, picture, mask, **call)
    assert not torch.equal(result.tokens, pipeline.inpaint("a", picture, mask, **call).tokens)
    with pytest.raises(PromptError, match="found neither"):
        pipeline()


def test_an_image_does_not_change_with_its_neighbours(pipeline, noise_of, call):
    """Pictures whose masks leave different numbers of tokens go together, and each comes out as if it were alone."""
    pictures = [noise_of(24, 24, seed=seed) for seed in range(3)]
    masks = [in_token(0), in_token(4) | in_token(5), in_token(8)]
    seeds = [11, 12, 13, 14, 15, 16]
    settings = {**call, "seed": seeds, "num_images_per_prompt": 2, "guidance_scale": 2.0}
    together = pipeline.inpaint(["a", "a red circle", "bb"], pictures, masks, **settings)
    assert together.images.shape == (6, 3, 24, 24)
    for index, prompt in enumerate(["a", "a", "a red circle", "a red circle", "bb", "bb"]):
        alone = pipeline.inpaint(
            prompt, pictures[index // 2], masks[index // 2], **{**call, "seed": [seeds[index]], "guidance_scale": 2.0}
        )
        torch.testing.assert_close(alone.tokens[0], together.tokens[index], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone.images[0], together.images[index], atol=1e-4, rtol=1e-4)


def test_one_picture_serves_several_prompts_and_one_prompt_several_pictures(pipeline, picture, mask, noise_of, call):
    """One mask serves several pictures; other numbers are refused."""
    assert len(pipeline.inpaint(["a", "b", "c"], picture, mask, **call).images) == 3
    pictures = [picture, noise_of(24, 24, seed=2)]
    assert len(pipeline.inpaint("a", pictures, mask, **call).images) == 2
    assert len(pipeline.inpaint("a", picture, [mask, WHITE], **call).images) == 2
    with pytest.raises(InvalidRequestError, match="found 3 prompts and 2 pictures"):
        pipeline.inpaint(["a", "b", "c"], pictures, mask, **call)
    with pytest.raises(InvalidRequestError, match="found 3 masks for 2 pictures"):
        pipeline.inpaint("a", pictures, [mask] * 3, **call)


def test_more_steps_than_tokens_to_draw_are_as_many(pipeline, picture, mask, call):
    """What a mask leaves to draw is not for the caller to count; no step at all is still an error."""
    many = pipeline.inpaint("a", picture, mask, **{**call, "num_inference_steps": 64})
    assert torch.equal(many.tokens, pipeline.inpaint("a", picture, mask, **call).tokens)
    with pytest.raises(InvalidRequestError, match="num_inference_steps as a whole number of 1 or more, found 0"):
        pipeline.inpaint("a", picture, mask, **{**call, "num_inference_steps": 0})


def test_raster_says_why_it_can_not(small_model, picture, mask):
    """As the order of a model, and as an order to sample in."""
    raster = FluidPipeline(small_model(order="raster"))
    for edit in (
        lambda pipeline, **settings: pipeline.inpaint("a", picture, mask, **settings),
        lambda pipeline, **settings: pipeline.outpaint("a", picture, (8, 8, 24, 24), **settings),
        lambda pipeline, **settings: pipeline.variation(picture, "a", **settings),
    ):
        with pytest.raises(IncompatibleComponentsError, match=r"RasterOrder can not edit .* kept further on"):
            edit(raster)
        causal = FluidPipeline(small_model(order="causal-random"))
        with pytest.raises(IncompatibleComponentsError, match="RasterOrder can not edit"):
            edit(causal, order=RasterOrder())


def test_an_order_that_needs_confidence_fits_some_heads_only(small_model, pipeline, picture, mask, call):
    """As in a call."""
    with pytest.raises(IncompatibleComponentsError, match="how sure"):
        pipeline.inpaint("a", picture, mask, order=ConfidenceOrder(), **call)
    ids = FluidPipeline(small_model("discrete"))
    assert ids.inpaint("a", picture, mask, order=ConfidenceOrder(), **call).tokens.shape == (1, 9)


def test_unknown_arguments_are_refused(pipeline, picture, mask):
    """By name, as Python does."""
    with pytest.raises(TypeError, match="guidance_scal"):
        pipeline.inpaint("a", picture, mask, guidance_scal=2.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blend": -1}, "blend as a whole number of pixels, 0 or more, found -1"),
        ({"fit": "pad"}, "'exact', 'crop' or 'stretch', found 'pad'"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt as a whole number of 1 or more, found 0"),
        ({"output_type": "jpeg"}, "found 'jpeg'"),
        ({"seed": [1, 2]}, r"one seed per image \(1\), found 2"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_settings_without_meaning_are_refused(pipeline, picture, mask, settings, message):
    """Each with a message that says what was found."""
    unchecked = getattr(FluidPipeline.inpaint, "__wrapped__", FluidPipeline.inpaint)
    with pytest.raises(InvalidRequestError, match=message):
        unchecked(pipeline, "a", picture, mask, **settings)


def test_masks_that_leave_nothing_to_draw_or_nothing_to_go_by_are_refused(pipeline, picture):
    """Black everywhere; and white in every token, while some pixels are to be kept."""
    with pytest.raises(InvalidRequestError, match="nothing to draw: expected white"):
        pipeline.inpaint("a", picture, ~WHITE)
    with pytest.raises(InvalidRequestError, match="mask of picture 2 of 2 leaves nothing"):
        pipeline.inpaint("a", picture, [WHITE, ~WHITE])
    stripes = WHITE.copy()
    stripes[::2] = False
    with pytest.raises(InvalidRequestError, match=r"not the whole of any token.* 3 x 3 areas of 8 x 8 pixels"):
        pipeline.inpaint("a", picture, stripes)


def test_what_an_order_refuses_for_one_picture_it_refuses_before_any_is_drawn(pipeline, picture):
    """Two masks leave 6 and 9 tokens to draw, and the order has steps for 6."""
    some = np.zeros((24, 24), dtype=bool)
    some[8:] = True
    masks = [some, np.ones((24, 24), dtype=bool)]
    told = []
    settings = {"order": FixedOrder(FixedOrderOptions(steps=(2, 4))), "output_type": "tokens"}
    pipeline.inpaint("a", picture, some, callback_on_step_end=told.append, **settings)
    assert len(told) == 2
    with pytest.raises(InvalidRequestError, match="9 unknown"):
        pipeline.inpaint("a", picture, masks, callback_on_step_end=told.append, **settings)
    assert len(told) == 2


def test_a_tokenizer_of_another_type_can_be_edited_with(pipeline, picture, mask, call):
    """Its tokens become those that the model takes."""
    expected = pipeline.inpaint("a", picture, mask, **call).tokens
    pipeline.model.tokenizer = DoubleTokens(pipeline.model.tokenizer)
    assert torch.equal(pipeline.inpaint("a", picture, mask, **call).tokens, expected)


class DoubleTokens(nn.Module):
    """A tokenizer whose tokens come in double precision."""

    def __init__(self, single):
        super().__init__()
        self._single = single
        self.token_space, self.image_size = single.token_space, single.image_size

    def precompute(self, images):
        """As the other."""
        return self._single.precompute(images)

    def tokens(self, precomputed, *, random):
        """The other's, in another type."""
        return self._single.tokens(precomputed, random=random).double()

    def decode(self, tokens):
        """As the other."""
        return self._single.decode(tokens)
