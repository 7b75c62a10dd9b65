"""Causal language models: any `from_pretrained` model of transformers, on prompts with answers or on plain text.

Loss: mean negative log-likelihood of the answer's tokens (prompt tokens are not counted). Outputs: log-probability of each answer token.
Knowledge: geometric mean of the answer tokens' probabilities. Utility: share of answer tokens that greedy decoding gets right when it is given
the true tokens before them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from unlearned.data.samples import ColumnRows, Row, Samples
from unlearned.data.tables import columns_of, read_table, rename
from unlearned.errors import Fault, InputError
from unlearned.tasks import tasks
from unlearned.tasks._models import call_function, from_pretrained, is_function, pretrained_directory, restore
from unlearned.tasks._task import Batch, Bundle, Data, DataSource, ModelSource, Task, measured
from unlearned.tasks.image_classification import fresh_module

IGNORED = -100
"""Label of tokens that do not count, as transformers has it."""


@tasks.register("text-generation")
class TextGeneration(Task):
    """Rows hold `input_ids` (T,) and `labels` (T,), −100 where a token is not part of the answer."""

    name: ClassVar[str] = "text-generation"
    utility_metric: ClassVar[str] = "token_accuracy"

    def load(self, source: ModelSource, field: str) -> Bundle:
        pretrained_directory(source, field)
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = from_pretrained(AutoModelForCausalLM.from_pretrained, source, field)
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.source, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise InputError(Fault(field, f"{source.source!r} has no tokenizer that can be read.", "Save the tokenizer into the same directory.")) from error
        return Bundle(model, {"tokenizer": tokenizer}, source)

    def save(self, bundle: Bundle, directory: Path) -> None:
        bundle.model.save_pretrained(directory)  # type: ignore[operator]
        bundle.companions["tokenizer"].save_pretrained(directory)

    def restore(self, directory: Path, like: Bundle) -> Bundle:
        return restore(directory, like)

    def fresh(self, bundle: Bundle) -> Bundle:
        return bundle.with_model(fresh_module(bundle))

    def read(self, source: DataSource | Data, bundle: Bundle, field: str, like: Samples | None = None) -> Samples:
        """Columns `prompt` and `answer` (or `question`), or `text` alone."""
        del like  # tokens need no numbering
        given: Mapping[str, str] = {}
        data = source
        if isinstance(source, DataSource):
            given = source.columns
            data = call_function(source.source, field) if is_function(source.source) else read_table(source, field)
        if isinstance(data, Samples):
            return data
        named = rename(
            columns_of(data, ("prompt", "answer"), field), given, {"prompt": ("question",), "answer": ("response", "completion"), "id": ("ids",)}, field
        )
        return tokenise(named, bundle, field)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Pad on the right; `attention_mask` is 0 on the padding."""
        length = max(len(row["input_ids"]) for row in rows)

        def pad(name: str, value: int) -> Tensor:
            return torch.stack([F.pad(torch.as_tensor(row[name]), (0, length - len(row[name])), value=value) for row in rows])

        mask = torch.stack([torch.arange(length) < len(row["input_ids"]) for row in rows])
        return {"input_ids": pad("input_ids", 0), "labels": pad("labels", IGNORED), "attention_mask": mask.to(torch.long)}

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """−mean log p(answer token), over the answer's tokens of each sample."""
        counted = batch["labels"][:, 1:] != IGNORED
        return -self.outputs(model, batch).sum(dim=1) / counted.sum(dim=1)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Log p(token) at each position that predicts an answer token, 0 elsewhere, (B, T − 1)."""
        targets = batch["labels"][:, 1:]
        logits = _logits(model, batch)
        nll = F.cross_entropy(measured(logits).transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
        return -nll

    def knowledge(self, model: nn.Module, batch: Batch) -> Tensor:
        """exp(mean log p(answer token))."""
        return torch.exp(-self.losses(model, batch))

    def utility(self, model: nn.Module, batch: Batch) -> Tensor:
        """Share of the answer's tokens that are the model's first choice."""
        targets = batch["labels"][:, 1:]
        right = (_logits(model, batch).argmax(dim=-1) == targets) & (targets != IGNORED)
        return right.sum(dim=1) / (targets != IGNORED).sum(dim=1)


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert isinstance(logits, Tensor)
    return logits[:, :-1]


def tokenise(columns: Mapping[str, Any], bundle: Bundle, field: str) -> Samples:
    """Rows of token ids; the answer ends with the end-of-sequence token where the tokenizer has one.

    Raises:
        InputError: if there is neither `text` nor `prompt` with `answer`, or a text is empty or a single token.
    """
    tokenizer = bundle.companions["tokenizer"]
    if "answer" in columns and "prompt" in columns:
        pairs = list(zip(columns["prompt"], columns["answer"], strict=True))
    elif "text" in columns:
        pairs = [("", text) for text in columns["text"]]
    else:
        raise InputError(Fault(field, f"there are no texts among the columns {', '.join(map(repr, columns))}.", "Give `prompt` and `answer`, or `text`."))
    wrong = [i for i, (prompt, answer) in enumerate(pairs) if not isinstance(prompt, str) or not isinstance(answer, str) or not answer.strip()]
    if wrong:
        raise InputError(Fault(field, f"{len(wrong)} answers are empty or not text, first at position {wrong[0]}.", "Remove them."))
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    inputs: list[Tensor] = []
    labels: list[Tensor] = []
    for prompt, answer in pairs:
        before = start + tokenizer(prompt, add_special_tokens=False)["input_ids"]
        after = tokenizer(answer if not prompt else " " + answer, add_special_tokens=False)["input_ids"] + end
        if not after or len(before + after) < 2:  # its loss would be a mean over nothing
            raise InputError(Fault(field, f"the text at position {len(inputs)} is too short: no token of it follows another.", "Remove it."))
        inputs.append(torch.tensor(before + after))
        labels.append(torch.tensor([IGNORED] * len(before) + after))
    ids = [str(i) for i in columns["id"]] if "id" in columns else None
    return Samples(ColumnRows({"input_ids": inputs, "labels": labels}), ids, {k: list(v) for k, v in columns.items() if k != "id"})
