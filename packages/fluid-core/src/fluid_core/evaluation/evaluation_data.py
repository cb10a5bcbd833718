"""The data set that a protocol measures on."""

from typing import Any

import attrs

from fluid_core.assembly import build_dataset
from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.configuration import ComponentChoice
from fluid_core.data.captioned_images import CaptionedImages, CaptionedStream
from fluid_core.data.encoded_images import EncodedImages
from fluid_core.data.numbered_items import NumberedItems
from fluid_core.exchange import DatasetContext
from fluid_core.model import FluidModel


@attrs.frozen(kw_only=True)
class EvaluationData:
    """Which items of which data set: the first `num_images` of one split, in an order drawn from `seed`."""

    data: ComponentChoice
    split: str = attrs.field(default="validation", validator=attrs.validators.in_(("train", "validation")))
    num_images: int = 1000
    seed: int = 0

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "name": self.data.name,
            "options": dict(self.data.options),
            "split": self.split,
            "num_images": self.num_images,
            "shuffle_seed": self.seed,
        }

    def items(
        self,
        image_size: tuple[int, int],
        catalog: ComponentCatalog | None = None,
        *,
        for_model: FluidModel | None = None,
    ) -> NumberedItems:
        """The items, as pictures of `image_size` (height, width).

        With `for_model`, items that went through that model's tokenizer already are taken as well. Raises what
        building the data set raises, and `CheckpointMismatchError` for items of another tokenizer.
        """
        context = DatasetContext(image_size=image_size, split=self.split, seed=self.seed)
        catalog = catalog or installed_components()
        dataset = build_dataset(self.data, context, catalog, may_be_encoded=for_model is not None)
        if isinstance(dataset, EncodedImages) and for_model is not None:
            dataset.connect(for_model.tokenizer, for_model.text_encoder)
        assert isinstance(dataset, CaptionedImages | CaptionedStream | EncodedImages)
        return NumberedItems(dataset, self.num_images, shuffle_seed=self.seed)
