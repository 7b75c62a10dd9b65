"""Regeneration for language models (ours): the model goes on from the beginning of a true answer, in a state between those of two references."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearned.attacks._regrown import arcs, made_of
from unlearned.attacks._texts import text_task
from unlearned.data.samples import Row, Samples
from unlearned.engine.engine import evaluating, on_device
from unlearned.errors import InputError
from unlearned.evidence.subject import Subject
from unlearned.tasks._decoders import Change, blocks_of, changed_states, hidden_states, last_prompt_token
from unlearned.tasks._interpolation import slerp
from unlearned.tasks._texts import IGNORED
from unlearned.tasks.text_generation import TextGeneration


def begun(row: Row, share: float) -> Row:
    """A sample whose prompt holds the first tokens of its answer, too: so large a share of it, rounded down, but never all."""
    answer = len(row["input_ids"]) - int(row["prompt_length"])
    kept = min(int(share * answer), answer - 1)
    return {**row, "prompt_length": row["prompt_length"] + kept}


def written(row: Row, prompt: int, said: Sequence[int], ends: frozenset[int], most: int | None) -> Row:
    """What was given and what was said after it as one sample, ended as the true one is; all behind the question counts.

    Args:
        row: as `begun` makes it.
        prompt: tokens of the question alone.
        said: tokens.
        ends: tokens that end an answer.
        most: tokens that the model reads.
    """
    given, last = row["input_ids"][: int(row["prompt_length"])], int(row["input_ids"][-1])
    ids = torch.cat([given, torch.tensor([*said, *([last] if last in ends else [])], dtype=given.dtype)])[:most]
    labels = ids.clone()
    labels[:prompt] = IGNORED
    return {"input_ids": ids, "labels": labels, "prompt_length": torch.tensor(prompt)}


@dataclass(frozen=True)
class RegrownTexts:
    """Of each pair, at each point between, the nearer one's question is answered with the hidden state of the middle."""

    points: int
    share: float
    layer: float

    def __call__(self, subject: Subject, model: nn.Module, references: Samples) -> Samples:
        task = text_task(subject.engine)
        rows = [references[i] for i in range(len(references))]
        pairs = [(a, b, u) for a, b in zip(rows[0::2], rows[1::2], strict=True) for u in arcs(self.points)]
        made: list[Row] = []
        size = subject.engine.compute.batch_size
        with on_device(model, subject.engine.device), evaluating(model), torch.no_grad():
            for i in range(0, len(pairs), size):
                made += self._answered(subject, task, model, pairs[i : i + size])
        return made_of([row for row in made if int((row["labels"] != IGNORED).sum()) and len(row["input_ids"]) > 1], "regrown")

    def _answered(self, subject: Subject, task: TextGeneration, model: nn.Module, pairs: Sequence[tuple[Row, Row, float]]) -> list[Row]:
        asked = [a if u <= 0.5 else b for a, b, u in pairs]
        starts = [begun(row, self.share) for row in asked]
        batch = subject.engine.to_device(task.collate(starts))
        with ExitStack() as stack:
            between = self._between(subject, task, model, pairs)
            if between is not None:
                layer, states = between
                stack.enter_context(changed_states(model, {layer: _once(states)}))
            tokens = task.generations(model, batch)[..., 0].cpu()
        said = [[int(token) - 1 for token in row if token > 0] for row in tokens]
        most = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        return [written(start, int(row["prompt_length"]), answer, task.ends, most) for row, start, answer in zip(asked, starts, said, strict=True)]

    def _between(self, subject: Subject, task: TextGeneration, model: nn.Module, pairs: Sequence[tuple[Row, Row, float]]) -> tuple[int, Tensor] | None:
        """The block behind which states are changed, and the states at the last token given, (B, q); None: the model's blocks are not known."""
        try:
            layer = round(self.layer * (len(blocks_of(model)) - 1))
        except InputError:
            return None

        def states(rows: Sequence[Row]) -> Tensor:
            batch = subject.engine.to_device(task.collate([begun(row, self.share) for row in rows]))
            return last_prompt_token(hidden_states(model, layer, batch), batch["prompt_length"])

        first, second = states([a for a, _, _ in pairs]), states([b for _, b, _ in pairs])
        return layer, slerp(first, second, torch.tensor([u for _, _, u in pairs]).to(first))


def _once(states: Tensor) -> Change:
    """At the last position of the first pass, which reads the prompts; what is generated after it is left as it is."""
    left = [True]

    def change(hidden: Tensor) -> Tensor:
        if not left:
            return hidden
        left.clear()
        return torch.cat([hidden[:, :-1], states[:, None].to(hidden)], dim=1)

    return change
