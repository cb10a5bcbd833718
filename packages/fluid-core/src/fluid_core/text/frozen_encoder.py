"""What every pretrained text encoder shares: frozen weights, token ids, padding, and prompts that are too long."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import TextFeatures
from fluid_core.identity import RememberedIdentity
from fluid_core.text.options import Overlong
from fluid_core.text.pretrained_loading import LoadedEncoder
from fluid_core.text.prompts import check_prompts, place, report_overlong


class FrozenEncoder(nn.Module, ABC):
    """A pretrained model behind a tokenizer: no gradients, never in training mode, states in float32 whatever the
    weights' type.

    `unit` says in messages what `max_length` counts. Subclasses say which states of the model are used.
    """

    frozen = True

    def __init__(self, loaded: LoadedEncoder, *, width: int, max_length: int, overlong: Overlong, unit: str) -> None:
        super().__init__()
        self.width = width
        self.max_length = max_length
        self.model = loaded.model.requires_grad_(False)
        self._tokenizer = loaded.tokenizer
        # What a prompt begins with says most.
        self._tokenizer.truncation_side = "right"
        self._overlong: Overlong = overlong
        self._unit = unit
        self._identity = RememberedIdentity()
        self.eval()

    @abstractmethod
    def _states(
        self, ids: Int[Tensor, "batch text_length"], mask: Bool[Tensor, "batch text_length"]
    ) -> Float[Tensor, "batch text_length width"]:
        """States of token ids, where `mask` is False of padding."""

    def train(self, mode: bool = True) -> "FrozenEncoder":  # noqa: ARG002
        """Stay in evaluation mode: dropout of a frozen encoder would only add noise."""
        return super().train(False)

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """One state for each of the encoder's own tokens, its marks among them; states of padding are zero.

        A prompt of more than `max_length` tokens is cut, with a warning that says what was lost, unless the options
        say to refuse it. Raises `PromptError` for an empty prompt or a refused one, and `InvalidRequestError` if the
        weights were cast to float16.
        """
        return self._encoded(self._token_ids(check_prompts(prompts)))

    def encode_empty(self) -> TextFeatures:
        """States of the empty prompt, one row: those of the marks that the tokenizer puts around every text.

        Raises `InvalidRequestError` for a tokenizer that adds no mark, so that nothing is left of an empty prompt.
        """
        ids: list[int] = self._tokenizer("")["input_ids"]
        if not ids:
            raise InvalidRequestError(
                "The tokenizer of this text encoder adds no marks, so that an empty prompt has no states. Set "
                "unconditional = 'learned' for the model."
            )
        return self._encoded([ids])

    def identity(self) -> str:
        """Hash of the model's configuration and weights, of its tokenizer, and of the options that change states."""
        unimportant = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
        config = {key: value for key, value in self.model.config.to_diff_dict().items() if key not in unimportant}
        description = {
            "class": type(self).__name__,
            "config": json.loads(json.dumps(config, default=str, sort_keys=True)),
            "vocabulary": sorted(self._tokenizer.get_vocab().items()),
            "marks": self._tokenizer("a picture")["input_ids"],
            "max_length": self.max_length,
            "layer": getattr(getattr(self, "options", None), "layer", -1),
        }
        return self._identity.of(description, self.model.state_dict())

    @torch.no_grad()
    def _encoded(self, rows: list[list[int]]) -> TextFeatures:
        weight = self.model.get_input_embeddings().weight
        if weight.dtype == torch.float16:
            raise InvalidRequestError(
                "Expected a text encoder in float32 or bfloat16, found its weights cast to float16, in which "
                "encoders such as T5 overflow. Cast the model to torch.bfloat16 instead."
            )
        longest = max(len(row) for row in rows)
        padding = self._tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [padding] * (longest - len(row)) for row in rows], device=weight.device)
        lengths = torch.tensor([len(row) for row in rows], device=weight.device)
        mask = torch.arange(longest, device=weight.device) < lengths[:, None]
        # States must be the same under a trainer's autocast, in generation and from a cache.
        with torch.autocast(weight.device.type, enabled=False):
            states = self._states(ids, mask)
        return TextFeatures(states=states.float() * mask[:, :, None], mask=mask)

    def _token_ids(self, prompts: list[str]) -> list[list[int]]:
        rows: list[list[int]] = self._tokenizer(prompts, padding=False, truncation=False, verbose=False)["input_ids"]
        return [
            row if len(row) <= self.max_length else self._truncated(prompt, len(row), place(index, len(prompts)))
            for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
        ]

    def _truncated(self, prompt: str, length: int, where: str) -> list[int]:
        """The first tokens of an overlong prompt, within the marks that the encoder saw around every text."""
        fast = self._tokenizer.is_fast
        words = self._tokenizer(prompt, add_special_tokens=False, verbose=False, return_offsets_mapping=fast)
        num_kept = self.max_length - (length - len(words["input_ids"]))
        report_overlong(
            prompt,
            where,
            length=length,
            limit=self.max_length,
            unit=self._unit,
            overlong=self._overlong,
            cut=(
                prompt[words["offset_mapping"][num_kept][0] :]
                if fast
                else self._tokenizer.decode(words["input_ids"][num_kept:], skip_special_tokens=True)
            ),
        )
        # The tokenizer itself cuts between the marks, which differ from family to family.
        kept: list[int] = self._tokenizer(prompt, truncation=True, max_length=self.max_length)["input_ids"]
        return kept
