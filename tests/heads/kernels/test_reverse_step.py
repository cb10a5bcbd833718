"""One step of ancestral sampling in one kernel, against eager code on the noise of `KeyedRandom`."""

import pytest
import torch

from fluid_core.errors import InvalidRequestError
from fluid_heads.diffusion.noise_schedule import NoiseSchedule, evenly_spaced_timesteps
from fluid_heads.kernels.noise_streams import NoiseStreams
from fluid_heads.kernels.reverse_step import ReverseStepTable, reverse_step, reverse_step_reference

STEPS, PER_DRAW = 6, 4


def make_table(channels, *, linear_skip=False):
    """A table of six steps whose noise is drawn four and two steps at a time."""
    schedule = NoiseSchedule.cosine(evenly_spaced_timesteps(STEPS, first_timestep=980))
    return ReverseStepTable.ancestral(
        schedule,
        channels=channels,
        token_scale=0.7,
        linear_skip=linear_skip,
        steps_per_draw=PER_DRAW,
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize(
    ("tokens", "channels", "temperature"), [(1, 1, 1.0), (1, 16, 0.3), (3, 5, 0.0), (13, 16, 1.0), (3, 48, 0.6)]
)
@pytest.mark.parametrize("guided", [True, False])
def test_every_step_equals_eager_code(generator, keys, tokens, channels, guided, temperature):
    """From the first step to the last, which draws no noise, and across the two draws of noise."""
    random = keys(tokens)
    noise = torch.cat([random.normal((count, channels)) for count in (PER_DRAW, STEPS - PER_DRAW)], dim=1)
    streams = NoiseStreams.taken_from(keys(tokens), num_draws=2)
    scale = torch.linspace(0.0, 4.0, tokens) if guided else None
    table = make_table(channels, linear_skip=True)
    heat = torch.tensor([temperature])
    for number in (0, PER_DRAW - 1, PER_DRAW, STEPS - 1):
        output = torch.randn((2 if guided else 1) * tokens, 2 * channels, generator=generator)
        x = torch.randn(tokens, channels, generator=generator)
        step = torch.tensor([number], dtype=torch.int32)
        settings = {"table": table, "step": step, "temperature": heat, "guidance_scale": scale, "limit": 1.5}
        found = reverse_step(output, x, keys=streams.keys, first_draw=torch.zeros(1, dtype=torch.int32), **settings)
        expected = reverse_step_reference(output, x, noise[:, number], **settings)
        torch.testing.assert_close(found, expected, atol=5e-6, rtol=5e-6)


@pytest.mark.parametrize("rescale", [0.4, 1.0])
def test_guided_noise_is_rescaled(generator, keys, rescale):
    """The spread of guided noise over the channels comes back to that of the conditional one."""
    output, x = torch.randn(10, 14, generator=generator), torch.randn(5, 7, generator=generator)
    settings = {
        "table": make_table(7),
        "step": torch.zeros(1, dtype=torch.int32),
        "temperature": torch.zeros(1),
        "guidance_scale": torch.linspace(1.0, 6.0, 5),
        "rescale": rescale,
    }
    keyed, first = NoiseStreams.taken_from(keys(5), num_draws=1).keys, torch.zeros(1, dtype=torch.int32)
    found = reverse_step(output, x, keys=keyed, first_draw=first, **settings)
    expected = reverse_step_reference(output, x, torch.zeros(5, 7), **settings)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    plain = reverse_step(output, x, keys=keyed, first_draw=first, **{**settings, "rescale": 0.0})
    assert not torch.allclose(found, plain, atol=1e-2)


def test_the_step_is_read_from_the_device(generator, keys):
    """The same call does another step when the counter has gone on, in place and with a copy in another type."""
    streams = NoiseStreams.taken_from(keys(3), num_draws=2)
    output, x = torch.randn(3, 10, generator=generator).bfloat16(), torch.randn(3, 5, generator=generator)
    step, copy = torch.zeros(1, dtype=torch.int32), torch.zeros(3, 5, dtype=torch.bfloat16)
    random = keys(3)
    noise = random.normal((PER_DRAW, 5))
    table, heat = make_table(5), torch.ones(1)
    expected, state = x.clone(), x.clone()
    for number in range(3):
        expected = reverse_step_reference(output, expected, noise[:, number], table=table, step=step, temperature=heat)
        result = reverse_step(
            output,
            state,
            table=table,
            step=step,
            keys=streams.keys,
            first_draw=torch.zeros(1, dtype=torch.int32),
            temperature=heat,
            next_x=state,
            next_input=copy,
        )
        assert result is state
        torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)
        # The interpreter cuts digits off where hardware rounds.
        torch.testing.assert_close(copy.float(), state, atol=0.0, rtol=2**-7)
        step.add_(1)


def test_nothing_to_do():
    """No tokens give no tokens."""
    none = torch.zeros(0, 5)
    drawn = reverse_step(
        torch.zeros(0, 10),
        none,
        table=make_table(5),
        step=torch.zeros(1, dtype=torch.int32),
        keys=torch.zeros(0, dtype=torch.int64),
        first_draw=torch.zeros(1, dtype=torch.int32),
        temperature=torch.ones(1),
    )
    assert drawn.shape == (0, 5)


def test_what_does_not_fit_is_refused(generator, keys):
    """Outputs without their negative half, or for other channels, are named."""
    rest = {
        "table": make_table(5),
        "step": torch.zeros(1, dtype=torch.int32),
        "keys": torch.zeros(3, dtype=torch.int64),
        "first_draw": torch.zeros(1, dtype=torch.int32),
        "temperature": torch.ones(1),
    }
    with pytest.raises(InvalidRequestError, match="negative"):
        reverse_step(torch.zeros(3, 10), torch.zeros(3, 5), guidance_scale=torch.ones(3), **rest)
    with pytest.raises(InvalidRequestError, match=r"\(3, 10\)"):
        reverse_step(torch.zeros(3, 12), torch.zeros(3, 5), **rest)
    with pytest.raises(InvalidRequestError, match="float32"):
        reverse_step(torch.zeros(3, 10), torch.zeros(3, 5).double(), **rest)
