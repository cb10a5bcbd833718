"""A data set and the mirror images of its pictures behind it."""

from fluid_core.data.captioned_images import CaptionedImage, CaptionedImages


class WithMirrorImages:
    """All items of a data set, and then all of them mirrored: what a cache with both flips is made of.

    A `CaptionedImages`, with the items in the order in which a data set with flips of its own has them.
    """

    def __init__(self, dataset: CaptionedImages) -> None:
        self._dataset = dataset

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self._dataset.image_size

    def __len__(self) -> int:
        """Twice the number of pictures."""
        return 2 * len(self._dataset)

    def __getitem__(self, index: int) -> CaptionedImage:
        """Item `index`; raises what the data set raises for its picture, and `IndexError` outside the range."""
        if not 0 <= index < len(self):
            raise IndexError(f"The data set has the items 0 to {len(self) - 1}, asked for {index}.")
        mirrored, position = divmod(index, len(self._dataset))
        item = self._dataset[position]
        return CaptionedImage(image=item.image.flip(-1), caption=item.caption) if mirrored else item
