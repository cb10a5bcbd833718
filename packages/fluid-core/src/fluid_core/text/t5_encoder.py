"""T5 through transformers: the frozen text encoder of the paper (section 3)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import TextFeatures
from fluid_core.text.options import T5EncoderOptions
from fluid_core.text.prompts import check_prompts, place, report_overlong
from fluid_core.text.t5_loading import load_t5


class T5Encoder(nn.Module):
    """Frozen T5 encoder: no gradients, never in training mode, states in float32 whatever the weights' type.

    Raises `CheckpointError` if the model or its tokenizer can not be loaded from `options.path`.
    """

    frozen = True

    def __init__(self, options: T5EncoderOptions) -> None:
        super().__init__()
        self.options = options
        self.max_length = options.max_length
        self.model, self._tokenizer = load_t5(options)
        self.model.requires_grad_(False)
        self.width = int(self.model.config.d_model)
        self.eval()

    def train(self, mode: bool = True) -> "T5Encoder":  # noqa: ARG002
        """Stay in evaluation mode: dropout of a frozen encoder would only add noise."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """States of T5's last layer, one per token and one for the end mark; states of padding are zero.

        Raises `PromptError` for an empty prompt, and for one of more than `max_length` tokens unless the
        options say to truncate; `InvalidRequestError` if the weights were cast to float16.
        """
        rows = self._token_ids(check_prompts(prompts))
        weight = self.model.get_input_embeddings().weight
        if weight.dtype == torch.float16:
            raise InvalidRequestError(
                "Expected T5 in float32 or bfloat16, found its weights cast to float16, in which it "
                "overflows. Cast the model to torch.bfloat16 instead."
            )
        longest = max(len(row) for row in rows)
        padding = self._tokenizer.pad_token_id
        ids = torch.tensor([row + [padding] * (longest - len(row)) for row in rows], device=weight.device)
        lengths = torch.tensor([len(row) for row in rows], device=weight.device)
        mask = torch.arange(longest, device=weight.device) < lengths[:, None]
        # States must be the same under a trainer's autocast, in generation and from a cache.
        with torch.autocast(weight.device.type, enabled=False):
            states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return TextFeatures(states=states.float() * mask[:, :, None], mask=mask)

    def _token_ids(self, prompts: list[str]) -> list[list[int]]:
        rows: list[list[int]] = self._tokenizer(prompts, padding=False, truncation=False, verbose=False)["input_ids"]
        return [
            row if len(row) <= self.max_length else self._truncated(row, prompt, place(index, len(prompts)))
            for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
        ]

    def _truncated(self, row: list[int], prompt: str, where: str) -> list[int]:
        """The first tokens of an overlong prompt, and the end mark that T5 saw after every text."""
        end = [self._tokenizer.eos_token_id]
        kept = self.max_length - len(end)
        report_overlong(
            prompt,
            where,
            length=len(row),
            limit=self.max_length,
            unit="tokens with the end mark",
            overlong=self.options.overlong,
            cut=self._tokenizer.decode(row[kept:], skip_special_tokens=True),
        )
        return row[:kept] + end


def build_t5_encoder(options: T5EncoderOptions) -> T5Encoder:
    """T5 loaded from the folder or hub id that the options name."""
    return T5Encoder(options)


def example_t5_options(folder: Path) -> T5EncoderOptions:
    """Options of a tiny T5 with random weights over bytes, which is written to `folder`, for tests."""
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=384,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    # transformers initialises from the global generator; fork it, so that nobody else's numbers change.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = T5EncoderModel(config)
    model.save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    return T5EncoderOptions(path=str(folder), max_length=64)
