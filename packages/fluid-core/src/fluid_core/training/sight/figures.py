"""How fast a run is, how well it uses its device, how much memory it takes, and how long it still needs."""

import time

import attrs
import torch

from fluid_core.training.sight.device_peak import peak_flops
from fluid_core.training.sight.memory_in_use import memory_in_use


@attrs.frozen(kw_only=True)
class Figures:
    """Of the steps since the figures were asked for last."""

    flops_utilisation: float | None
    """Share of the peak of all devices together that the model's own FLOPs are; None before the second step."""

    memory_bytes: int
    """Of this process."""


class RunFigures:
    """Watches the steps of a run on `device` that multiplies in `dtype`.

    `num_devices` are those of all processes. Reading data counts to a step, as do all waits for it; validation and
    samples do not, nor does the first step, which loads libraries, compiles, and counts FLOPs.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, *, num_devices: int = 1) -> None:
        self._device = device
        self._dtype = dtype
        self._num_devices = num_devices
        self._flops_per_image: float | None = None
        self._num_images = 0
        self._seconds = 0.0
        self._started = 0.0

    def step_begins(self) -> None:
        """A step is about to be taken."""
        self._started = time.perf_counter()

    def step_ended(self, num_images: int, *, flops_per_image: float | None) -> None:
        """It was taken, on `num_images` in all processes together, at that price for each forward and backward."""
        if self._flops_per_image is not None:
            self._seconds += time.perf_counter() - self._started
            self._num_images += num_images
        self._flops_per_image = flops_per_image

    def figures(self, *, since_here: bool = False) -> Figures:
        """The figures by now. With `since_here` the next ones are of the steps from now on."""
        utilisation = None
        if self._flops_per_image is not None and self._num_images:
            peak = self._num_devices * peak_flops(self._device, self._dtype)
            utilisation = self._flops_per_image * self._num_images / (self._seconds * peak)
        if since_here:
            self._num_images, self._seconds = 0, 0.0
        return Figures(flops_utilisation=utilisation, memory_bytes=memory_in_use(self._device))
