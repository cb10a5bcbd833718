"""Ignored text: found in models that were trained on shuffled captions or can not see them, not in one that reads."""

import attrs
import pytest
import torch

from fluid_core.diagnosis.evidence import CaptionLosses, Evidence
from fluid_core.diagnosis.finding import Verdict
from fluid_core.diagnosis.ignored_text import diagnose_ignored_text
from fluid_core.exchange import DatasetContext
from fluid_core.testing.tiny import TinyColourCodes, TinyFlags, tiny_model


class ManyFlags(TinyFlags):
    """The twenty flags over and over: each time with other draws of order, mask and noise."""

    def __len__(self):
        """Six times twenty."""
        return 6 * super().__len__()

    def __getitem__(self, index):
        """Flag `index`, going round."""
        return super().__getitem__(index % super().__len__())


@pytest.fixture(scope="module")
def trained():
    """A function that trains a tiny model on flags, with their own captions or with shuffled ones."""
    flags = TinyFlags(DatasetContext(image_size=(8, 8)))
    images = torch.stack([flags[index].image for index in range(len(flags))])
    captions = [flags[index].caption for index in range(len(flags))]
    made = {}

    def train(*, shuffled=False):
        if shuffled not in made:
            model = tiny_model(tokenizer=TinyColourCodes())
            optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=3e-3)
            generator = torch.Generator().manual_seed(0)
            for _ in range(40):
                turn = torch.randperm(len(captions), generator=generator) if shuffled else range(len(captions))
                loss = model.loss(images, [captions[index] for index in turn], generator=generator).mean
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            made[shuffled] = model.eval()
        return made[shuffled]

    return train


def finding_about(model, gather):
    """What is found about the text of a model of flags."""
    return diagnose_ignored_text(gather(model, ManyFlags(DatasetContext(image_size=(8, 8)))))


def test_a_model_that_reads_is_told_from_one_that_does_not(trained, gather):
    """The same training with right captions and with shuffled ones."""
    reads = finding_about(trained(), gather)
    assert reads.verdict is Verdict.NOT_FOUND
    assert reads.figures["gain_share"] > 0.5
    ignores = finding_about(trained(shuffled=True), gather)
    assert ignores.verdict is Verdict.FOUND
    assert abs(ignores.figures["gain_share"]) < 0.01
    assert any("shuffles" in advice for advice in ignores.advice)


def test_a_model_without_cross_attention_is_found(trained, gather):
    """Text that reaches no token makes no difference at all."""
    model = trained()
    kept = {name: one.clone() for name, one in model.state_dict().items()}
    cut = [one for name, one in model.named_parameters() if "cross_attention.output" in name]
    assert cut
    with torch.no_grad():
        for parameter in cut:
            parameter.zero_()
    try:
        finding = finding_about(model, gather)
    finally:
        model.load_state_dict(kept)
    assert finding.verdict is Verdict.FOUND
    assert finding.figures["gain"]["value"] == 0.0


def test_so_few_pictures_leave_it_open():
    """Differences that may hide a percent are undecided; less than eight pictures are not looked at."""
    right = torch.linspace(0.9, 1.1, 10)
    noise = 0.1 * torch.randn(10, generator=torch.Generator().manual_seed(0))
    losses = CaptionLosses(right=right, wrong=right + noise - noise.mean())
    finding = diagnose_ignored_text(Evidence(caption_losses=losses))
    assert finding.verdict is Verdict.UNDECIDED
    assert "--num-images" in finding.found
    few = CaptionLosses(right=right[:5], wrong=right[:5])
    assert diagnose_ignored_text(Evidence(caption_losses=few)).verdict is Verdict.NOT_LOOKED


def test_without_losses_it_says_why(trained, gather):
    """Captions that are all the same leave nothing to swap."""

    class OneCaption(ManyFlags):
        def __getitem__(self, index):
            return attrs.evolve(super().__getitem__(index), caption="a flag")

    evidence = gather(trained(), OneCaption(DatasetContext(image_size=(8, 8))))
    finding = diagnose_ignored_text(evidence)
    assert finding.verdict is Verdict.NOT_LOOKED
    assert "same" in finding.found
