"""A writer that runs here: any chat model of transformers. It can be read by its probabilities, too."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.holes._instruct import Instructed, Message, require_chat
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
            answers: different ones, none of which is the beginning of another with what ends it.
        """
        ways = [tuple(tokens.tolist()) for tokens in self._task.answer_ids(answers, self._bundle)]
        asked = self._task.prompts(instructions, self._bundle)
        weights = torch.ones(len(instructions), len(ways), dtype=torch.float64)
        for start in dict.fromkeys(way[:length] for way in ways for length in range(len(way))):
            on = [i for i, way in enumerate(ways) if way[: len(start)] == start and len(way) > len(start)]
            following = sorted({ways[i][len(start)] for i in on})
            if len(following) > 1:
                said = self._engine.evaluate(self._bundle.model, _continued(asked, start), self._next).double()[:, following].softmax(dim=1)
                weights[:, on] *= said[:, [following.index(ways[i][len(start)]) for i in on]]
        return weights

    def _next(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits of the last token of each text, (B, V)."""
        return self._task.token_logits(model, batch)[answering(batch).mask]


class Weighed(Instructed):
    """A judge whose ratings are means over its probabilities: for models too small to keep to a form. Ours, not the paper's."""

    def __init__(self, model: LocalModel) -> None:
        super().__init__(model)
        self._model = model
        self.label = f"{self.label}, read by its probabilities"

    def _ratings(self, instructions: Sequence[str]) -> list[float | None]:
        ratings = range(int(LOWEST), int(HIGHEST) + 1)
        weights = self._weigh(instructions, [f"Rating: [[{rating}]]" for rating in ratings])
        return (weights @ torch.tensor(ratings, dtype=torch.float64)).tolist()

    def _yes(self, instructions: Sequence[str]) -> list[bool | None]:
        weights = self._weigh(instructions, ["Yes", "yes", "No", "no"])
        return (weights[:, :2].sum(dim=1) > 0.5).tolist()

    def _weigh(self, instructions: Sequence[str], answers: Sequence[str]) -> Tensor:
        self.asked += len(instructions)
        return self._model.weigh(instructions, answers) if instructions else torch.zeros(0, len(answers), dtype=torch.float64)


def _continued(asked: Samples, tokens: Sequence[int]) -> Samples:
    """Prompts that go on with these tokens, and with one more whose place alone counts."""
    rows = []
    for i in range(len(asked)):
        ids = torch.cat([asked[i]["input_ids"], torch.tensor([*tokens, 0])])
        labels = torch.full_like(ids, IGNORED)
        labels[-1] = 0
        rows.append({"input_ids": ids, "labels": labels, "prompt_length": asked[i]["prompt_length"]})
    return Samples(rows)
