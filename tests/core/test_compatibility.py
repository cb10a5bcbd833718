"""Parts that can not work together are refused before anything is built."""

import attrs
import pytest

from fluid_core.catalog import ComponentCatalog
from fluid_core.compatibility import check_compatible, check_configuration, check_order_fits
from fluid_core.components import HeadComponent, OrderComponent, TextEncoderComponent, TokenizerComponent
from fluid_core.configuration import BackboneConfig, ComponentChoice, FluidConfig
from fluid_core.errors import ConfigurationError, IncompatibleComponentsError, UnknownComponentError


@attrs.frozen(kw_only=True)
class Options:
    """Options of every component here."""

    size: int = 3


def refuse_to_build(*_):
    """Nothing may be built by a check."""
    raise AssertionError("a check must not build anything")


COMMON = {"summary": "X", "options": Options, "build": refuse_to_build}


@pytest.fixture
def catalog():
    """Tokenizers and heads for vectors and ids, and a head for tokens that no tokenizer makes."""
    return ComponentCatalog().with_components(
        TokenizerComponent(name="vae", produces="continuous", **COMMON),
        TokenizerComponent(name="patches", produces="continuous", **COMMON),
        TokenizerComponent(name="vq", produces="discrete", **COMMON),
        HeadComponent(name="diffusion", predicts="continuous", **COMMON),
        HeadComponent(name="softmax", predicts="discrete", **COMMON),
        HeadComponent(name="bits", predicts="binary", **COMMON),
        OrderComponent(name="raster", **COMMON),
        TextEncoderComponent(name="bytes", **COMMON),
    )


def config(tokenizer, head, options=None):
    """A configuration with these two, and options by section."""
    options = options or {}
    names = {"tokenizer": tokenizer, "head": head, "order": "raster", "text_encoder": "bytes"}
    choices = {field: ComponentChoice(name=name, options=options.get(field, {})) for field, name in names.items()}
    return FluidConfig(**choices, backbone=BackboneConfig(size="debug"))


@pytest.mark.parametrize(("tokenizer", "head"), [("vae", "diffusion"), ("patches", "diffusion"), ("vq", "softmax")])
def test_parts_that_fit(catalog, tokenizer, head):
    """A head for the kind of token that the tokenizer produces passes."""
    check_compatible(catalog.find("tokenizer", tokenizer), catalog.find("head", head), catalog)
    check_configuration(config(tokenizer, head), catalog)


def test_parts_that_do_not_fit(catalog):
    """The message says what each wants, and what would fit either."""
    with pytest.raises(IncompatibleComponentsError) as raised:
        check_compatible(catalog.find("tokenizer", "vq"), catalog.find("head", "diffusion"), catalog)
    assert str(raised.value) == (
        "The tokenizer 'vq' produces discrete tokens but the head 'diffusion' predicts continuous ones: choose a "
        "head for discrete tokens (installed: 'softmax') or a tokenizer of continuous tokens (installed: 'patches', "
        "'vae')."
    )


def test_head_without_any_tokenizer(catalog):
    """Where nothing installed would fit, the message says none."""
    with pytest.raises(IncompatibleComponentsError, match=r"tokenizer of binary tokens \(installed: none\)\.$"):
        check_configuration(config("vae", "bits"), catalog)


def test_components_of_other_kinds_are_a_mistake_of_the_caller(catalog):
    """Swapped arguments are a bug, not a configuration to explain."""
    with pytest.raises(TypeError, match="Expected a tokenizer and a head, found head 'diffusion'"):
        check_compatible(catalog.find("head", "diffusion"), catalog.find("tokenizer", "vae"), catalog)


@pytest.fixture
def catalog_with_adaptive_parts(catalog):
    """The same with an order that needs confidence, and a head that can tell it."""
    return catalog.with_components(
        OrderComponent(name="surest-first", needs_confidence=True, **COMMON),
        HeadComponent(name="sure", predicts="discrete", tells_confidence=True, **COMMON),
    )


def test_an_order_that_needs_confidence_needs_a_head_that_can_tell(catalog_with_adaptive_parts):
    """One sentence says what the order needs and what would fit; with such a head, or another order, all is well."""
    catalog = catalog_with_adaptive_parts
    adaptive = ComponentChoice(name="surest-first")
    with pytest.raises(IncompatibleComponentsError) as raised:
        check_configuration(attrs.evolve(config("vq", "softmax"), order=adaptive), catalog)
    assert str(raised.value) == (
        "The order 'surest-first' needs a head that can tell how sure it is of each token and the head 'softmax' can "
        "not: choose another order (installed: 'raster') or such a head (installed: 'sure')."
    )
    check_configuration(attrs.evolve(config("vq", "sure"), order=adaptive), catalog)
    check_configuration(config("vq", "sure"), catalog)
    with pytest.raises(TypeError, match="Expected an order and a head, found head 'sure'"):
        check_order_fits(catalog.find("head", "sure"), catalog.find("order", "raster"), catalog)


def test_check_of_a_configuration_lists_all_wrong_options(catalog):
    """Options of every component are checked, and all problems are told at once."""
    wrong = config("vae", "diffusion", {"tokenizer": {"size": "3"}, "head": {"sise": 3}})
    with pytest.raises(ConfigurationError) as raised:
        check_configuration(wrong, catalog)
    assert str(raised.value) == (
        "Invalid options of tokenizer 'vae' of added-by-hand 0: 1 problem.\n"
        "  - expected an integer, found the text '3' @ $.tokenizer.options.size\n"
        "Invalid options of head 'diffusion' of added-by-hand 0: 1 problem.\n"
        "  - unknown key 'sise'. Did you mean 'size'? Known keys: 'size' @ $.head.options"
    )


def test_check_of_a_configuration_looks_up_every_name(catalog):
    """A component that is not installed is refused."""
    with pytest.raises(UnknownComponentError, match=r"There is no head named 'diffuse'. Did you mean 'diffusion'"):
        check_configuration(config("vae", "diffuse"), catalog)
