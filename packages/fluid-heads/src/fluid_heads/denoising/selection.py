"""Which implementation of the denoiser runs."""

from collections.abc import Sequence

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplerBackend
from fluid_heads.denoising.evaluation import Denoiser, ReferenceDenoiser
from fluid_heads.denoising.fused import FusedDenoiser
from fluid_heads.denoising.network import DenoisingNetwork
from fluid_heads.denoising.packed_network import PackedNetwork


class DenoiserSource:
    """Denoisers of one network, for any lists of timesteps: what does not depend on those is prepared once, here.

    `auto` takes the fused implementation on a CPU and the reference elsewhere. Raises `InvalidRequestError` if `fused`
    is asked for where there is none.
    """

    def __init__(self, network: DenoisingNetwork, backend: SamplerBackend) -> None:
        device = next(network.parameters()).device
        if backend is SamplerBackend.FUSED and device.type != "cpu":
            raise InvalidRequestError(
                f"There is no fused denoiser for the device '{device.type}', only for 'cpu'. Use the backend 'auto'."
            )
        fused = backend is not SamplerBackend.REFERENCE and device.type == "cpu"
        self._network = network
        self._packed = PackedNetwork(network) if fused else None
        self.backend = SamplerBackend.FUSED if fused else SamplerBackend.REFERENCE
        """Which implementation runs."""

    def along(self, timesteps: Sequence[int | float]) -> Denoiser:
        """The denoiser for these timesteps."""
        if self._packed is not None:
            return FusedDenoiser(self._packed, timesteps)
        return ReferenceDenoiser(self._network, timesteps)
