"""Causal language models: any `from_pretrained` model of transformers, on questions with answers, conversations or plain text.

Loss: mean negative log-likelihood of the answer's tokens (prompt tokens are not counted). Outputs: log-probability of each answer token.
Knowledge: ROUGE-1 recall of the greedy answer, the share of the true answer's words (stemmed) that the model says by itself (Lin 2004); or, as a setting,
the geometric mean of the answer tokens' probabilities. Utility: share of answer tokens that are the model's first choice when it is given the true
tokens before them (exact memorisation).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from unlearned.data.samples import ColumnRows, Row, Samples
from unlearned.data.tables import columns_of, read_table, rename
from unlearned.errors import Fault, InputError
from unlearned.tasks import tasks
from unlearned.tasks._decoders import run_batch
from unlearned.tasks._generation import greedy, true_answers
from unlearned.tasks._language_models import load_language_model
from unlearned.tasks._models import call_function, is_function, restore
from unlearned.tasks._task import Batch, Bundle, Choices, Data, DataSource, ModelSource, Task, measured
from unlearned.tasks._texts import IGNORED, Form, Template, end_tokens, tokenise, tokenise_prompts
from unlearned.tasks.image_classification import fresh_module


@tasks.register("text-generation")
class TextGeneration(Task):
    """Rows hold `input_ids` (T,), `labels` (T,), −100 where a token is not part of the answer, and `prompt_length` ()."""

    name: ClassVar[str] = "text-generation"
    template: Template = Field("auto", description="How questions are put: in the tokenizer's chat template, plainly, or auto: in it if there is one.")
    system: str | None = Field(None, description="A system message before each question, where a chat template is used.")
    template_options: dict[str, bool | int | float | str] = Field({}, description="What the chat template is given, too, such as {enable_thinking: false}.")
    today: str | None = Field("26 Jul 2024", description="What chat templates that ask for the date are told, so that it is the same every day; null: today.")
    score: Literal["rouge1-recall", "probability"] = Field("rouge1-recall", description="What knowledge is measured by.")
    max_new_tokens: int = Field(200, ge=1, le=100_000, description="Longest greedy answer, in tokens.")
    _tokenizer: Any = PrivateAttr(None)
    _end: frozenset[int] = PrivateAttr(frozenset())

    def bound(self, bundle: Bundle) -> Self:
        """With the tokenizer that answers are read with, and the tokens that end them."""
        other = self.model_copy()
        other._tokenizer, other._end = bundle.companions["tokenizer"], end_tokens(bundle)
        return other

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer, once the task is bound."""
        return self._end

    @property
    def utility_metric(self) -> str:
        return "token_accuracy"

    def load(self, source: ModelSource, field: str) -> Bundle:
        return load_language_model(source, field)

    def save(self, bundle: Bundle, directory: Path) -> None:
        bundle.model.save_pretrained(directory)  # type: ignore[operator]
        bundle.companions["tokenizer"].save_pretrained(directory)

    def restore(self, directory: Path, like: Bundle) -> Bundle:
        return restore(directory, like)

    def fresh(self, bundle: Bundle) -> Bundle:
        return bundle.with_model(fresh_module(bundle))

    def read(self, source: DataSource | Data, bundle: Bundle, field: str, like: Samples | None = None) -> Samples:
        """Columns `prompt` and `answer` (or `question`), `messages`, or `text`."""
        del like  # tokens need no numbering
        named = _columns(source, field)
        return named if isinstance(named, Samples) else tokenise(named, bundle, self._form, field)

    @property
    def _form(self) -> Form:
        return Form(self.template, self.system, self.template_options, self.today)

    def prompts_of(self, source: DataSource | Data, field: str) -> list[str]:
        """The column `prompt` (or `question`) of a source.

        Raises:
            InputError: if it has none, or a prompt is not text.
        """
        named = _columns(source, field)
        found = {} if isinstance(named, Samples) else named
        if "prompt" not in found:
            raise InputError(Fault(field, "there is no column `prompt`.", "Give one, or map it: columns: {prompt: your_column}."))
        texts = list(found["prompt"])
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError(Fault(field, "prompts are missing, empty or not text.", "Give at least one question as text."))
        return texts

    def prompts(self, texts: Sequence[str], bundle: Bundle) -> Samples:
        """Prompts without answers, to be answered: no token counts in a loss."""
        ids = [torch.tensor(tokens) for tokens in tokenise_prompts(texts, bundle, self._form, "prompts")]
        lengths = [torch.tensor(len(tokens)) for tokens in ids]
        return Samples(ColumnRows({"input_ids": ids, "labels": [torch.full_like(tokens, IGNORED) for tokens in ids], "prompt_length": lengths}))

    def answered(self, samples: Samples, positions: Sequence[int], answers: Sequence[str], bundle: Bundle) -> Samples:
        """The questions at these positions of a set, each with another answer.

        Args:
            samples: as `read` makes them, of questions with answers or of conversations.
            positions: which; one may stand there several times.
            answers: one for each position.
            bundle: the model whose tokenizer makes them ready.
        """
        if "messages" in samples.facts:
            turns = samples.fact("messages")
            talks = [[*turns[i][:-1], {"role": "assistant", "content": answer}] for i, answer in zip(positions, answers, strict=True)]
            return self.read({"messages": talks}, bundle, "answers")
        asked = samples.fact("prompt")
        return self.read({"prompt": [asked[i] for i in positions], "answer": list(answers)}, bundle, "answers")

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Pad on the right; `attention_mask` is 0 on the padding. The width S of `unanswered` (B, S): how many predictions come before all answers."""
        length = max(len(row["input_ids"]) for row in rows)

        def pad(name: str, value: int) -> Tensor:
            return torch.stack([F.pad(torch.as_tensor(row[name]), (0, length - len(row[name])), value=value) for row in rows])

        mask = torch.stack([torch.arange(length) < len(row["input_ids"]) for row in rows])
        lengths = torch.stack([torch.as_tensor(row["prompt_length"]) for row in rows])
        labels = pad("labels", IGNORED)
        counted = labels[:, 1:] != IGNORED
        [begun] = counted.any(dim=0).nonzero(as_tuple=True)
        return {
            "input_ids": pad("input_ids", 0),
            "labels": labels,
            "attention_mask": mask.to(torch.long),
            "prompt_length": lengths,
            # As a shape: under vmap no number of a batch can be read.
            "unanswered": counted[:, : int(begun[0]) if len(begun) else 0],
        }

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """−mean log p(answer token), over the answer's tokens of each sample."""
        counted = batch["labels"][:, 1:] != IGNORED
        return -self.outputs(model, batch).sum(dim=1) / counted.sum(dim=1)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Log p(token) at each position that predicts an answer token, 0 elsewhere, (B, T − 1)."""
        logits, (mask, targets) = self.token_logits(model, batch), answering(batch)
        before = batch["labels"].shape[1] - 1 - mask.shape[1]
        if torch.is_grad_enabled():  # in one shape for every sample, as gradients per sample need it
            log_p = -F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
            return F.pad(log_p, (before, 0))
        log_p = -F.cross_entropy(measured(logits[mask]), targets[mask], reduction="none")  # prompts in float64, too, would take most of the memory
        return F.pad(torch.zeros(mask.shape, dtype=log_p.dtype, device=log_p.device).masked_scatter(mask, log_p), (before, 0))

    def log_likelihoods(self, model: nn.Module, batch: Batch) -> Tensor:
        """Σ log p(answer token), where `losses` takes the mean."""
        return -self.answer_nll(model, batch)[0]

    def constraints(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum of the logits of the answer's tokens, (B, 1).

        Not of their log-probabilities: where a model knows an answer by heart, the gradient of its log-probability is 0 and holds nothing in its place.
        """
        counted, targets = answering(batch)
        chosen = self.token_logits(model, batch).gather(2, torch.where(counted, targets, 0)[..., None])[..., 0]
        return torch.where(counted, chosen, 0).sum(dim=1, keepdim=True)

    def choices(self, model: nn.Module, batch: Batch) -> Choices:
        """The tokens of the answer, each with one share of it."""
        logits, (counted, targets) = self.token_logits(model, batch), answering(batch)
        weights = counted.to(logits.dtype) / counted.sum(dim=1, keepdim=True)
        return Choices(logits, torch.where(counted, targets, 0), weights)

    def knowledge(self, model: nn.Module, batch: Batch) -> Tensor:
        """ROUGE-1 recall of the greedy answer, or exp(mean log p(answer token))."""
        return self.probability(model, batch) if self.score == "probability" else self.recall(self.generations(model, batch), batch)

    def probability(self, model: nn.Module, batch: Batch) -> Tensor:
        """exp(mean log p(answer token)), (B,)."""
        return torch.exp(-self.losses(model, batch))

    def generations(self, model: nn.Module, batch: Batch) -> Tensor:
        """Greedy answers and the ranks of the true tokens, (B, T, 2): see `greedy`. One pass from which several metrics are computed."""
        with torch.no_grad():
            return greedy(model, batch, self._end, self.max_new_tokens)

    def recall(self, generations: Tensor, batch: Batch, kind: Literal["rouge1", "rougeL"] = "rouge1") -> Tensor:
        """ROUGE recall, with stemming, of each generated answer against the true one, (B,).

        Args:
            generations: (B, T, 2), from `generations` on the same samples.
            batch: the samples.
            kind: of single words, or of the longest common subsequence.
        """
        score = _rouge(kind)
        pairs = zip(self.said(generations), self.answers(batch), strict=True)
        return torch.tensor([score(true, said).recall for said, true in pairs], dtype=torch.float32)

    def counted(self, batch: Batch) -> list[str]:
        """What losses count of each sample, as text: its answer, or the whole of a text without a question."""
        return [self._text(row[row != IGNORED].tolist()) for row in batch["labels"]]

    def said(self, generations: Tensor) -> list[str]:
        """Generated answers as text."""
        return [self._text([int(token) - 1 for token in row if token > 0]) for row in generations[..., 0]]

    def answers(self, batch: Batch) -> list[str]:
        """True answers as text."""
        return [self._text([int(token) for token in row if token >= 0 and int(token) not in self._end]) for row in true_answers(batch)]

    def texts(self, batch: Batch, i: int) -> tuple[str, str, list[str]]:
        """One sample as text: what comes before the answer, the answer, and the answer's tokens one by one, special ones included."""
        ids, labels = batch["input_ids"][i], batch["labels"][i]
        answer = labels[labels != IGNORED].tolist()
        first = int((labels != IGNORED).int().argmax())
        return self._text(ids[:first].tolist()).strip(), self._text(answer).strip(), [str(self._tokenizer.decode([token])) for token in answer]

    def _text(self, tokens: list[int]) -> str:
        if self._tokenizer is None:
            raise RuntimeError("a text task reads answers once it is bound to a model's tokenizer: task.bound(bundle), or problem.task")
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def faults(self, bundle: Bundle, samples: Samples, field: str) -> list[Fault]:
        """Texts longer than the model's context, tokens that it does not have, a tokenizer that is not that of the problem's other models."""
        rows = [samples[i]["input_ids"] for i in range(len(samples))]
        config = getattr(bundle.model, "config", None)
        context, words = getattr(config, "max_position_embeddings", None), getattr(config, "vocab_size", None)
        long = sum(context is not None and len(row) > context for row in rows)
        unknown = max((int(row.max()) for row in rows), default=0)
        faults = []
        if long:
            longest = max(len(row) for row in rows)
            what = f"{long} texts are longer than the model's context of {context} tokens; the longest has {longest}."
            faults.append(Fault(field, what, "Shorten or divide them."))
        if words is not None and unknown >= words:
            what = f"the tokenizer gives token {unknown}, but the model has {words} tokens."
            faults.append(Fault("model", what, "Use the tokenizer that belongs to the model."))
        own = bundle.companions.get("tokenizer")
        if own is not None and self._tokenizer is not None and own is not self._tokenizer and own.get_vocab() != self._tokenizer.get_vocab():
            faults.append(Fault(field, "its tokenizer is not that of the original model.", "Compare models that read the same tokens."))
        return faults

    def token_logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits of the predictions that `answering` tells of, (B, K, V): a vocabulary for each token of the prompts, too, would take most of the memory."""
        count = answering(batch).mask.shape[1] + 1
        logits = run_batch(model, batch, count).logits
        assert isinstance(logits, Tensor)
        return logits[:, -count:-1]

    def answer_nll(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """−log p of the whole answer, a sum over its tokens, (B,); and how many tokens it has, (B,)."""
        return -self.outputs(model, batch).sum(dim=1), answer_mask(batch).sum(dim=1)

    def answer_ids(self, texts: Sequence[str], bundle: Bundle) -> list[Tensor]:
        """Token ids of answers as they stand after a prompt, with what ends them."""
        samples = self.read({"prompt": ["?"] * len(texts), "answer": list(texts)}, bundle, "answers")
        return [samples[i]["labels"][samples[i]["labels"] != IGNORED] for i in range(len(samples))]

    def utility(self, model: nn.Module, batch: Batch) -> Tensor:
        """Share of the answer's tokens that are the model's first choice."""
        mask, targets = answering(batch)
        right = (self.token_logits(model, batch).argmax(dim=-1) == targets) & mask
        return right.sum(dim=1) / mask.sum(dim=1)


def alikeness(texts: Sequence[str], others: Sequence[str]) -> Tensor:
    """ROUGE-1 F-measure of each pair of texts, with stemming, (N,) in float64; 1 where both are the same, also if they are empty."""
    score = _rouge("rouge1")
    return torch.tensor([1.0 if a == b else score(a, b).fmeasure for a, b in zip(texts, others, strict=True)], dtype=torch.float64)


def _rouge(kind: str) -> Callable[[str, str], Any]:
    """Precision, recall and F-measure of a true text and what was said."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], tokenizer=_Words())
    return lambda true, said: scorer.score(true, said)[kind]


class _Words:
    """Words for ROUGE: as rouge-score cuts and stems them, but of any script; its own tokenizer drops all letters but a to z."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self._stemmer = PorterStemmer()

    def tokenize(self, text: str) -> list[str]:
        words = re.findall(r"[^\W_]+", text.lower())
        return [self._stemmer.stem(word) if len(word) > 3 and word.isascii() else word for word in words]


def _columns(source: DataSource | Data, field: str) -> Samples | dict[str, Any]:
    given: Mapping[str, str] = {}
    data = source
    if isinstance(source, DataSource):
        given = source.columns
        data = call_function(source.source, field) if is_function(source.source) else read_table(source, field)
    if isinstance(data, Samples):
        return data
    usual = {"prompt": ("question", "instruction"), "answer": ("response", "completion", "gt"), "id": ("ids",)}
    return rename(columns_of(data, ("prompt", "answer"), field), given, usual, field)


def answer_mask(batch: Batch) -> Tensor:
    """Which of the positions that have a next token predict one of the answer, (B, T − 1)."""
    return batch["labels"][:, 1:] != IGNORED


class Answering(NamedTuple):
    """Predictions among which are all those of answers: the last K of the T − 1."""

    mask: Tensor
    """Which of them predict a token of the answer, (B, K)."""
    tokens: Tensor
    """The tokens that should come, (B, K); −100 where it is none of the answer."""


def answering(batch: Batch) -> Answering:
    """What `token_logits` has predictions for: from the first answer of the batch on, or of the whole batch where it does not say when that begins."""
    tokens = batch["labels"][:, 1:]
    if "unanswered" in batch:
        tokens = tokens[:, batch["unanswered"].shape[1] :]
    return Answering(tokens != IGNORED, tokens)


def with_answers(batch: Batch, answers: Tensor) -> Batch:
    """The same prompts with other answers.

    Args:
        batch: as `collate` makes it.
        answers: token ids (B, A), −1 behind the end of each.
    """
    prompts = batch["prompt_length"]
    lengths = prompts + (answers >= 0).sum(dim=1)
    position = torch.arange(int(lengths.max()), device=prompts.device)[None]
    of_prompt = position < prompts[:, None]
    real = position < lengths[:, None]
    before = batch["input_ids"].gather(1, position.clamp(max=batch["input_ids"].shape[1] - 1).expand(len(prompts), -1))
    after = answers.gather(1, (position - prompts[:, None]).clamp(min=0, max=answers.shape[1] - 1))
    return {
        "input_ids": torch.where(of_prompt, before, after) * real,
        "labels": torch.where(real & ~of_prompt, after, IGNORED),
        "attention_mask": real.long(),
        "prompt_length": prompts,
    }
