"""Backend and options of a head's sampler: what core refuses, and how it knows what runs."""

import pytest
import torch

from fluid_core import FluidPipeline, KeyedRandom
from fluid_core.commands.sampling_options import BackendName
from fluid_core.configuration.overrides import named_values
from fluid_core.errors import (
    ConfigurationError,
    IncompatibleComponentsError,
    InvalidComponentError,
    InvalidRequestError,
)
from fluid_core.exchange import HeadContext, SamplerBackend, SamplerSettings, SamplingRequest
from fluid_core.generation import GenerationSettings, generate
from fluid_core.sampler_choice import build_sampler
from fluid_core.testing.example_tokens import example_token_space
from fluid_core.testing.tiny import TinyGaussianHead
from fluid_core.testing.tiny.heads import TinyGaussianSampler


class OffsetSampler(TinyGaussianSampler):
    """Adds a number to every sample, and reports a backend."""

    def __init__(self, head, offset, backend):
        super().__init__(head)
        self._offset, self.backend = offset, backend

    def __call__(self, condition, request):
        """Samples of the tiny head, moved."""
        return super().__call__(condition, request) + self._offset


class OffsetHead(TinyGaussianHead):
    """Has one option to change when sampling, `offset`, and a fused sampler unless that is set."""

    sampling_options = frozenset({"offset"})

    def sampler(self, settings):
        """Fused for `auto` and `fused` without an offset."""
        offset = settings.options.get("offset", 0.0)
        fused = settings.backend is not SamplerBackend.REFERENCE and not offset
        return OffsetSampler(self, offset, SamplerBackend.FUSED if fused else SamplerBackend.REFERENCE)


@pytest.fixture
def context():
    """Five channels and hidden vectors of width 16."""
    space = example_token_space("continuous")
    return HeadContext(token_space=space, width=16, token_embedding=space.embedding(16))


@pytest.fixture
def pipelines(small_model):
    """A pipeline over continuous and one over discrete tokens."""
    return {tokens: FluidPipeline(small_model(tokens)) for tokens in ("continuous", "discrete")}


def test_what_runs_is_known(context):
    """A sampler that says nothing runs its reference; one that says something is believed."""
    assert build_sampler(TinyGaussianHead(context), SamplerSettings()).backend is SamplerBackend.REFERENCE
    head = OffsetHead(context)
    assert build_sampler(head, SamplerSettings()).backend is SamplerBackend.FUSED
    assert build_sampler(head, SamplerSettings(backend="fused")).backend is SamplerBackend.FUSED
    assert build_sampler(head, SamplerSettings(backend="reference")).backend is SamplerBackend.REFERENCE
    assert build_sampler(head, SamplerSettings(options={"offset": 2.0})).backend is SamplerBackend.REFERENCE


def test_options_reach_the_sampler(context):
    """What the head does with an option shows in the tokens."""
    head, condition = OffsetHead(context), torch.randn(4, 16)

    def draw(**options):
        sampler = build_sampler(head, SamplerSettings(options=options)).sampler
        return sampler(condition, SamplingRequest(random=KeyedRandom(torch.arange(4))))

    torch.testing.assert_close(draw(offset=2.0), draw() + 2.0)


def test_a_fused_sampler_that_is_not_there_is_refused(context):
    """For a head without one, and for a request it does not cover: the message names the way out."""
    for head, options in ((TinyGaussianHead(context), {}), (OffsetHead(context), {"offset": 1.0})):
        with pytest.raises(InvalidRequestError, match=r"no fused sampler for this request.*'auto'"):
            build_sampler(head, SamplerSettings(backend="fused", options=options))


def test_options_a_head_does_not_name_are_refused(context):
    """With a hint for a misspelt one, and plainly for a head that has none."""
    with pytest.raises(InvalidRequestError, match=r"'ofset' .* Did you mean 'offset'\? It takes 'offset'"):
        build_sampler(OffsetHead(context), SamplerSettings(options={"ofset": 1.0}))
    with pytest.raises(InvalidRequestError, match=r"TinyGaussianHead has no options that can be changed .*'top_k'"):
        build_sampler(TinyGaussianHead(context), SamplerSettings(options={"top_k": 3}))


def test_unknown_backends_are_refused():
    """Wherever settings are made, with the choices."""
    for make in (lambda: SamplerSettings(backend="fast"), lambda: GenerationSettings(head_backend="fast")):
        with pytest.raises(InvalidRequestError, match="one of auto, reference, fused; found 'fast'"):
            make()
    assert [name.value for name in BackendName] == [backend.value for backend in SamplerBackend]


def test_samplers_that_report_nonsense_are_refused(context):
    """A backend that is no implementation, and a fused sampler where the reference was asked for."""
    head = TinyGaussianHead(context)
    head.sampler = lambda settings: OffsetSampler(head, 0.0, SamplerBackend.AUTO)
    with pytest.raises(InvalidComponentError, match="expected 'reference' or 'fused'"):
        build_sampler(head, SamplerSettings())
    head.sampler = lambda settings: OffsetSampler(head, 0.0, SamplerBackend.FUSED)
    with pytest.raises(InvalidComponentError, match="asked for its reference sampler"):
        build_sampler(head, SamplerSettings(backend="reference"))


def test_the_pipeline_reports_what_ran(pipelines):
    """The softmax head runs fused unless the vocabulary is limited; both backends draw the same ids."""
    pipeline, call = pipelines["discrete"], {"seed": 3, "num_inference_steps": 3, "output_type": "tokens"}
    fused = pipeline(["a", "b"], guidance_scale=2.0, **call)
    reference = pipeline(["a", "b"], guidance_scale=2.0, head_backend="reference", **call)
    assert (fused.head_backend, reference.head_backend) == ("fused", "reference")
    assert torch.equal(fused.tokens, reference.tokens)
    limited = pipeline(["a", "b"], guidance_scale=2.0, head_options={"top_k": 1}, **call)
    assert limited.head_backend == "reference"
    cold = pipeline(["a", "b"], guidance_scale=2.0, temperature=0.0, **call)
    assert torch.equal(limited.tokens, cold.tokens)
    assert not torch.equal(limited.tokens, fused.tokens)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"head_backend": "fast"}, InvalidRequestError, "found 'fast'"),
        ({"head_options": {"top_n": 3}}, InvalidRequestError, "Did you mean 'top_"),
        ({"head_options": {"top_k": 0}}, InvalidRequestError, "'top_k' must be a whole number at least 1, found 0"),
        ({"head_options": {"top_k": 3}, "head_backend": "fused"}, InvalidRequestError, "top_k=3"),
        ({"num_head_steps": 3}, InvalidRequestError, "num_steps=3"),
        ({"order": "raster"}, IncompatibleComponentsError, "can not sample with"),
    ],
)
def test_requests_the_head_or_order_refuses_cost_no_time(pipelines, small_model, arguments, error, message):
    """They are refused before a prompt is encoded."""
    pipeline = pipelines["discrete"]
    if "order" in arguments:
        arguments = {"order": small_model("discrete", "raster").order}
    pipeline.model.text_encoder.encode = lambda _: pytest.fail("the prompt was encoded")
    unchecked = getattr(FluidPipeline.__call__, "__wrapped__", FluidPipeline.__call__)
    with pytest.raises(error, match=message):
        unchecked(pipeline, "a", **arguments)


def test_steps_the_order_refuses_are_refused_before_the_backbone_runs(small_model):
    """Also in `generate` itself, which is given text that is encoded already."""
    model = small_model().eval()
    text = model.aligner.unconditional(1)
    model.transformer.text = lambda *_: pytest.fail("the backbone ran")
    random = KeyedRandom(torch.tensor([1]))
    for settings, message in (
        (GenerationSettings(num_steps=99), "num_steps=99"),
        (GenerationSettings(num_head_steps=0), "0"),
        (GenerationSettings(head_options={"top_k": 3}), "top_k"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            generate(model, text, random=random, settings=settings)


def test_values_of_the_command_line():
    """As in overrides: TOML, or a bare word; the last of a name wins; a name and an equals sign are needed."""
    given = ["top_k=50", "top_p = 0.9", "solver=ddim", "flag=true", "top_k=7", 'text="a=b"']
    expected = {"top_k": 7, "top_p": 0.9, "solver": "ddim", "flag": True, "text": "a=b"}
    assert named_values(given) == expected
    for wrong in ("top_k", "=3", "x=[1,"):
        with pytest.raises(ConfigurationError, match=r"found 'top_k'|found '=3'|not valid TOML"):
            named_values([wrong])
