"""The hooks a plugin may implement, and the markers to do it with.

A plugin is a module named by an entry point of the group `fluid_core`. Each hook returns a tuple of declarations from
`fluid_core.components`; core validates them whole before it stores any.
"""

import pluggy

from fluid_core.components import (
    DatasetComponent,
    FeatureNetworkComponent,
    HeadComponent,
    OrderComponent,
    TextEncoderComponent,
    TokenizerComponent,
)

ENTRY_POINT_GROUP = "fluid_core"

hookspec = pluggy.HookspecMarker("fluid_core")
hookimpl = pluggy.HookimplMarker("fluid_core")


@hookspec
def fluid_register_tokenizers() -> tuple[TokenizerComponent, ...]:  # type: ignore[empty-body]
    """Declare tokenizers."""


@hookspec
def fluid_register_heads() -> tuple[HeadComponent, ...]:  # type: ignore[empty-body]
    """Declare heads."""


@hookspec
def fluid_register_orders() -> tuple[OrderComponent, ...]:  # type: ignore[empty-body]
    """Declare orders."""


@hookspec
def fluid_register_text_encoders() -> tuple[TextEncoderComponent, ...]:  # type: ignore[empty-body]
    """Declare text encoders."""


@hookspec
def fluid_register_datasets() -> tuple[DatasetComponent, ...]:  # type: ignore[empty-body]
    """Declare data sets."""


@hookspec
def fluid_register_feature_networks() -> tuple[FeatureNetworkComponent, ...]:  # type: ignore[empty-body]
    """Declare feature networks, for Frechet distances and perceptual losses."""
