"""The denoising network with its weights laid out for repeated evaluation on a CPU."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fluid_heads.denoising.network import DenoisingNetwork, ModulatedBlock
from fluid_heads.denoising.repeated_linear import RepeatedLinear


class PackedNetwork:
    """Copies of weights in float32: the network may change afterwards without effect, but for the layers that embed
    timesteps, which every `FusedDenoiser` asks once.

    Norms lose their own weights to the modulations that follow them: (norm * w + b) * (1 + scale) + shift is
    norm * scale' + shift' with scale' = w (1 + scale) and shift' = shift + b (1 + scale), both linear in the
    conditioning as scale and shift are.
    """

    @torch.no_grad()
    def __init__(self, network: DenoisingNetwork) -> None:
        self.network = network
        self.condition_projection = _packed(network.condition_projection)
        self.input_projection = _packed(network.input_projection)
        blocks = [block for block in network.blocks if isinstance(block, ModulatedBlock)]
        self.layers = [_block_layers(block) for block in blocks]
        """For each block its two linear layers, between which comes a SiLU."""

        scale, (self._output_shift_weight, self._output_shift_bias) = _output_modulations(network)
        parts = [*(part for block in blocks for part in _block_modulations(block)), scale]
        self._modulation_weights = torch.stack([weight for weight, _ in parts])
        self._modulation_biases = torch.stack([bias for _, bias in parts])[:, None]
        self.output_projection = _packed(network.output_projection, bias=False)

    @property
    def num_modulations(self) -> int:
        """Shift, scale and gate of every block, then the scale before the output."""
        return len(self._modulation_weights)

    def modulations(
        self, conditioning: Float[Tensor, "rows inner"], *, out: Float[Tensor, "modulations rows inner"]
    ) -> Float[Tensor, "modulations rows inner"]:
        """All modulations of rows of conditioning, each a table of its own, written to `out`. Scales include the one.

        As one product of matrices side by side they took 5 to 25% more time on two cores, and lay further apart.
        """
        rows = conditioning.expand(self.num_modulations, *conditioning.shape)
        return torch.baddbmm(self._modulation_biases, rows, self._modulation_weights.mT, out=out)

    def output_shifts(self, conditioning: Float[Tensor, "rows inner"]) -> Float[Tensor, "rows outputs"]:
        """What the shift before the output adds to it."""
        return functional.linear(conditioning, self._output_shift_weight, self._output_shift_bias)


def _packed(layer: nn.Module, *, bias: bool = True) -> RepeatedLinear:
    assert isinstance(layer, nn.Linear)
    weight = layer.weight.detach().to(torch.float32, copy=True).contiguous()
    copied_bias = layer.bias.detach().to(torch.float32, copy=True)
    return RepeatedLinear(weight, copied_bias if bias else torch.zeros_like(copied_bias))


def _block_layers(block: ModulatedBlock) -> tuple[RepeatedLinear, RepeatedLinear]:
    return _packed(block.mlp[0]), _packed(block.mlp[2])


def _block_modulations(block: ModulatedBlock) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias for shift, scale and gate."""
    weights, biases = _chunks(block.modulation, 3)
    norm_weight, norm_bias = block.norm.weight.float(), block.norm.bias.float()
    return [
        (weights[0] + norm_bias[:, None] * weights[1], biases[0] + norm_bias * (1.0 + biases[1])),
        (norm_weight[:, None] * weights[1], norm_weight * (1.0 + biases[1])),
        (weights[2], biases[2]),
    ]


def _output_modulations(network: DenoisingNetwork) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Weight and bias for the scale, and for what the shift adds to the output."""
    weights, biases = _chunks(network.output_modulation, 2)
    output, bias = network.output_projection.weight.float(), network.output_projection.bias.float()
    # out(norm * scale + shift) is out(norm * scale) + out(shift), and out(shift) is as narrow as the output.
    return (weights[1], 1.0 + biases[1]), (output @ weights[0], output @ biases[0] + bias)


def _chunks(
    layer: nn.Linear, count: int
) -> tuple[tuple[Float[Tensor, "outputs inputs"], ...], tuple[Float[Tensor, "outputs"], ...]]:
    return layer.weight.float().chunk(count), layer.bias.float().chunk(count)
