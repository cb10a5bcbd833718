"""Which implementation of the denoiser runs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplerBackend
from fluid_heads.denoising.evaluation import Denoiser, ReferenceDenoiser
from fluid_heads.denoising.fused import FusedDenoiser
from fluid_heads.denoising.network import DenoisingNetwork
from fluid_heads.denoising.packed_network import PackedNetwork
from fluid_heads.kernels import uses_kernels
from fluid_heads.precision import without_autocast

if TYPE_CHECKING:
    from fluid_heads.kernels.cuda_denoiser import CudaNetwork


def _with_kernels(network: DenoisingNetwork) -> "CudaNetwork | None":
    # Triton is loaded only where it is used.
    from fluid_heads.kernels.cuda_denoiser import CudaNetwork
    from fluid_heads.kernels.modulated_norm import WIDEST_ROW
    from fluid_heads.kernels.reverse_step import WIDEST_TOKEN

    if network.channels > WIDEST_TOKEN or network.input_projection.out_features > WIDEST_ROW:
        return None
    return CudaNetwork(network)


class DenoiserSource:
    """Denoisers of one network, for any lists of timesteps: what does not depend on those is prepared once, here.

    `auto` takes a fused implementation where there is one: on a CPU, and on a CUDA device if Triton is installed and
    its kernels take tokens and layers so wide. Raises `InvalidRequestError` if `fused` is asked for elsewhere.
    """

    def __init__(self, network: DenoisingNetwork, backend: SamplerBackend) -> None:
        device_type = next(network.parameters()).device.type
        self._network = network
        self._packed: PackedNetwork | None = None
        self.kernels: "CudaNetwork | None" = None
        """The network prepared for the kernels, if they are what runs."""

        if backend is not SamplerBackend.REFERENCE:
            with without_autocast(torch.device(device_type)):
                if uses_kernels(device_type):
                    self.kernels = _with_kernels(network)
                elif device_type == "cpu":
                    self._packed = PackedNetwork(network)
        fused = self._packed is not None or self.kernels is not None
        if backend is SamplerBackend.FUSED and not fused:
            lacks_triton = device_type == "cuda" and not uses_kernels(device_type)
            advice = "Install Triton (pip install fluid-heads[cuda]), or use" if lacks_triton else "Use"
            raise InvalidRequestError(
                f"There is no fused denoiser here for the device '{device_type}', tokens of {network.channels} "
                f"channels and layers of width {network.input_projection.out_features}. {advice} the backend 'auto' "
                "or 'reference'."
            )
        self.backend = SamplerBackend.FUSED if fused else SamplerBackend.REFERENCE
        """Which implementation runs."""

    def along(self, timesteps: Sequence[int | float]) -> Denoiser:
        """The denoiser for these timesteps."""
        with without_autocast(next(self._network.parameters()).device):
            if self.kernels is not None:
                return self.kernels.along(timesteps)
            if self._packed is not None:
                return FusedDenoiser(self._packed, timesteps)
            return ReferenceDenoiser(self._network, timesteps)
