"""Which weights decay, in every model of the paper and under a head that somebody else wrote."""

import pytest
import torch
from torch import nn

from fluid_core.configuration import ComponentChoice, TrainingConfig
from fluid_core.errors import InvalidComponentError
from fluid_core.training.step.optimizer import build_optimizer, decayed_parameters

IN_BLOCKS = {
    "self_attention.qkv.weight",
    "self_attention.output.weight",
    "cross_attention.queries.weight",
    "cross_attention.keys_values.weight",
    "cross_attention.output.weight",
    "feed_forward.hidden.weight",
    "feed_forward.output.weight",
}
OF_BACKBONE = (
    {f"transformer.blocks.{index}.{name}" for index in (0, 1) for name in IN_BLOCKS}
    | {f"aligner.blocks.0.{name}" for name in IN_BLOCKS if not name.startswith("cross")}
    | {"aligner.projection.weight"}
)
OF_DIFFUSION = {
    f"head.network.{name}.weight"
    for name in (
        "time_embedding.0",
        "time_embedding.2",
        "condition_projection",
        "input_projection",
        "blocks.0.mlp.0",
        "blocks.0.mlp.2",
        "blocks.0.modulation",
        "output_projection",
        "output_modulation",
    )
} | {"token_embedding.content.weight"}


@pytest.mark.parametrize("order", ["random", "raster", "causal-random"])
@pytest.mark.parametrize(("tokens", "others"), [("continuous", OF_DIFFUSION), ("discrete", set())])
def test_the_matrices_of_linear_layers_decay_and_nothing_else(tokens, others, order, small_model):
    """By name. The table of ids decays in no model, although a softmax head multiplies with it too."""
    model = small_model(tokens, order)
    assert decayed_parameters(model) == OF_BACKBONE | others
    free = {name for name, p in model.named_parameters() if p.requires_grad} - decayed_parameters(model)
    assert {"token_embedding.position.table", "token_embedding.placeholder", "aligner.no_text"} <= free
    assert {
        "text_encoder.byte_embedding.weight",
        "transformer.output_norm.weight",
        "transformer.output_norm.bias",
    } <= free
    assert ("token_embedding.target_position.table" in free) == (order == "causal-random")


def test_the_matrix_of_a_third_partys_head_decays(small_model):
    """It is told from its biases by its shape; the head knows nothing of decay."""
    model = small_model("continuous", "random", head=ComponentChoice(name="gaussian-mixture"))
    assert decayed_parameters(model) == OF_BACKBONE | {"token_embedding.content.weight", "head.projection.weight"}


class Codes(nn.Module):
    """A module with tables of its own kind, one of them in a part."""

    def __init__(self, *names):
        super().__init__()
        self.names = names
        self.codes = nn.Parameter(torch.zeros(3, 4))
        self.mixing = nn.Parameter(torch.zeros(4, 4))
        self.part = nn.Linear(4, 4)

    def no_weight_decay(self):
        """What the test says."""
        return self.names


def test_a_part_names_what_must_not_decay():
    """Also weights of parts within it; a name that it does not have is refused with those it has."""
    assert decayed_parameters(nn.Sequential(Codes())) == {"0.codes", "0.mixing", "0.part.weight"}
    assert decayed_parameters(nn.Sequential(Codes("codes", "part.weight"))) == {"0.mixing"}
    with pytest.raises(InvalidComponentError, match=r"Codes \(0\) exempts 'tables' .* It has: codes, mixing, part"):
        decayed_parameters(nn.Sequential(Codes("tables")))


def test_decay_pulls_at_those_alone():
    """With gradients of zero, weights that decay shrink by rate times decay, the others stay bit for bit."""
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Embedding(4, 3))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, TrainingConfig(num_steps=1, batch_size=1, weight_decay=0.5, learning_rate=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        expected = before[name] * (1 - 0.1 * 0.5) if name == "0.weight" else before[name]
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=0.0)


def test_the_optimizer_is_fused_where_the_device_can():
    """All weights in one kernel on a CPU; on the meta device, which has none, one after the other."""
    config = TrainingConfig(num_steps=1, batch_size=1)
    assert build_optimizer(nn.Linear(2, 2), config).defaults["fused"]
    assert not build_optimizer(nn.Linear(2, 2, device="meta"), config).defaults["fused"]
