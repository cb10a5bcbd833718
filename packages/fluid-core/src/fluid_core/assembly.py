"""From a configuration to a model: every part by name, refused whole before anything is built if they do not fit."""

from typing import Any

from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.compatibility import check_configuration
from fluid_core.components import DatasetComponent
from fluid_core.configuration import ComponentChoice, FluidConfig
from fluid_core.errors import ConfigurationError
from fluid_core.exchange import DatasetContext, HeadContext
from fluid_core.model import FluidModel
from fluid_core.protocols import Head, TextEncoder


def build_model(
    config: FluidConfig, catalog: ComponentCatalog | None = None, *, text_encoder: TextEncoder | None = None
) -> FluidModel:
    """A model with fresh weights. A `text_encoder` takes the place of the one that the configuration names.

    Raises `UnknownComponentError`, `ConfigurationError` or `IncompatibleComponentsError` before it builds anything.
    """
    catalog = catalog or installed_components()
    model = FluidModel(**model_parts(config, catalog, text_encoder=text_encoder))
    model.config, model.catalog = config.model_part(), catalog
    return model


def model_parts(
    config: FluidConfig, catalog: ComponentCatalog, *, text_encoder: TextEncoder | None = None
) -> dict[str, Any]:
    """The arguments of the `FluidModel` that a configuration describes: what it is put together from, all but its head
    and its backbone built already. Raises as `build_model` does.
    """
    check_configuration(config, catalog)

    def build_head(context: HeadContext) -> Head:
        head: Head = catalog.build("head", config.head.name, config.head.options, context, root="$.head.options")
        return head

    return {
        "tokenizer": catalog.build(
            "tokenizer", config.tokenizer.name, config.tokenizer.options, root="$.tokenizer.options"
        ),
        "text_encoder": text_encoder
        or catalog.build(
            "text-encoder",
            config.text_encoder.name,
            config.text_encoder.options,
            root="$.text_encoder.options",
        ),
        "order": catalog.build("order", config.order.name, config.order.options, root="$.order.options"),
        "head": build_head,
        "backbone": config.backbone.shape(),
        "unconditional": config.unconditional,
    }


def build_dataset(
    choice: ComponentChoice,
    context: DatasetContext,
    catalog: ComponentCatalog | None = None,
    *,
    may_be_encoded: bool = False,
) -> object:
    """The data set a configuration names, for the model's image size and one split of the data.

    Raises `UnknownComponentError` or `ConfigurationError`, and `DataError` where the data is missing or malformed. A
    data set whose items went through a tokenizer already is a `ConfigurationError`, unless it `may_be_encoded`.
    """
    catalog = catalog or installed_components()
    component = catalog.find("dataset", choice.name).component
    if isinstance(component, DatasetComponent) and component.encoded and not may_be_encoded:
        raise ConfigurationError(
            f"Expected a data set of pictures, found '{choice.name}', whose images are tokens already. Name the data "
            "set it was made from in the section [data]."
        )
    return catalog.build("dataset", choice.name, choice.options, context, root="$.data.options")
