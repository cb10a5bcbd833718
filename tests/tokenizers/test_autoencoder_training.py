"""Losses of autoencoders against direct formulas, and the upkeep of codebooks on constructed assignments."""

import math

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel

from fluid_core.errors import InvalidRequestError
from fluid_core.protocols import TrainsOnImages
from fluid_tokenizers.autoencoder_training import kl_per_element, kl_reconstruction_loss, vq_reconstruction_loss
from fluid_tokenizers.codebook_upkeep import CodebookUpkeep
from fluid_tokenizers.kl_autoencoder import KLAutoencoder
from fluid_tokenizers.options import KLAutoencoderOptions, VQAutoencoderOptions
from fluid_tokenizers.training_options import KLTrainingOptions, VQTrainingOptions
from fluid_tokenizers.vq_autoencoder import VQAutoencoder

SHAPE = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
}


def seeded(seed=0):
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images(scenes):
    """Three pictures of 16 x 16 pixels."""
    return scenes(3, 0, size=16)


@pytest.fixture(scope="module")
def kl_model():
    """A tiny AutoencoderKL."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoencoderKL(**SHAPE)


@pytest.fixture
def vq_model():
    """A tiny VQModel with 32 codes, spread out so that several are taken."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VQModel(num_vq_embeddings=32, vq_embed_dim=4, **SHAPE)
        torch.nn.init.normal_(model.quantize.embedding.weight, std=0.3)
    return model


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_the_kl_loss_is_reconstruction_plus_weighted_divergence(kl_model, images, kind):
    """Each part is what diffusers' own posterior and a plain mean give, with the same noise."""
    options = KLTrainingOptions(reconstruction=kind, kl_weight=0.3)
    loss = kl_reconstruction_loss(kl_model, images, options, generator=seeded(5))

    posterior = kl_model.encode(images).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=seeded(5))
    decoded = kl_model.decode(posterior.mean + posterior.std * noise).sample
    difference = decoded - images
    distance = difference.abs().mean() if kind == "l1" else difference.square().mean()
    divergence = posterior.kl().sum() / posterior.mean.numel()
    torch.testing.assert_close(loss.reconstruction, decoded)
    torch.testing.assert_close(loss.parts[kind], distance.detach())
    torch.testing.assert_close(loss.parts["kl"], divergence.detach())
    torch.testing.assert_close(loss.total, distance + 0.3 * divergence)
    assert set(loss.parts) == {kind, "kl"}
    assert not any(part.requires_grad for part in loss.parts.values())


def test_the_divergence_is_zero_for_the_standard_normal_alone():
    """Mean 0 and variance 1 give exactly 0; a mean of 2 gives 2 nats, a variance of e gives (e - 2) / 2."""
    zeros = torch.zeros(2, 4, 3, 3)
    assert kl_per_element(zeros, zeros) == 0
    assert kl_per_element(zeros + 2.0, zeros) == 2.0
    assert kl_per_element(zeros, zeros + 1.0) == pytest.approx((math.e - 2) / 2, abs=1e-6)


def test_without_weight_the_divergence_is_measured_only(kl_model, images):
    """At kl_weight 0 the total is the reconstruction, and the divergence is still reported."""
    loss = kl_reconstruction_loss(kl_model, images, KLTrainingOptions(kl_weight=0.0), generator=seeded())
    assert float(loss.total.detach()) == float(loss.parts["l1"])
    assert float(loss.parts["kl"]) > 0


def test_noise_comes_from_the_generator_alone(kl_model, images):
    """Equal seeds give equal losses whatever the global generator does; other seeds give others."""
    options = KLTrainingOptions()
    losses = [kl_reconstruction_loss(kl_model, images, options, generator=seeded(seed)).total for seed in (1, 1, 2)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_a_deterministic_autoencoder_has_no_divergence(images):
    """AutoencoderTiny trains on reconstruction alone."""
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=4,
    )
    loss = kl_reconstruction_loss(tiny, images, KLTrainingOptions(kl_weight=100.0), generator=seeded())
    assert set(loss.parts) == {"l1"}
    torch.testing.assert_close(loss.total.detach(), (loss.reconstruction - images).abs().mean().detach())


@pytest.mark.parametrize("codebook", ["gradient", "average"])
def test_the_vq_loss_is_reconstruction_plus_commitment_plus_codebook(vq_model, images, codebook):
    """Terms against a nearest neighbour search of our own; codes that are averaged have no loss and no gradient."""
    options = VQTrainingOptions(commitment_weight=0.4, codebook=codebook)
    upkeep = CodebookUpkeep(32, 4, options)
    loss = vq_reconstruction_loss(vq_model, images, options, upkeep)

    outputs = vq_model.encode(images).latents.permute(0, 2, 3, 1).reshape(-1, 4)
    codes = vq_model.quantize.embedding.weight
    nearest = (outputs[:, None] - codes[None]).square().sum(dim=2).argmin(dim=1)
    assert len(nearest.unique()) > 3
    squared = (outputs - codes[nearest]).square().mean().detach()
    quantized = codes[nearest].view(3, 8, 8, 4).permute(0, 3, 1, 2)
    decoded = vq_model.decode(quantized, force_not_quantize=True).sample
    distance = (decoded - images).abs().mean()
    torch.testing.assert_close(loss.reconstruction, decoded)
    torch.testing.assert_close(loss.parts["commitment"], squared)
    weight = 0.4 + (1.0 if codebook == "gradient" else 0.0)
    torch.testing.assert_close(loss.total.detach(), distance.detach() + weight * squared)
    assert torch.equal(upkeep.counts, torch.bincount(nearest, minlength=32).float())

    loss.total.backward()
    gradient = codes.grad
    if codebook == "average":
        assert gradient is None
    else:
        # d/dc of the mean over positions and channels of (c - z)^2, summed over the positions that took c.
        expected = torch.zeros_like(codes).index_add_(0, nearest, 2 * (codes[nearest] - outputs) / outputs.numel())
        torch.testing.assert_close(gradient, expected.detach())


def test_gradients_pass_the_quantisation_straight_through(vq_model, images):
    """Without commitment the encoder gets the gradient that the decoder's input has."""
    options = VQTrainingOptions(commitment_weight=0.0, codebook="average")
    loss = vq_reconstruction_loss(vq_model, images, options, CodebookUpkeep(32, 4, options))
    loss.total.backward()
    found = [p.grad.clone() for p in vq_model.encoder.parameters()]
    vq_model.zero_grad()

    latents = vq_model.encode(images).latents
    quantized, _, _ = vq_model.quantize(latents.detach())
    quantized = quantized.detach().requires_grad_(True)
    (vq_model.decode(quantized, force_not_quantize=True).sample - images).abs().mean().backward()
    latents.backward(quantized.grad)
    for gradient, parameter in zip(found, vq_model.encoder.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("ids", "perplexity", "share"),
    [
        ([1] * 7, 1.0, 0.25),
        ([0, 1, 2, 3] * 3, 4.0, 1.0),
        ([0, 1] * 5, 2.0, 0.5),
        # Frequencies 1/2, 1/4, 1/4: entropy 1.5 bits.
        ([0, 0, 1, 2], 2**1.5, 0.75),
    ],
)
def test_figures_of_constructed_assignments(ids, perplexity, share):
    """One code, all codes alike, and something between."""
    codebook, upkeep = make_upkeep(window_steps=1, revive_dead_codes=False)
    upkeep.observe(codebook[ids], torch.tensor(ids), codebook)
    figures = upkeep.after_step(codebook, generator=seeded())
    assert figures["codebook_perplexity"] == pytest.approx(perplexity, rel=1e-6)
    assert figures["codes_used"] == share


def make_upkeep(**options):
    """Four codes of two channels at the corners of a square, and their upkeep."""
    codebook = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    return codebook, CodebookUpkeep(4, 2, VQTrainingOptions(**options))


def test_use_is_counted_over_a_window():
    """Three steps that take codes 0, 1 and 0: figures grow until the window ends, then stand until the next ends."""
    codebook, upkeep = make_upkeep(window_steps=3, revive_dead_codes=False)
    figures = []
    for ids in ([0, 0], [1, 1], [0, 0], [2, 2]):
        upkeep.observe(codebook[ids], torch.tensor(ids), codebook)
        figures.append(upkeep.after_step(codebook, generator=seeded()))
    assert [f["codes_used"] for f in figures] == [0.25, 0.5, 0.5, 0.5]
    assert figures[0]["codebook_perplexity"] == pytest.approx(1.0)
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert figures[2]["codebook_perplexity"] == pytest.approx(math.exp(entropy))
    assert figures[3] == figures[2]
    assert all(f["codes_revived"] == 0 for f in figures)


def test_dead_codes_move_onto_present_outputs():
    """Codes 2 and 3 take nothing in a window of two steps: they become two different outputs; the others stay."""
    codebook, upkeep = make_upkeep(window_steps=2)
    before = codebook.clone()
    outputs = torch.tensor([[0.0, 0.1], [0.3, 0.0], [1.2, 0.0], [0.0, 0.0]])
    ids = torch.tensor([0, 0, 1, 0])
    for step in range(2):
        upkeep.observe(outputs, ids, codebook)
        figures = upkeep.after_step(codebook, generator=seeded(3))
        if step == 0:
            assert torch.equal(codebook, before)
            assert figures["codes_revived"] == 0
    assert figures["codes_revived"] == 2
    assert torch.equal(codebook[:2], before[:2])
    # The last output lies on its code: there is nothing to gain from another code there.
    candidates = {tuple(row) for row in outputs[:3].tolist()}
    revived = {tuple(row) for row in codebook[2:].tolist()}
    assert len(revived) == 2
    assert revived <= candidates


def test_revived_codes_go_where_the_error_is():
    """Of a thousand outputs on a code and one far away, the one far away gets the dead code, whatever the seed."""
    outputs = torch.cat([torch.full((1000, 2), 1e-4), torch.tensor([[5.0, -5.0]])])
    for seed in range(20):
        codebook, upkeep = make_upkeep(window_steps=1)
        upkeep.observe(outputs, torch.tensor([0] * 1000 + [1]), codebook)
        upkeep.after_step(codebook, generator=seeded(seed))
        assert codebook[2:].tolist().count([5.0, -5.0]) == 1


def test_revival_follows_the_generator():
    """Equal seeds move dead codes to the same places."""
    outputs = torch.randn(50, 2, generator=seeded(9))
    found = []
    for seed in (1, 1, 2):
        codebook, upkeep = make_upkeep(window_steps=1)
        upkeep.observe(outputs, torch.zeros(50, dtype=torch.int64), codebook)
        upkeep.after_step(codebook, generator=seeded(seed))
        found.append(codebook)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_averaged_codes_follow_what_is_assigned_to_them():
    """After two steps a code is the weighted mean of its outputs, the later ones weighing more; unused codes stay."""
    codebook, upkeep = make_upkeep(codebook="average", codebook_decay=0.8, window_steps=100)
    before = codebook.clone()
    first, second = torch.tensor([[0.2, 0.0], [0.0, 0.4], [1.1, 0.1]]), torch.tensor([[0.6, 0.6]])
    upkeep.observe(first, torch.tensor([0, 0, 1]), codebook)
    upkeep.after_step(codebook, generator=seeded())
    torch.testing.assert_close(codebook[0], first[:2].mean(dim=0))
    torch.testing.assert_close(codebook[1], first[2])
    upkeep.observe(second, torch.tensor([0]), codebook)
    upkeep.after_step(codebook, generator=seeded())
    expected = (0.8 * first[:2].sum(dim=0) + second[0]) / (0.8 * 2 + 1)
    torch.testing.assert_close(codebook[0], expected)
    torch.testing.assert_close(codebook[1], first[2])
    assert torch.equal(codebook[2:], before[2:])


def test_what_upkeep_remembers_is_not_saved_with_a_tokenizer():
    """Its tensors are buffers, so that a run can keep them, and in no state dict, so that models do not."""
    upkeep = CodebookUpkeep(4, 2, VQTrainingOptions())
    assert upkeep.state_dict() == {}
    assert {name for name, _ in upkeep.named_buffers()} == {"counts", "assigned", "sums", "figures", "num_steps"}


@pytest.mark.parametrize("cls", [KLAutoencoder, VQAutoencoder])
def test_the_tokenizers_train(cls, images):
    """Both hand their autoencoder to the losses, with the weights their options say, and refuse images out of range."""
    architecture = {"class": "AutoencoderKL" if cls is KLAutoencoder else "VQModel", **SHAPE}
    torch.manual_seed(0)
    if cls is KLAutoencoder:
        training = KLTrainingOptions(kl_weight=0.5)
        tokenizer = cls(KLAutoencoderOptions(image_size=16, architecture=architecture, training=training))
        expected = {"l1", "kl"}
    else:
        training = VQTrainingOptions(commitment_weight=0.5, codebook="average", window_steps=1)
        tokenizer = cls(VQAutoencoderOptions(image_size=16, architecture=architecture, training=training))
        expected = {"l1", "commitment"}
    assert isinstance(tokenizer, TrainsOnImages)
    loss = tokenizer.reconstruction_loss(images, generator=seeded())
    assert set(loss.parts) == expected
    other = (expected - {"l1"}).pop()
    torch.testing.assert_close(loss.total.detach(), loss.parts["l1"] + 0.5 * loss.parts[other])
    loss.total.backward()
    assert all(p.grad is not None for p in tokenizer.autoencoder.encoder.parameters())
    figures = tokenizer.after_step(generator=seeded())
    if cls is VQAutoencoder:
        assert figures["codes_revived"] > 0
        ids = tokenizer.precompute(images)["ids"]
        assert len(ids.unique()) > 1
    with pytest.raises(InvalidRequestError, match=r"finite images in \[-1, 1\]"):
        tokenizer.reconstruction_loss(images * 3, generator=seeded())
