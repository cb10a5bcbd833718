"""How the pictures of a run are drawn: arguments of the pipeline, in words that JSON can hold."""

from collections.abc import Mapping
from typing import Any

import attrs
import torch

from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.errors import InvalidRequestError
from fluid_core.generation import check_order
from fluid_core.guidance import GuidanceKind
from fluid_core.keyed_random import KeyedRandom
from fluid_core.model import FluidModel
from fluid_core.pipeline.call_settings import CallSettings
from fluid_core.protocols import OrderPolicy
from fluid_core.sampler_choice import build_sampler


@attrs.frozen(kw_only=True)
class SamplingSettings:
    """Everything but prompts and seeds that a picture depends on; None is the default of order or head."""

    order: str | None = None
    """Name of an order in the catalog; None is the model's own."""

    order_options: Mapping[str, Any] = attrs.field(factory=dict)
    steps: int | None = None
    head_steps: int | None = None
    head_backend: str = "auto"
    head_options: Mapping[str, Any] = attrs.field(factory=dict)
    guidance: float = 1.0
    guidance_schedule: GuidanceKind = "constant"
    guidance_interval: tuple[float, float] | None = None
    temperature: float = 1.0

    def build_order(self, catalog: ComponentCatalog | None = None) -> OrderPolicy | None:
        """The order that is named; None for the model's own.

        Raises `UnknownComponentError` for a name that no plugin has, `ConfigurationError` for options the order does
        not take, and `InvalidRequestError` for options without a name.
        """
        if self.order is None:
            if self.order_options:
                raise InvalidRequestError("Expected the name of an order that --order-option is for: add --order NAME.")
            return None
        catalog = catalog or installed_components()
        order: OrderPolicy = catalog.build("order", self.order, dict(self.order_options), root="$.order_options")
        return order

    def check(self, model: FluidModel, order: OrderPolicy | None) -> None:
        """Raise what drawing with these settings would raise, before any time is spent on it."""
        settings = CallSettings(**self.call_arguments).generation()
        order = order or model.order
        check_order(model, order)
        build_sampler(model.head, settings.sampler_settings, order=order)  # type: ignore[arg-type]
        grid = model.tokenizer.token_space.grid
        unknown = torch.ones(1, grid.length, dtype=torch.bool)
        order.generation(unknown, grid, num_steps=self.steps, random=KeyedRandom(torch.tensor([0])))

    @property
    def call_arguments(self) -> dict[str, Any]:
        """Arguments of a call of the pipeline, the order left out."""
        return {
            "num_inference_steps": self.steps,
            "num_head_steps": self.head_steps,
            "head_backend": self.head_backend,
            "head_options": self.head_options,
            "guidance_scale": self.guidance,
            "guidance_schedule": self.guidance_schedule,
            "guidance_interval": self.guidance_interval,
            "temperature": self.temperature,
        }

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return attrs.asdict(self, value_serializer=lambda _, __, value: _plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    # TOML knows dates, JSON does not.
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
