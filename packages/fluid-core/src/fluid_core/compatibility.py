"""Refuses parts that can not work together, in one sentence, before anything is built."""

from fluid_core.building import component_options
from fluid_core.catalog import ComponentCatalog, InstalledComponent
from fluid_core.components import HeadComponent, OrderComponent, TokenizerComponent
from fluid_core.configuration import FluidConfig
from fluid_core.errors import ConfigurationError, IncompatibleComponentsError, listing


def check_compatible(tokenizer: InstalledComponent, head: InstalledComponent, catalog: ComponentCatalog) -> None:
    """Raise `IncompatibleComponentsError` unless `head` predicts the kind of token that `tokenizer` produces.

    The message names the parts of `catalog` that would fit. Raises `TypeError` if the two are of other kinds.
    """
    source, target = tokenizer.component, head.component
    if not isinstance(source, TokenizerComponent) or not isinstance(target, HeadComponent):
        raise TypeError(f"Expected a tokenizer and a head, found {tokenizer} and {head}.")
    produced, predicted = source.produces, target.predicts
    if produced == predicted:
        return
    heads = [
        one.name
        for one in catalog.components("head")
        if isinstance(one.component, HeadComponent) and one.component.predicts == produced
    ]
    tokenizers = [
        one.name
        for one in catalog.components("tokenizer")
        if isinstance(one.component, TokenizerComponent) and one.component.produces == predicted
    ]
    raise IncompatibleComponentsError(
        f"The tokenizer '{tokenizer.name}' produces {produced} tokens but the head '{head.name}' predicts "
        f"{predicted} ones: choose a head for {produced} tokens (installed: {listing(heads)}) or a tokenizer "
        f"of {predicted} tokens (installed: {listing(tokenizers)})."
    )


def check_order_fits(order: InstalledComponent, head: InstalledComponent, catalog: ComponentCatalog) -> None:
    """Raise `IncompatibleComponentsError` for an `order` that needs to know how sure a `head` is which can not tell.

    The message names the parts of `catalog` that would fit. Raises `TypeError` if the two are of other kinds.
    """
    policy, target = order.component, head.component
    if not isinstance(policy, OrderComponent) or not isinstance(target, HeadComponent):
        raise TypeError(f"Expected an order and a head, found {order} and {head}.")
    if target.tells_confidence or not policy.needs_confidence:
        return
    orders = [
        one.name
        for one in catalog.components("order")
        if isinstance(one.component, OrderComponent) and not one.component.needs_confidence
    ]
    heads = [
        one.name
        for one in catalog.components("head")
        if isinstance(one.component, HeadComponent) and one.component.tells_confidence
    ]
    raise IncompatibleComponentsError(
        f"The order '{order.name}' needs a head that can tell how sure it is of each token and the head '{head.name}' "
        f"can not: choose another order (installed: {listing(orders)}) or such a head (installed: {listing(heads)})."
    )


def check_configuration(config: FluidConfig, catalog: ComponentCatalog) -> None:
    """Check everything about a configuration that can be known before anything is built.

    Every component must be installed, its options must fit it, and tokenizer and order must fit the head.
    Raises `UnknownComponentError`, `DuplicateComponentError`, `ConfigurationError` or
    `IncompatibleComponentsError`.
    """
    chosen = {field: catalog.find(kind, choice.name) for field, kind, choice in config.choices()}
    problems = []
    for field, _, choice in config.choices():
        try:
            component_options(chosen[field], choice.options, root=f"$.{field}.options")
        except ConfigurationError as error:
            problems.append(str(error))
    if problems:
        raise ConfigurationError("\n".join(problems))
    check_compatible(chosen["tokenizer"], chosen["head"], catalog)
    check_order_fits(chosen["order"], chosen["head"], catalog)
