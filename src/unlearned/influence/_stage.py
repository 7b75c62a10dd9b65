"""The stage before a method: score, choose what to drop, pass the gate, and write down what was done."""

from __future__ import annotations

from typing import NamedTuple

from unlearned.engine.bank import Bank
from unlearned.engine.engine import Engine
from unlearned.engine.training import Training
from unlearned.errors import Fault, InputError
from unlearned.influence._gate import pass_gate
from unlearned.influence._prune import Chosen, Prune, Split, choose
from unlearned.influence._rank import Ranking, rank
from unlearned.influence._score import Score
from unlearned.problem import Problem
from unlearned.records import Cost, Pruning


class Pruned(NamedTuple):
    """What is left out, and the record of it."""

    dropped: dict[Split, list[int]]
    """Positions in each set of the problem."""
    pruning: Pruning
    costs: dict[str, Cost]
    """Of `scoring`, and of the `gate` where one was passed."""


def prune(problem: Problem, score: Score, how: Prune, engine: Engine, training: Training | None, bank: Bank, *, deletion_request: bool = False) -> Pruned:
    """Decide which points a method need not see.

    Args:
        problem: with all points.
        score: how they are ranked.
        how: how many are dropped, of which sets.
        engine: computes.
        training: how the original was trained: for the gate, and for scores that look at a training.
        bank: keeps the models of the gate.
        deletion_request: whether somebody asked for the forget set to be deleted.

    Raises:
        InputError: if the score does not fit, nothing would be left to retain, a request for deletion would be skipped without saying so, or the gate refuses.
        DivergedError: if a training diverges.
    """
    ranking = rank(problem, score, engine, training)
    chosen = choose(ranking, how)
    skips = bool(chosen.dropped.get("forget"))
    if deletion_request and skips and not how.skip_requested:
        what = f"{len(chosen.dropped['forget'])} samples of a request for deletion would be skipped."
        raise InputError(Fault("prune.of", what, "Set `of: retain`; or, to skip them knowing that the request stays open, skip_requested: true."))
    costs = {"scoring": ranking.cost}
    pruning = _described(problem, ranking, chosen, how, deletion_request)
    if not any(chosen.dropped.values()):
        pruning = pruning.model_copy(update={"gate_words": "nothing was left out, so that there was nothing to see"})
    elif how.gate and training is not None:
        gated = pass_gate(problem, ranking, chosen.dropped, training, bank, engine, how.gate)
        if not gated.passed:
            raise InputError(Fault("prune", f"{gated.words}.", "Drop less, choose another score, or leave `prune` out."))
        pruning = pruning.model_copy(update={"gate": gated.removals, "gate_words": gated.words, "notes": pruning.notes + gated.notes})
        costs |= {} if gated.cost is None else {"gate": gated.cost}
    return Pruned(chosen.dropped, pruning, costs)


def _described(problem: Problem, ranking: Ranking, chosen: Chosen, how: Prune, deletion_request: bool) -> Pruning:
    score = ranking.score
    return Pruning(
        score={"name": score.name, **score.model_dump(mode="json")},
        of=how.of,
        rule=f"{_rule(chosen, how)} ({', '.join(f'{len(positions)} of {len(problem.sets[split])} to {split}' for split, positions in chosen.dropped.items())})",
        dropped={split: len(positions) for split, positions in chosen.dropped.items()},
        total={split: len(problem.sets[split]) for split in ("forget", "retain")},
        queries=ranking.queries,
        bound=chosen.bound,
        bound_of=None if ranking.effects is None else ranking.effects.of,
        deletion_request=deletion_request,
        notes=ranking.notes,
    )


def _rule(chosen: Chosen, how: Prune) -> str:
    if how.threshold is not None:
        return f"all points whose score is at most {how.threshold:g} from 0"
    if how.fraction is not None:
        return f"the lowest {100 * how.fraction:g} % of each set"
    assert chosen.share is not None
    return f"the lowest {100 * chosen.share:g} % of each set: the largest share whose bound is at most {how.tolerance:g}"
