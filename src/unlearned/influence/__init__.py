"""Which training points matter to what a model does: one file per score, and what follows from scores: pruning, its gate, and tracing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlearned.registry import Registry

if TYPE_CHECKING:
    from unlearned.influence._score import Score

scores: Registry[Score] = Registry("score", "unlearned.influence", "unlearned.influence._score:Score")
