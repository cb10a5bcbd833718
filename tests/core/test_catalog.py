"""The catalog of components added by hand: lookup, building, and what its messages say."""

from pathlib import Path

import attrs
import pytest
import torch

from fluid_core.building import component_options
from fluid_core.catalog import ComponentCatalog
from fluid_core.components import (
    Component,
    DatasetComponent,
    FeatureNetworkComponent,
    HeadComponent,
    OrderComponent,
    TextEncoderComponent,
    TokenizerComponent,
)
from fluid_core.errors import (
    ConfigurationError,
    DuplicateComponentError,
    InvalidComponentError,
    InvalidRequestError,
    PluginError,
    UnknownComponentError,
)


@attrs.frozen(kw_only=True)
class Options:
    """Options of the text encoders built here."""

    width: int = attrs.field(default=4, validator=attrs.validators.gt(0))
    names: tuple[str, ...] = ()


class Encoder:
    """As much of a text encoder as the catalog looks at."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.max_length = 10
        self.frozen = False

    def encode(self, prompts):
        """Nothing calls this here."""
        raise NotImplementedError


def encoder_component(name="letters", build=lambda options: Encoder(options.width), **more):
    """A declaration of a text encoder."""
    return TextEncoderComponent(name=name, summary="Letters", options=Options, build=build, **more)


def head_component(name):
    """A declaration of a head that nothing builds."""
    return HeadComponent(name=name, summary="Head", options=Options, build=dict, predicts="continuous")


@pytest.fixture
def catalog():
    """A catalog with one text encoder, two heads and an order, of the distribution `parts 3.1`."""
    return ComponentCatalog().with_components(
        encoder_component(),
        head_component("diffusion"),
        head_component("mixture"),
        OrderComponent(name="raster", summary="Rows", options=Options, build=dict),
        distribution="parts",
        version="3.1",
    )


def test_components_are_listed_by_kind_and_name(catalog):
    """The listing goes kind by kind, and names are sorted within each."""
    listed = [(one.kind, one.name) for one in catalog.components()]
    assert listed == [
        ("head", "diffusion"),
        ("head", "mixture"),
        ("order", "raster"),
        ("text-encoder", "letters"),
    ]
    assert [one.name for one in catalog.components("head")] == ["diffusion", "mixture"]
    assert catalog.names("tokenizer") == ()


def test_unknown_name_suggests_a_close_one(catalog):
    """A misspelt name gets the nearest one and all names of the kind."""
    with pytest.raises(UnknownComponentError) as raised:
        catalog.find("head", "difusion")
    assert str(raised.value) == (
        "There is no head named 'difusion'. Did you mean 'diffusion'? Installed: 'diffusion', 'mixture'."
    )
    assert isinstance(raised.value, LookupError)


def test_name_of_another_kind_is_recognised(catalog):
    """Looking for an order among heads says that it is an order."""
    with pytest.raises(UnknownComponentError) as raised:
        catalog.find("head", "raster")
    assert str(raised.value) == (
        "There is no head named 'raster'. Installed: 'diffusion', 'mixture'. 'raster' is the name of a component of "
        "another kind: order."
    )


@pytest.mark.parametrize("call", ["find", "components"])
def test_unknown_kind(catalog, call):
    """A kind that does not exist is refused with the kinds there are."""
    with pytest.raises(UnknownComponentError) as raised:
        catalog.find("heads", "diffusion") if call == "find" else catalog.components("heads")
    assert str(raised.value) == (
        "There is no kind of component named 'heads'. Did you mean 'head'? The kinds are 'dataset', "
        "'feature-network', 'head', 'order', 'text-encoder', 'tokenizer'."
    )


def test_catalog_never_changes(catalog):
    """Adding components gives another catalog."""
    larger = catalog.with_components(encoder_component("words"))
    assert larger.names("text-encoder") == ("letters", "words")
    assert catalog.names("text-encoder") == ("letters",)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        catalog.installed = ()


def test_component_added_by_hand_conflicts_like_any_other(catalog):
    """A name that is taken is refused on lookup, naming both origins."""
    with pytest.raises(DuplicateComponentError) as raised:
        catalog.with_components(encoder_component()).find("text-encoder", "letters")
    assert str(raised.value) == (
        "The text-encoder 'letters' is declared more than once: by added-by-hand 0 (added by hand) and parts 3.1 "
        "(added by hand). Add only one of them."
    )


def test_invalid_component_added_by_hand():
    """What a plugin may not declare can not be added by hand either."""
    with pytest.raises(InvalidComponentError) as raised:
        ComponentCatalog().with_components(encoder_component("Letters!"))
    assert str(raised.value) == (
        "Expected valid declarations, found: text-encoder 'Letters!': its name must be lower-case words joined by "
        "hyphens, found 'Letters!'."
    )
    with pytest.raises(InvalidComponentError, match="text-encoder 'letters' is declared more than once"):
        ComponentCatalog().with_components(encoder_component(), encoder_component())
    with pytest.raises(
        InvalidComponentError,
        match=r"its kind must be one of 'dataset', .*, found 'component'",
    ):
        ComponentCatalog().with_components(Component(name="x", summary="X", options=Options, build=dict))


def test_build_converts_options(catalog):
    """Options may be left out, a mapping as in a configuration, or an instance."""
    assert catalog.build("text-encoder", "letters").width == 4
    assert catalog.build("text-encoder", "letters", {"width": 7}).width == 7
    assert catalog.build("text-encoder", "letters", Options(width=9)).width == 9


def test_build_hands_over_the_context():
    """What follows the options reaches the build function in its order."""
    received = []

    def build(options, *context):
        received.extend(context)
        return Encoder(options.width)

    ComponentCatalog().with_components(encoder_component(build=build)).build("text-encoder", "letters", None, 1, "two")
    assert received == [1, "two"]


def test_wrong_options_are_listed_with_their_place(catalog):
    """Every problem of the options is told, at its place in the configuration, before anything is built."""
    options = {"widht": 3, "width": "7", "names": ["a", 2]}
    with pytest.raises(ConfigurationError) as raised:
        catalog.build("text-encoder", "letters", options, root="$.text_encoder.options")
    assert str(raised.value) == (
        "Invalid options of text-encoder 'letters' of parts 3.1: 3 problems.\n"
        "  - expected an integer, found the text '7' @ $.text_encoder.options.width\n"
        "  - expected a text, found 2 @ $.text_encoder.options.names[1]\n"
        "  - unknown key 'widht'. Did you mean 'width'? Known keys: 'names', 'width' @ $.text_encoder.options"
    )


def test_options_of_another_type_are_refused(catalog):
    """Neither a mapping nor the component's own class: the message names both."""
    with pytest.raises(ConfigurationError) as raised:
        component_options(catalog.find("text-encoder", "letters"), [3])
    assert str(raised.value) == (
        "Expected the options of text-encoder 'letters' of parts 3.1 as a mapping or a Options, found a value of "
        "type list."
    )


def test_error_inside_build_names_the_component():
    """A bug in a build function is attributed to the component and its distribution, with its cause."""
    component = encoder_component(build=lambda options: 1 / 0)
    catalog = ComponentCatalog().with_components(component, distribution="parts", version="3.1")
    with pytest.raises(PluginError) as raised:
        catalog.build("text-encoder", "letters")
    assert str(raised.value) == (
        "The text-encoder 'letters' of parts 3.1 could not be built: ZeroDivisionError: division by zero. If the "
        "options Options(width=4, names=()) are right, report this to the authors of parts."
    )
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_error_of_our_own_family_passes_through():
    """A refusal that a build function words itself keeps its type and text, with a note on where it came from."""

    def build(options):
        raise InvalidRequestError("Expected more.")

    catalog = ComponentCatalog().with_components(encoder_component(build=build))
    with pytest.raises(InvalidRequestError) as raised:
        catalog.build("text-encoder", "letters")
    assert str(raised.value) == "Expected more."
    assert raised.value.__notes__ == ["This happened while building the text-encoder 'letters' of added-by-hand 0."]


def test_result_that_lacks_something_is_refused():
    """What a build function returns must have all that its kind promises; the message lists what is missing."""

    class Half:
        width = 3
        encode = "not a method"

    component = encoder_component(build=lambda options: Half())
    with pytest.raises(InvalidComponentError) as raised:
        ComponentCatalog().with_components(component).build("text-encoder", "letters")
    assert str(raised.value) == (
        "The text-encoder 'letters' of added-by-hand 0 is not valid: expected a TextEncoder (see "
        "fluid_core.protocols), found a value of type Half without the method 'encode' (found a value of type str), "
        "the attribute 'frozen', the attribute 'max_length'."
    )


KINDS_AND_PROMISES = [
    (
        TokenizerComponent,
        {"produces": "continuous"},
        "the method 'decode', the attribute 'image_size', the method 'precompute', the attribute 'token_space', "
        "the method 'tokens'",
    ),
    (
        HeadComponent,
        {"predicts": "continuous"},
        "the method 'loss', the method 'sampler', the attribute 'token_space'",
    ),
    (
        OrderComponent,
        {},
        "the attribute 'attention', the method 'generation', the attribute 'trained_permutations', the method "
        "'training_view'",
    ),
    (
        TextEncoderComponent,
        {},
        "the method 'encode', the attribute 'frozen', the attribute 'max_length', the attribute 'width'",
    ),
    (DatasetComponent, {}, "the method '__getitem__', the method '__len__', the attribute 'image_size'"),
    (
        FeatureNetworkComponent,
        {},
        "the method 'features', the method 'maps', the attribute 'name', the attribute 'width'",
    ),
]


@pytest.mark.parametrize(("declaration", "more", "missing"), KINDS_AND_PROMISES)
def test_every_kind_is_checked(declaration, more, missing):
    """An empty module satisfies no kind: each lists all that its protocol asks for."""
    component = declaration(
        name="empty", summary="Empty", options=Options, build=lambda options: torch.nn.Module(), **more
    )
    with pytest.raises(InvalidComponentError) as raised:
        ComponentCatalog().with_components(component).build(component.kind, "empty")
    assert str(raised.value).endswith(f"found a value of type Module without {missing}.")


def test_example_options(tmp_path):
    """Options for tests are the defaults, or what the declaration's own example makes."""

    def example(folder: Path) -> Options:
        (folder / "letters.txt").write_text("abc", encoding="utf-8")
        return Options(width=2)

    catalog = ComponentCatalog().with_components(encoder_component(), encoder_component("read", example=example))
    assert catalog.find("text-encoder", "letters").example_options(tmp_path) == Options()
    assert catalog.find("text-encoder", "read").example_options(tmp_path) == Options(width=2)
    assert (tmp_path / "letters.txt").exists()
