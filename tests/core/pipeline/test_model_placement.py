"""`.to(...)` of a pipeline: devices, types, and drawing in bfloat16."""

import pytest
import torch

from fluid_core import FluidPipeline
from fluid_core.configuration import ComponentChoice
from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplingRequest
from fluid_core.text import example_t5_options, example_transformers_options

PICTURE = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(5))
MASK = torch.arange(24).expand(24, 24) < 8
CALL = {"seed": 3, "num_inference_steps": 3, "output_type": "pt", "guidance_scale": 2.0}


def test_devices_and_types_in_any_order(small_model):
    """By place or by name, one or both; the pipeline itself comes back."""
    pipeline = FluidPipeline(small_model())
    assert (pipeline.device, pipeline.dtype) == (torch.device("cpu"), torch.float32)
    for args, named, expected in (
        ((torch.bfloat16,), {}, torch.bfloat16),
        (("cpu",), {}, torch.bfloat16),
        (("cpu", torch.float32), {}, torch.float32),
        ((torch.bfloat16, "cpu"), {}, torch.bfloat16),
        ((), {"device": "cpu", "dtype": torch.float32}, torch.float32),
        (("cpu",), {"dtype": torch.bfloat16}, torch.bfloat16),
    ):
        assert pipeline.to(*args, **named) is pipeline
        assert pipeline.dtype == expected
        assert pipeline.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "found 0 devices and 0 types"),
        (("cpu", "cpu"), "found 2 devices"),
        ((torch.float32, torch.bfloat16), "0 devices and 2 types"),
        (("abacus",), "a device that can be used here, found 'abacus'"),
        (("cuda:77",), "a device that can be used here, found 'cuda:77'"),
        ((torch.int8,), "floating type such as torch.bfloat16, found torch.int8"),
    ],
)
def test_what_is_neither_is_refused(small_model, args, message):
    """And nothing changes."""
    pipeline = FluidPipeline(small_model())
    with pytest.raises(InvalidRequestError, match=message):
        pipeline.to(*args)
    assert pipeline.dtype == torch.float32


@pytest.mark.parametrize("unconditional", ["learned", "empty-prompt"])
@pytest.mark.parametrize(
    ("tokens", "order"),
    [("continuous", "random"), ("continuous", "causal-random"), ("discrete", "raster"), ("discrete", "confidence")],
)
def test_drawing_in_bfloat16(small_model, tokens, order, unconditional):
    """Every kind of token and attention draws and edits in bfloat16; statistics and tables keep their values."""
    words = ComponentChoice(name="bytes", options={"width": 16, "merge_words": True})
    pipeline = FluidPipeline(small_model(tokens, order, text_encoder=words, unconditional=unconditional))
    steps = {"num_inference_steps": None} if order == "raster" else {}
    single = pipeline(["a red circle", "b"], **{**CALL, **steps})
    statistics = {name: buffer.clone() for name, buffer in pipeline.model.tokenizer.named_buffers()}
    kept_embeds = pipeline.encode_prompts("a red circle")
    pipeline.to(torch.bfloat16)
    half = pipeline(["a red circle", "b"], **{**CALL, **steps})
    assert half.tokens.dtype == single.tokens.dtype
    assert half.images.dtype == torch.float32
    assert half.images.shape == (2, 3, 24, 24)
    for name, buffer in pipeline.model.tokenizer.named_buffers():
        assert torch.equal(buffer, statistics[name]), name
    # States encoded before the cast serve as well as those after it.
    assert pipeline(prompt_embeds=kept_embeds, **{**CALL, **steps}).images.shape == (1, 3, 24, 24)
    if order != "raster":
        edited = pipeline.variation(PICTURE, "a", keep=0.5, **CALL)
        assert bool(torch.isfinite(edited.images).all())


def test_hidden_vectors_in_bfloat16_are_near_those_in_single_precision(small_model):
    """The first drawn tokens are; what follows from them may part."""
    pipeline = FluidPipeline(small_model())
    told = []
    call = {"seed": 3, "num_inference_steps": 9, "guidance_scale": 1.0, "callback_on_step_end": told.append}
    pipeline("a red circle", **call)
    pipeline.to(torch.bfloat16)
    pipeline("a red circle", **call)
    first, again = told[0], told[9]
    assert torch.equal(first.known, again.known)
    difference = (first.tokens - again.tokens).abs().max()
    assert 0 < float(difference) < 0.15 * float(first.tokens.abs().max())


def test_the_scale_of_guidance_is_not_rounded(small_model, monkeypatch):
    """Heads are told 1.3, where bfloat16 has 1.296875."""
    pipeline = FluidPipeline(small_model()).to(torch.bfloat16)
    scales = []

    def remember(request, **values):
        scales.extend([] if values.get("guidance") is None else values["guidance"].scale.tolist())
        return SamplingRequest(**values)

    monkeypatch.setattr("fluid_core.generation.loop.SamplingRequest", lambda **values: remember(None, **values))
    pipeline("a", seed=1, num_inference_steps=1, guidance_scale=1.3)
    assert scales == pytest.approx([1.3] * 9, abs=1e-6)


@pytest.mark.parametrize("kind", ["t5", "transformers-encoder"])
def test_pretrained_text_encoders_are_never_in_float16(small_model, tmp_path, kind):
    """The cast is refused before anything changes; without the encoder, or in bfloat16, the model draws."""
    options = (example_t5_options if kind == "t5" else example_transformers_options)(tmp_path)
    encoder = ComponentChoice(name=kind, options={"path": options.path})
    pipeline = FluidPipeline(small_model(text_encoder=encoder))
    with pytest.raises(InvalidRequestError, match=r"T5 overflow.*bfloat16"):
        pipeline.to(torch.float16)
    assert {parameter.dtype for parameter in pipeline.model.parameters()} == {torch.float32}
    embeds = pipeline.encode_prompts("a red circle")
    assert pipeline.to(torch.bfloat16)("a", **CALL).images.shape == (1, 3, 24, 24)
    pipeline.release_text_encoder().to(torch.float16)
    assert pipeline.dtype == torch.float16
    assert pipeline(prompt_embeds=embeds, **CALL).images.shape == (1, 3, 24, 24)


def test_a_cast_model_saves_and_loads(small_model, tmp_path):
    """With the values that it holds."""
    pipeline = FluidPipeline(small_model()).to(torch.bfloat16)
    pipeline.save_pretrained(tmp_path / "saved")
    loaded = FluidPipeline.from_pretrained(tmp_path / "saved")
    for (name, found), (_, held) in zip(
        loaded.model.named_parameters(), pipeline.model.named_parameters(), strict=True
    ):
        assert torch.equal(found.float(), held.float()), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_calls_and_edits_follow_to_a_gpu(small_model):
    """The same random numbers there, so that results are near those of the CPU."""
    pipeline = FluidPipeline(small_model())
    here = pipeline.inpaint("a", PICTURE, MASK, **CALL)
    pipeline.to("cuda")
    there = pipeline.inpaint("a", PICTURE, MASK, **CALL)
    assert there.images.device.type == "cuda"
    torch.testing.assert_close(there.images.cpu(), here.images, atol=1e-2, rtol=1e-2)
    assert pipeline.to(torch.bfloat16)("a", **CALL).images.device.type == "cuda"
