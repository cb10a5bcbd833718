"""Which implementation of the denoiser runs."""

from collections.abc import Sequence

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplerBackend
from fluid_heads.denoising.evaluation import Denoiser, ReferenceDenoiser
from fluid_heads.denoising.fused import FusedDenoiser
from fluid_heads.denoising.network import DenoisingNetwork


def choose_denoiser(network: DenoisingNetwork, timesteps: Sequence[int | float], backend: SamplerBackend) -> Denoiser:
    """The denoiser for `backend`; `auto` takes the fused one on a CPU and the reference elsewhere.

    Raises `InvalidRequestError` if `fused` is asked for where there is none.
    """
    device = next(network.parameters()).device
    if backend is SamplerBackend.REFERENCE or (backend is SamplerBackend.AUTO and device.type != "cpu"):
        return ReferenceDenoiser(network, timesteps)
    if device.type != "cpu":
        raise InvalidRequestError(
            f"There is no fused denoiser for the device '{device.type}', only for 'cpu'. Use the backend 'auto'."
        )
    return FusedDenoiser(network, timesteps)
