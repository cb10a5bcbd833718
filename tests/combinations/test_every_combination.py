"""Every tokenizer with every head and every order of the catalog: it trains and samples, or is refused at once."""

import itertools
import re
from functools import lru_cache

import attrs
import pytest
import torch

from fluid_core import FluidConfig, FluidModel, FluidPipeline
from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.compatibility import check_compatible
from fluid_core.configuration import BackboneConfig, ComponentChoice, unstructure
from fluid_core.data.options import ShapesOptions
from fluid_core.data.shapes.dataset import ShapesDataset
from fluid_core.errors import IncompatibleComponentsError, InvalidRequestError
from fluid_core.exchange import SamplerSettings
from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import LearnsFromImages

CATALOG = installed_components()
NUM_FIT_IMAGES = 32
SMALL = {"image_size": 16}
PROMPTS = ("a red circle", "a blue square above a green triangle")


def fits(tokenizer: str, head: str) -> bool:
    """Whether the declarations say that the two work with the same kind of token."""
    return CATALOG.find("tokenizer", tokenizer).component.produces == CATALOG.find("head", head).component.predicts


PAIRS = list(itertools.product(CATALOG.names("tokenizer"), CATALOG.names("head")))


def order_fits(order: str, head: str) -> bool:
    """Whether the head can tell how sure it is, if the order needs to know."""
    needs = CATALOG.find("order", order).component.needs_confidence
    return not needs or CATALOG.find("head", head).component.tells_confidence


TRIPLES = [(*pair, order) for pair in PAIRS if fits(*pair) for order in CATALOG.names("order")]
FITTING = [triple for triple in TRIPLES if order_fits(triple[2], triple[1])]
UNFIT = [pair for pair in PAIRS if not fits(*pair)]
UNFIT_ORDERS = [triple for triple in TRIPLES if not order_fits(triple[2], triple[1])]


@attrs.frozen(eq=False)
class Trained:
    """A model after three steps, and what they gave."""

    model: FluidModel
    losses: tuple[float, ...]
    num_predicted: tuple[int, ...]
    num_steps: int | None
    """A small number of order steps if the order takes it, else None."""

    num_head_steps: int | None
    """A small number of steps if the head is iterative, else None."""


@pytest.fixture(scope="module", params=FITTING, ids="+".join)
def trained(request, tmp_path_factory):
    """A debug-sized model of three named parts, trained for three steps on shapes."""
    return train(*request.param, tmp_path_factory.mktemp("example"))


def configuration(tokenizer: str, head: str, order: str, folder) -> FluidConfig:
    """A configuration as a file would have it; options are the examples of the declarations, for small pictures."""

    def choice(kind: str, name: str) -> ComponentChoice:
        options = unstructure(CATALOG.find(kind, name).example_options(folder))
        return ComponentChoice(name=name, options={**options, **SMALL} if SMALL.keys() <= options.keys() else options)

    return FluidConfig(
        tokenizer=choice("tokenizer", tokenizer),
        head=choice("head", head),
        order=choice("order", order),
        text_encoder=ComponentChoice(name="bytes", options={"width": 16}),
        backbone=BackboneConfig(size="debug"),
    )


@lru_cache
def pictures(image_size: tuple[int, int]):
    """Pictures and captions to train on."""
    dataset = ShapesDataset(ShapesOptions(), image_size, "train", 0)
    items = [dataset[index] for index in range(NUM_FIT_IMAGES)]
    return torch.stack([item.image for item in items]), [item.caption for item in items]


_FITTED: dict[str, dict[str, torch.Tensor]] = {}


def train(tokenizer: str, head: str, order: str, folder) -> Trained:
    """Three steps of eight pictures each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FluidModel.from_config(configuration(tokenizer, head, order, folder))
    images, captions = pictures(model.tokenizer.image_size)
    if tokenizer in _FITTED:
        model.tokenizer.load_state_dict(_FITTED[tokenizer])
    elif isinstance(model.tokenizer, LearnsFromImages):
        model.tokenizer.fit(images, seed=0)
        _FITTED[tokenizer] = model.tokenizer.state_dict()
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    losses, counts = [], []
    for step in range(3):
        batch = slice(8 * step, 8 * step + 8)
        loss = model.loss(images[batch], captions[batch], generator=generator, text_drop_probability=0.2)
        optimizer.zero_grad()
        loss.mean.backward()
        optimizer.step()
        losses.append(float(loss.mean.detach()))
        counts.append(loss.num_tokens)
    return Trained(
        model,
        tuple(losses),
        tuple(counts),
        num_steps=6 if accepts(lambda: start(model, num_steps=6)) else None,
        num_head_steps=3 if accepts(lambda: model.head.sampler(SamplerSettings(num_steps=3))) else None,
    )


def accepts(request) -> bool:
    """Whether a call is not refused."""
    try:
        request()
    except InvalidRequestError:
        return False
    return True


def start(model: FluidModel, *, num_steps: int):
    """The course of a generation from nothing."""
    grid = model.tokenizer.token_space.grid
    unknown = torch.ones(1, grid.length, dtype=torch.bool)
    return model.order.generation(unknown, grid, num_steps=num_steps, random=KeyedRandom(torch.arange(1)))


def draw(trained: Trained, **settings) -> torch.Tensor:
    """Tokens for the two prompts."""
    few = {"num_inference_steps": trained.num_steps, "num_head_steps": trained.num_head_steps}
    settings = {"seed": 5, **few, **settings}
    output = FluidPipeline(trained.model)(PROMPTS, output_type="tokens", **settings)
    return output.tokens


def test_training_has_finite_losses(trained):
    """Three steps give finite losses over a sensible number of tokens, and gradients to all that trains."""
    assert all(torch.isfinite(torch.tensor(trained.losses)))
    most = 8 * trained.model.tokenizer.token_space.grid.length
    assert all(0 < count <= most for count in trained.num_predicted)
    assert all(torch.isfinite(parameter).all() for parameter in trained.model.parameters())
    trainable = {name: p for name, p in trained.model.named_parameters() if p.requires_grad}
    assert any(name.startswith("transformer.") for name in trainable)
    assert not any(name.startswith("tokenizer.") for name in trainable)
    assert not [name for name, parameter in trainable.items() if parameter.grad is None]


def test_sampling_with_guidance_temperature_and_seeds(trained):
    """Guidance 1 and 3 and temperature 0.8 give valid tokens and pictures; seeds reproduce, and make a difference."""
    space = trained.model.tokenizer.token_space
    plain = draw(trained, temperature=0.8)
    guided = draw(trained, temperature=0.8, guidance_scale=3.0)
    for tokens in (plain, guided):
        assert tuple(tokens.shape) == (2, space.grid.length, *space.token_shape)
        space.validate(tokens)
    assert not torch.equal(plain, guided)
    assert torch.equal(draw(trained, temperature=0.8), plain)
    assert not torch.equal(draw(trained, temperature=0.8, seed=6), plain)
    images = FluidPipeline(trained.model).decode(guided)
    assert tuple(images.shape) == (2, 3, *trained.model.tokenizer.image_size)
    assert torch.isfinite(images).all()


def test_any_number_of_steps_is_honoured_or_refused(trained):
    """Step counts from one to the number of tokens are taken exactly, or refused; impossible ones are refused."""
    space = trained.model.tokenizer.token_space
    taken = []
    for num_steps in (1, 2, 7, space.grid.length):
        progress = []
        try:
            tokens = draw(trained, num_inference_steps=num_steps, callback_on_step_end=progress.append)
        except InvalidRequestError:
            assert not progress, "refused only after it had begun"
            continue
        space.validate(tokens)
        assert [one.step for one in progress] == list(range(1, num_steps + 1))
        assert progress[-1].known.all()
        taken.append(num_steps)
    assert taken, "no number of steps was accepted"
    for impossible in (0, -1, space.grid.length + 1):
        with pytest.raises(InvalidRequestError):
            draw(trained, num_inference_steps=impossible)


def untouchable(*args, **kwargs):
    """Stands in for a build function."""
    raise AssertionError("a component was built although the configuration can not work")


@pytest.fixture(scope="module")
def catalog_that_builds_nothing():
    """The installed components, with build functions that fail the test."""
    return ComponentCatalog(
        installed=tuple(
            attrs.evolve(one, component=attrs.evolve(one.component, build=untouchable)) for one in CATALOG.installed
        )
    )


@pytest.mark.parametrize(("tokenizer", "head"), UNFIT, ids=["+".join(pair) for pair in UNFIT])
def test_parts_that_do_not_fit_are_refused_before_anything_is_built(
    tokenizer, head, catalog_that_builds_nothing, tmp_path
):
    """One sentence names both parts, what each is for, and parts that would fit."""
    with pytest.raises(IncompatibleComponentsError) as checked:
        check_compatible(CATALOG.find("tokenizer", tokenizer), CATALOG.find("head", head), CATALOG)
    for order in CATALOG.names("order"):
        with pytest.raises(IncompatibleComponentsError) as refused:
            FluidModel.from_config(configuration(tokenizer, head, order, tmp_path), catalog_that_builds_nothing)
        assert str(refused.value) == str(checked.value)
    message = str(checked.value)
    assert f"tokenizer '{tokenizer}'" in message
    assert f"head '{head}'" in message
    assert "choose" in message
    assert re.fullmatch(r"[^.]*\.", message), "not one sentence"


@pytest.mark.parametrize("triple", UNFIT_ORDERS, ids="+".join)
def test_orders_that_need_confidence_are_refused_before_anything_is_built(
    triple, catalog_that_builds_nothing, tmp_path
):
    """One sentence names the order, the head, and what would fit either."""
    with pytest.raises(IncompatibleComponentsError) as refused:
        FluidModel.from_config(configuration(*triple, tmp_path), catalog_that_builds_nothing)
    message = str(refused.value)
    assert f"order '{triple[2]}'" in message
    assert f"head '{triple[1]}'" in message
    assert re.fullmatch(r"[^.]*\.", message), "not one sentence"


def test_the_catalog_has_combinations_of_both_kinds():
    """The four models of the paper are among those that fit, and some pairs do not."""
    for pair in (("pixel-patches", "diffusion"), ("patch-codebook", "softmax")):
        for order in ("raster", "random"):
            assert (*pair, order) in FITTING
    assert ("pixel-patches", "softmax") in UNFIT
    assert ("patch-codebook", "softmax", "confidence") in FITTING
    assert ("pixel-patches", "diffusion", "confidence") in UNFIT_ORDERS
