"""The diffusion head against recorded values of the predecessor (see data/README.md for what they are)."""

from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fluid_core.exchange import Guidance, SamplerSettings
from fluid_core.token_space import ContinuousTokens, Grid
from fluid_heads.denoising.network import timestep_frequencies
from fluid_heads.diffusion.gaussian_diffusion import GaussianDiffusion
from fluid_heads.diffusion.head import DiffusionHead
from fluid_heads.diffusion.noise_schedule import NoiseSchedule, evenly_spaced_timesteps
from fluid_heads.diffusion.options import DiffusionOptions
from fluid_heads.diffusion.predecessor import load_predecessor_head, predecessor_names

DATA = Path(__file__).parent / "data"
GRID = Grid(height=16, width=16)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest deviation as a share of the largest expected value."""
    return float((found.detach() - expected).abs().max() / expected.abs().max())


@pytest.fixture
def head() -> DiffusionHead:
    """The trained reference head."""
    return load_predecessor_head(DATA / "diffloss_d3_state.safetensors", grid=GRID)


@pytest.fixture(scope="module")
def loss_record() -> dict[str, Tensor]:
    """Inputs and results of the recorded loss."""
    return load_file(DATA / "diffloss_d3_loss.safetensors")


@pytest.mark.parametrize(
    ("name", "timesteps"),
    [
        ("train1000", None),
        *((f"gen{count}", evenly_spaced_timesteps(count)) for count in (100, 50, 25, 10)),
        ("genddim25", list(range(0, 1000, 40))),
    ],
)
def test_schedule_tables(name: str, timesteps: list[int] | None) -> None:
    """Every table of every spacing agrees to float64 rounding."""
    recorded = load_file(DATA / "schedule_tables.safetensors")
    schedule = NoiseSchedule.cosine(timesteps)
    tables = {field.name: getattr(schedule, field.name) for field in attrs.fields(NoiseSchedule)}
    expected = {key.split(".")[1]: value for key, value in recorded.items() if key.startswith(f"{name}.")}
    assert tables.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(tables[key], value, rtol=2e-15, atol=4e-16, msg=lambda m, key=key: f"{key}: {m}")


def test_default_initialisation_is_the_same_to_the_last_bit() -> None:
    """Construction draws the same random numbers in the same order."""
    expected = load_file(DATA / "diffloss_d3_mar_default_init_state.safetensors")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = DiffusionHead(ContinuousTokens(grid=GRID, channels=16), 32, DiffusionOptions(width=64, depth=3))
    state = head.network.state_dict()
    names = predecessor_names(3)
    assert set(names.values()) == expected.keys()
    for ours, theirs in names.items():
        assert torch.equal(state[ours], expected[theirs]), theirs


def test_time_embedding(head: DiffusionHead, loss_record: dict[str, Tensor]) -> None:
    """Frequencies are float32 (a float64 version is off by 5e-5) and the embedding follows."""
    assert float((timestep_frequencies(loss_record["t"]) - loss_record["t_freq"]).abs().max()) <= 1e-6
    assert relative_error(head.network.embed_timesteps(loss_record["t"]), loss_record["t_emb"]) < 2e-6


def test_network_output(head: DiffusionHead, loss_record: dict[str, Tensor]) -> None:
    """Noising a token and the network's prediction of noise and variance."""
    x = head._diffusion.coefficients(loss_record["t"]).noisy(loss_record["target"], loss_record["noise"])
    assert relative_error(x, loss_record["x_t"]) < 1e-6
    conditioning = head.network.embed_timesteps(loss_record["t"]) + head.network.project_condition(loss_record["z"])
    assert relative_error(head.network(loss_record["x_t"], conditioning), loss_record["net_out"]) < 2e-6


def test_loss_terms(head: DiffusionHead, loss_record: dict[str, Tensor]) -> None:
    """Both terms of every token, their sum, and the unmasked and masked means."""
    loss = head.loss_at(
        loss_record["z"],
        loss_record["target"],
        timesteps=loss_record["t"][:, None],
        noise=loss_record["noise"][:, None],
    )
    assert relative_error(loss.parts["mse"], loss_record["mse"]) < 2e-6
    assert relative_error(loss.parts["vb"], loss_record["vb"]) < 1e-5
    assert relative_error(loss.total, loss_record["loss_per_token"]) < 1e-5
    mask = loss_record["mask"]
    masked = (loss.total * mask).sum() / mask.sum()
    for found, names in (
        (loss.total.mean(), ("loss_unmasked_mean", "forward_call_nomask")),
        (masked, ("loss_masked", "forward_call_masked")),
    ):
        for name in names:
            assert float(found.detach()) == pytest.approx(float(loss_record[name]), rel=1e-5), name


def test_gathering_the_predicted_tokens_equals_masking(head: DiffusionHead, loss_record: dict[str, Tensor]) -> None:
    """The mean over the masked tokens alone is the predecessor's masked mean over all."""
    chosen = loss_record["mask"].bool()
    loss = head.loss_at(
        loss_record["z"][chosen],
        loss_record["target"][chosen],
        timesteps=loss_record["t"][chosen][:, None],
        noise=loss_record["noise"][chosen][:, None],
    )
    assert float(loss.total.mean().detach()) == pytest.approx(float(loss_record["loss_masked"]), rel=1e-5)


def test_gradients(head: DiffusionHead, loss_record: dict[str, Tensor]) -> None:
    """Gradients of the masked mean with respect to the condition and every parameter."""
    condition = loss_record["z"].clone().requires_grad_()
    loss = head.loss_at(
        condition,
        loss_record["target"],
        timesteps=loss_record["t"][:, None],
        noise=loss_record["noise"][:, None],
    )
    mask = loss_record["mask"]
    ((loss.total * mask).sum() / mask.sum()).backward()
    assert condition.grad is not None
    assert relative_error(condition.grad, loss_record["grad_z"]) < 2e-5
    parameters = dict(head.network.named_parameters())
    for ours, theirs in predecessor_names(3).items():
        gradient = parameters[ours].grad
        assert gradient is not None
        assert relative_error(gradient, loss_record[f"grad.{theirs}"]) < 2e-5, theirs


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize(
    ("name", "scale", "temperature", "num_steps", "tolerance"),
    [
        ("cfg1_temp1_steps100", None, 1.0, 100, 1e-5),
        ("cfg1_temp0.8_steps100", None, 0.8, 100, 1e-5),
        ("cfg1_temp1_steps25", None, 1.0, 25, 3e-4),
        ("cfg1_temp1_steps10", None, 1.0, 10, 3e-4),
        ("cfg3_temp1_steps100", 3.0, 1.0, 100, 3e-4),
        ("cfg3_temp0.8_steps100", 3.0, 0.8, 100, 3e-4),
        ("cfg3_temp1_steps25", 3.0, 1.0, 25, 3e-4),
        ("cfg3_temp1_steps10", 3.0, 1.0, 10, 3e-4),
    ],
)
def test_sampling(
    head: DiffusionHead,
    name: str,
    scale: float | None,
    temperature: float,
    num_steps: int,
    tolerance: float,
    backend: str,
) -> None:
    """The recorded course from the recorded noise: every step's values and the result, by both implementations.

    With guidance the predecessor samples the unconditional half too and throws it away; only the other is
    compared. The first steps multiply rounding of the predicted noise by up to 2e4, which later steps forget:
    the course is held to 3e-4 of its largest value, the result of a well-conditioned course to 1e-5.
    """
    record = load_file(DATA / f"diffloss_d3_sample_{name}.safetensors")
    num_tokens = 8
    guidance = None
    if scale is not None:
        guidance = Guidance(negative=record["z"][num_tokens:], scale=torch.full((num_tokens,), scale))
    sampler = head.sampler(SamplerSettings(num_steps=num_steps, backend=backend))
    steps = list(
        sampler.reverse_process(
            record["z"][:num_tokens],
            initial=record["x_T"],
            step_noise=record["step_noise"][:, :num_tokens].unbind(0),
            temperature=temperature,
            guidance=guidance,
        )
    )
    assert [step.timestep for step in steps] == record["t_model"].tolist()
    for values, found in (
        ("traj", [step.sample for step in steps]),
        ("pred_xstart", [step.predicted_clean for step in steps]),
        ("mean", [step.mean for step in steps]),
    ):
        assert relative_error(torch.stack(found), record[values][:, :num_tokens]) < 3e-4, values
    # Where x passes through hundreds, its own rounding moves the variance; each step alone is tested below.
    log_variances = torch.stack([step.log_variance for step in steps])
    log_variance_error = float((log_variances - record["log_variance"][:, :num_tokens]).abs().max())
    assert log_variance_error < (1e-5 if tolerance == 1e-5 else 1e-3)
    result = record["result" if scale is None else "result_cond_half"]
    assert relative_error(steps[-1].sample, result) < tolerance


@pytest.mark.parametrize("path", sorted(DATA.glob("diffloss_d3_sample_*.safetensors")), ids=lambda path: path.stem)
def test_log_variance_of_each_step_alone(head: DiffusionHead, path: Path) -> None:
    """From the recorded x of each step, all courses alike give the recorded log-variance to 1e-5."""
    record = load_file(path)
    num_tokens, channels = record["x_T"].shape
    x = torch.cat([record["x_T"][None], record["traj"][:-1, :num_tokens]])
    time_vectors = head.network.embed_timesteps(record["t_model"])
    conditioning = time_vectors[:, None] + head.network.project_condition(record["z"][:num_tokens])
    v = head.network(x.flatten(0, 1), conditioning.flatten(0, 1)).detach()[:, channels:]
    schedule = NoiseSchedule.cosine(evenly_spaced_timesteps(len(x)))
    indices = record["t_index"].repeat_interleave(num_tokens)
    found = GaussianDiffusion(schedule).coefficients(indices).log_variance(v)
    expected = record["log_variance"][:, :num_tokens].flatten(0, 1)
    assert float((found - expected).abs().max()) < 1e-5
