"""A writer that runs here: any chat model of transformers. What it would answer can be weighed, too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.errors import Fault, InputError
from unlearned.holes._instruct import INSTRUCTIONS, Message, rating_asked, require_chat
from unlearned.holes._ratings import HIGHEST, LOWEST
from unlearned.tasks._language_models import load_language_model
from unlearned.tasks._task import Batch, ModelSource
from unlearned.tasks._texts import IGNORED
from unlearned.tasks.text_generation import TextGeneration, answering


class LocalModel:
    """Greedy answers of a model.

    Args:
        source: a directory or hub id.
        engine: where to compute.
        max_new_tokens: of an answer.
        field: what messages call the model.

    Raises:
        InputError: if it cannot be loaded or has no chat template.
    """

    def __init__(self, source: str, engine: Engine, max_new_tokens: int, field: str) -> None:
        self._bundle = load_language_model(ModelSource(source=source), field)
        require_chat(getattr(self._bundle.companions["tokenizer"], "chat_template", None), source, field)
        self._task = TextGeneration(template="chat", max_new_tokens=max_new_tokens).bound(self._bundle)
        self._engine = Engine(self._task, engine.compute, engine.seed)
        self._field = field
        self.label = f"local model {source}"

    def write(self, conversations: Sequence[Sequence[Message]]) -> list[str | None]:
        """One answer each; None is never among them."""
        asked = self._task.prompts([str(conversation[-1]["content"]) for conversation in conversations], self._bundle)
        made = self._engine.evaluate(self._bundle.model, asked, self._task.generations)
        return list(self._task.said(made.long()))

    def weigh(self, instructions: Sequence[str], answers: Sequence[str]) -> Tensor:
        """How probable each answer is if the model can give no other, (N, A) in float64; rows add up to 1.

        Token by token: at each place its probabilities of the tokens by which some answer goes on from there, divided by their sum.

        Args:
            instructions: what it is asked.
            answers: different ones for the tokenizer, none of which is the beginning of another with what ends it.

        Raises:
            InputError: as `tokens_of`.
        """
        ways = self.tokens_of(answers)
        asked = self._task.prompts(instructions, self._bundle)
        weights = torch.ones(len(instructions), len(ways), dtype=torch.float64)
        for start in dict.fromkeys(way[:length] for way in ways for length in range(len(way))):
            on = [i for i, way in enumerate(ways) if way[: len(start)] == start and len(way) > len(start)]
            following = sorted({ways[i][len(start)] for i in on})
            if len(following) > 1:
                said = self._engine.evaluate(self._bundle.model, _continued(asked, start), partial(self._next, following)).softmax(dim=1)
                weights[:, on] *= said[:, [following.index(ways[i][len(start)]) for i in on]]
        return weights

    def tokens_of(self, answers: Sequence[str]) -> list[tuple[int, ...]]:
        """Tokens of answers, with what ends them, as they stand behind a prompt.

        Raises:
            InputError: if the chat template has no fixed place where an answer begins.
        """
        try:
            samples = self._task.read({"prompt": ["?"] * len(answers), "answer": list(answers)}, self._bundle, self._field)
            opened = self._task.prompts(["?"], self._bundle)[0]["input_ids"]
            rows = [samples[i] for i in range(len(samples))]
            placed = all(torch.equal(row["input_ids"][: int(row["prompt_length"])], opened) for row in rows)
        except InputError:
            rows, placed = [], False
        if not placed:
            what = "the chat template has no fixed place where an answer begins, so that answers cannot be weighed."
            raise InputError(Fault(self._field, what, "Name another chat model, or judge by what it writes: second_judge: local."))
        return [tuple(row["labels"][row["labels"] != IGNORED].tolist()) for row in rows]

    def _next(self, tokens: Sequence[int], model: nn.Module, batch: Batch) -> Tensor:
        """Logits of these tokens in the place of the last one of each text, (B, len(tokens))."""
        return self._task.token_logits(model, batch)[answering(batch).mask][:, list(tokens)]


class Weighed:
    """Rates by probabilities: the mean of 1 … 10, each weighted by how probable the model finds it as its whole answer. Ours, not the paper's.

    For models too small to keep to a form. Means are drawn to the middle of the scale, so that no score of it says by itself that an answer is good or bad.
    """

    def __init__(self, model: LocalModel) -> None:
        self._model, self._ratings = model, range(int(LOWEST), int(HIGHEST) + 1)
        self.label = f"{model.label} by its probabilities (instructions {INSTRUCTIONS})"
        model.tokens_of(self._forms)  # said now, and not after a search

    @property
    def _forms(self) -> list[str]:
        return [f"Rating: [[{rating}]]" for rating in self._ratings]

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        """None is never among them. An answer without a word is a 1 without asking."""
        found: list[float | None] = [LOWEST] * len(answers)
        asked = [i for i, answer in enumerate(answers) if answer.strip()]
        if asked:
            weights = self._model.weigh([rating_asked(questions[i], answers[i]) for i in asked], self._forms)
            for i, rating in zip(asked, (weights @ torch.tensor(self._ratings, dtype=torch.float64)).tolist(), strict=True):
                found[i] = rating
        return found


def _continued(asked: Samples, tokens: Sequence[int]) -> Samples:
    """Prompts that go on with these tokens, and with one more whose place alone counts."""
    rows = []
    for i in range(len(asked)):
        ids = torch.cat([asked[i]["input_ids"], torch.tensor([*tokens, 0])])
        labels = torch.full_like(ids, IGNORED)
        labels[-1] = 0
        rows.append({"input_ids": ids, "labels": labels, "prompt_length": asked[i]["prompt_length"]})
    return Samples(rows)
