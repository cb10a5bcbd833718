"""The denoising network: a residual MLP whose layers are modulated by timestep and condition (AdaLN)."""

import math

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn
from torch.nn import functional

from fluid_heads.precision import without_autocast

_NUM_FREQUENCIES = 128
_LONGEST_PERIOD = 10000.0
NORM_EPSILON = 1e-6


def timestep_frequencies(timesteps: Real[Tensor, "*steps"]) -> Float[Tensor, "*steps features"]:
    """Cosines, then sines, of each timestep times 128 geometrically falling frequencies from 1 to about 1e-4."""
    # In float32 on purpose: trained weights expect these very numbers, and float64 differs by up to 5e-5.
    index = torch.arange(_NUM_FREQUENCIES, dtype=torch.float32, device=timesteps.device)
    frequencies = torch.exp(-math.log(_LONGEST_PERIOD) * index / _NUM_FREQUENCIES)
    angles = timesteps[..., None].float() * frequencies
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class ModulatedBlock(nn.Module):
    """One residual block: x + gate * mlp(norm(x) * (1 + scale) + shift), with all three from the conditioning."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 3 * width)

    def forward(
        self, x: Float[Tensor, "*rows width"], conditioning: Float[Tensor, "*rows width"]
    ) -> Float[Tensor, "*rows width"]:
        """`conditioning` has passed the activation already."""
        shift, scale, gate = self.modulation(conditioning).chunk(3, dim=-1)
        update: Tensor = self.mlp(self.norm(x) * (1.0 + scale) + shift)
        gated: Tensor = x + gate * update
        return gated


class DenoisingNetwork(nn.Module):
    """What a head knows of a noisy token: `num_outputs` values from the token, its timestep and the condition.

    The diffusion head reads them as [noise | v], the flow-matching head as a velocity.

    The three methods split the work by what it depends on, so that callers repeat none of it: a condition is
    projected once however many timesteps it serves, a timestep is embedded once however many tokens share it.
    All of them run in the type of the weights with autocast off and return float32.
    """

    def __init__(self, *, channels: int, num_outputs: int, condition_width: int, width: int, depth: int) -> None:
        super().__init__()
        self.channels = channels
        self.num_outputs = num_outputs
        # The order of construction decides which random numbers each layer starts from: keep it.
        self.time_embedding = nn.Sequential(nn.Linear(2 * _NUM_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.condition_projection = nn.Linear(condition_width, width)
        self.input_projection = nn.Linear(channels, width)
        self.blocks = nn.ModuleList(ModulatedBlock(width) for _ in range(depth))
        self.output_projection = nn.Linear(width, num_outputs)
        self.output_modulation = nn.Linear(width, 2 * width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise so that the output is zero and every block passes its input on unchanged.

        Weights are Xavier-uniform and biases zero; the time embedding is N(0, 0.02); modulations and the
        output projection are zero.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        for layer in self.time_embedding:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        for block in self.blocks:
            assert isinstance(block, ModulatedBlock)
            nn.init.zeros_(block.modulation.weight)
        nn.init.zeros_(self.output_modulation.weight)
        nn.init.zeros_(self.output_projection.weight)

    def embed_timesteps(self, timesteps: Real[Tensor, "*steps"]) -> Float[Tensor, "*steps width"]:
        """A vector for each timestep of the full process, whole or in between (0 to 1000)."""
        with without_autocast(timesteps.device):
            features = timestep_frequencies(timesteps).to(self._dtype)
            embedded: Tensor = self.time_embedding(features)
            return embedded.float()

    def project_condition(self, condition: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows inner"]:
        """A vector for each hidden vector of the backbone."""
        with without_autocast(condition.device):
            projected: Tensor = self.condition_projection(condition.to(self._dtype))
            return projected.float()

    def forward(
        self, x: Float[Tensor, "*rows channels"], conditioning: Float[Tensor, "*rows inner"]
    ) -> Float[Tensor, "*rows outputs"]:
        """The outputs for noisy tokens `x`; `conditioning` is embedded timestep plus projected condition."""
        with without_autocast(x.device):
            activated = functional.silu(conditioning.to(self._dtype))
            hidden: Tensor = self.input_projection(x.to(self._dtype))
            for block in self.blocks:
                hidden = block(hidden, activated)
            shift, scale = self.output_modulation(activated).chunk(2, dim=-1)
            hidden = functional.layer_norm(hidden, hidden.shape[-1:], eps=NORM_EPSILON)
            output: Tensor = self.output_projection(hidden * (1.0 + scale) + shift)
            return output.float()

    @property
    def _dtype(self) -> torch.dtype:
        return self.input_projection.weight.dtype
