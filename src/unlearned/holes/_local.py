"""A writer that runs here: any chat model of transformers."""

from __future__ import annotations

from collections.abc import Sequence

from unlearned.engine.engine import Engine
from unlearned.holes._instruct import Message, require_chat
from unlearned.tasks._language_models import load_language_model
from unlearned.tasks._task import ModelSource
from unlearned.tasks.text_generation import TextGeneration


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
