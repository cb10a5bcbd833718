"""The denoiser prepared for CPUs computes what the plain one computes, in bounded memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import Guidance, SamplerBackend
from fluid_heads.denoising.evaluation import ReferenceDenoiser
from fluid_heads.denoising.fused import FusedDenoiser
from fluid_heads.denoising.network import DenoisingNetwork
from fluid_heads.denoising.packed_network import PackedNetwork
from fluid_heads.denoising.selection import DenoiserSource

CONDITION_WIDTH, CHANNELS, WIDTH = 24, 6, 32
TIMESTEPS = list(range(0, 1000, 90))
BYTES_PER_ROW = 4 * WIDTH * (3 * 3 + 2)
"""Modulations of one row: three for each of three blocks, and two before the output."""


def random_network(depth: int = 3, dtype: torch.dtype = torch.float32) -> DenoisingNetwork:
    """A network none of whose weights is zero, so that every path shows in the output."""
    torch.manual_seed(3)
    network = DenoisingNetwork(
        channels=CHANNELS, num_outputs=2 * CHANNELS, condition_width=CONDITION_WIDTH, width=WIDTH, depth=depth
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.to(dtype)


def inputs(num_tokens: int, *, guided: bool) -> tuple[torch.Tensor, Guidance | None, torch.Tensor]:
    """Conditions, guidance and noisy tokens."""
    generator = torch.Generator().manual_seed(num_tokens)
    condition, negative = torch.randn(2, num_tokens, CONDITION_WIDTH, generator=generator)
    guidance = Guidance(negative=negative, scale=torch.full((num_tokens,), 2.0)) if guided else None
    return condition, guidance, torch.randn(num_tokens, CHANNELS, generator=generator)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("num_tokens", [1, 2, 7, 40])
@pytest.mark.parametrize("rows_per_chunk", [0, 16, 1000])
def test_equals_the_reference(num_tokens: int, guided: bool, rows_per_chunk: int) -> None:
    """Whatever the number of tokens and the size of blocks and chunks, at every timestep and in any order."""
    network = random_network()
    reference = ReferenceDenoiser(network, TIMESTEPS)
    fused = FusedDenoiser(PackedNetwork(network), TIMESTEPS, rows_per_chunk=rows_per_chunk)
    condition, guidance, x = inputs(num_tokens, guided=guided)
    expected_at, found_at = reference.begin(condition, guidance), fused.begin(condition, guidance)
    for step in (11, 10, 3, 7, 0):
        expected, found = expected_at(step, x), found_at(step, x)
        torch.testing.assert_close(found.output, expected.output, atol=2e-5, rtol=2e-5)
        assert (found.negative is None) == (not guided)
        if expected.negative is not None and found.negative is not None:
            torch.testing.assert_close(found.negative, expected.negative, atol=2e-5, rtol=2e-5)


def test_x_is_left_alone() -> None:
    """The noisy tokens belong to the sampler: the in-place arithmetic stays inside."""
    _, _, x = inputs(5, guided=False)
    kept = x.clone()
    evaluation = FusedDenoiser(PackedNetwork(random_network()), TIMESTEPS).begin(inputs(5, guided=False)[0], None)
    first = evaluation(4, x).output
    assert torch.equal(x, kept)
    assert torch.equal(evaluation(4, x).output, first)


def test_no_tokens() -> None:
    """Nothing in, nothing out."""
    condition, guidance, x = inputs(0, guided=True)
    prediction = FusedDenoiser(PackedNetwork(random_network()), TIMESTEPS).begin(condition, guidance)(0, x)
    assert prediction.output.shape == (0, 2 * CHANNELS)
    assert prediction.negative is not None
    assert prediction.negative.shape == (0, 2 * CHANNELS)


def test_holds_its_own_weights() -> None:
    """A change of the network after preparing does not reach the denoiser half-way."""
    network = random_network()
    condition, _, x = inputs(3, guided=False)
    denoiser = FusedDenoiser(PackedNetwork(network), TIMESTEPS)
    before = denoiser.begin(condition, None)(2, x).output
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    torch.testing.assert_close(denoiser.begin(condition, None)(2, x).output, before)


def test_bfloat16_weights_are_computed_in_float32() -> None:
    """Within the rounding of bfloat16 of the reference (2% of the largest output), which computes in bfloat16."""
    network = random_network(dtype=torch.bfloat16)
    condition, _, x = inputs(9, guided=False)
    expected = ReferenceDenoiser(network, TIMESTEPS).begin(condition, None)(5, x).output
    found = FusedDenoiser(PackedNetwork(network), TIMESTEPS).begin(condition, None)(5, x).output
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < 0.02 * float(expected.abs().max())


def test_memory_of_modulations_is_bounded() -> None:
    """No more rows are modulated at a time than asked for, whatever the number of tokens and timesteps."""
    most = set_aside = 0

    class Watch(TorchDispatchMode):
        """Sees every tensor that is made."""

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal most, set_aside
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in given:
                most = max(most, result.untyped_storage().nbytes())
                if func.overloadpacket is torch.ops.aten.empty:
                    set_aside += result.untyped_storage().nbytes()
            return result

    network = PackedNetwork(random_network())
    denoiser = FusedDenoiser(network, TIMESTEPS, rows_per_chunk=64)
    for num_tokens, guided in ((1, False), (3, True), (500, False), (500, True)):
        condition, guidance, x = inputs(num_tokens, guided=guided)
        set_aside = 0
        given = {condition.untyped_storage().data_ptr(), x.untyped_storage().data_ptr()}
        with Watch():
            evaluation = denoiser.begin(condition, guidance)
            for step in reversed(range(len(TIMESTEPS))):
                evaluation(step, x)
        # All chunks of a call share the memory for modulations.
        assert 0 < set_aside <= 64 * BYTES_PER_ROW
    # All tokens' projected conditions are as large; those of 500 tokens stay below the limit.
    assert most <= 64 * BYTES_PER_ROW


def test_selection() -> None:
    """`auto` is the fused denoiser on a CPU; elsewhere it is the reference, and asking for `fused` is refused."""
    network = random_network()
    for asked, runs in (("auto", "fused"), ("fused", "fused"), ("reference", "reference")):
        source = DenoiserSource(network, SamplerBackend(asked))
        assert source.backend == source.along(TIMESTEPS).backend == SamplerBackend(runs)
    elsewhere = network.to("meta")
    assert DenoiserSource(elsewhere, SamplerBackend.AUTO).backend is SamplerBackend.REFERENCE
    with pytest.raises(
        InvalidRequestError,
        match=r"for the device 'meta', tokens of 6 channels and layers of width 32. Use the backend 'auto'",
    ):
        DenoiserSource(elsewhere, SamplerBackend.FUSED)


def test_autocast_changes_nothing() -> None:
    """The head computes in float32, also when the backbone around it runs under autocast."""
    condition, guidance, x = inputs(3, guided=True)
    denoiser = FusedDenoiser(PackedNetwork(random_network()), TIMESTEPS)
    expected = denoiser.begin(condition, guidance)(4, x).output
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = denoiser.begin(condition, guidance)(4, x).output
        prepared = DenoiserSource(random_network(), SamplerBackend.FUSED).along(TIMESTEPS)
    assert torch.equal(found, expected)
    assert torch.equal(prepared.begin(condition, guidance)(4, x).output, expected)


def test_default_types_change_nothing() -> None:
    """What a caller makes new tensors of is no concern of the denoiser's, which computes in float32 on its device."""
    condition, guidance, x = inputs(3, guided=True)
    denoiser = FusedDenoiser(PackedNetwork(random_network()), TIMESTEPS)
    expected = denoiser.begin(condition, guidance)(4, x).output
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = denoiser.begin(condition, guidance)(4, x).output
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


def test_weights_are_prepared_once_for_all_numbers_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step budget asks for many lists of timesteps; the prepared weights are shared among them."""
    num_prepared = 0
    prepare = PackedNetwork.__init__

    def counted(self: PackedNetwork, network: DenoisingNetwork) -> None:
        nonlocal num_prepared
        num_prepared += 1
        prepare(self, network)

    monkeypatch.setattr(PackedNetwork, "__init__", counted)
    source = DenoiserSource(random_network(), SamplerBackend.FUSED)
    for count in (2, 3, 5):
        source.along(TIMESTEPS[:count])
    assert num_prepared == 1
