"""What makes a question a fair probe: it can be understood, and nothing that was to be forgotten would answer it."""

from __future__ import annotations

from collections.abc import Sequence

from unlearned.holes._seams import Parts


def fair(questions: Sequence[str], forget: Sequence[str], parts: Parts) -> list[str]:
    """The valid ones among different questions that no forget text supports, in their order."""
    different = list(dict.fromkeys(questions))
    valid = [q for q, good in zip(different, parts.judge.valid(different), strict=True) if good]
    return [q for q, known in zip(valid, parts.support.supported(valid, forget), strict=True) if not known]
