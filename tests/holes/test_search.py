"""The search: what it is paid, what it keeps, and that an interruption changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from tests.models import bundle_of, task_of
from unlearned.engine.checkpoints import load_state
from unlearned.engine.engine import Engine
from unlearned.evidence.statistics import Array
from unlearned.holes._evolve import Draws, Evolution
from unlearned.holes._plain import HashedWords, TemplateQuestions, UnseenLetters, WordSupport, WordTerms
from unlearned.holes._policy import Policy, PolicySettings
from unlearned.holes._seams import Parts, Searcher
from unlearned.holes._search import Pool, Search, Weights

SEEDS = [f"where does {name} live ?" for name in ("ada", "bo", "cy", "di", "eva", "finn")]


class LikesAda:
    """A judge for whom answers to questions about Ada are bad; of Finn it says nothing that can be read."""

    label = "test"

    def __init__(self) -> None:
        self.asked, self.unread = 0, 0

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        assert len(answers) == len(questions)
        self.asked += len(questions)
        self.unread += sum("finn" in q for q in questions)
        return [None if "finn" in q else 1.0 if "ada" in q else 10.0 for q in questions]

    def valid(self, questions: Sequence[str]) -> list[bool]:
        return ["?" in q for q in questions]


def parts() -> Parts:
    return Parts(WordTerms([]), TemplateQuestions(), LikesAda(), WordSupport([]), HashedWords(), UnseenLetters(SEEDS))


def search(searcher: Searcher, state: Path | None = None, **more: Any) -> Search:
    how: dict[str, Any] = {"weights": Weights(), "answered": None, "orders": (3, 4, 5), **more}
    return Search(searcher, list, parts(), state=state, **how)


def policy(state: Path | None = None, **settings: Any) -> Policy:
    how = PolicySettings(**{"lr": 0.01, "rank": 2, "max_new_tokens": 4, "shots": 1, "batch_size": 4, **settings})
    bundle = bundle_of("llama")
    with torch.no_grad():
        bundle.model.get_input_embeddings().weight *= 10  # type: ignore[operator]  # as it is, its logits are all nearly 0, and tied to it
    return Policy(bundle, SEEDS, how, Engine(task_of("text-generation"), seed=3), state, "test")


def test_bad_answers_to_valid_questions_are_worth_ten() -> None:
    looked = search(Draws([*SEEDS, "no question about ada"], 0))
    found = {probe.question: probe.reward for probe in looked.round(7)}
    assert found == {q: 10.0 if q == SEEDS[0] else 0.0 for q in [*SEEDS, "no question about ada"]}
    assert looked.found() == [SEEDS[0]]
    assert (looked.asked, looked.unread, looked.scored) == (6, 1, 5)


def test_what_the_original_does_not_answer_is_worth_nothing_if_it_is_asked() -> None:
    looked = search(Draws(SEEDS, 0), answered=lambda questions: ["ada" not in q for q in questions])
    looked.round(6)
    assert looked.found() == []


def test_what_could_not_be_read_is_counted_across_an_interruption(tmp_path: Path) -> None:
    def known(questions: Sequence[str]) -> list[bool | None]:
        return [None if "bo" in q else True for q in questions]

    whole = search(Draws(SEEDS, 0), answered=known)
    for _ in range(2):
        whole.round(6)
    assert (whole.asked, whole.unread, whole.scored) == (10, 2, 10 + 8)
    search(Draws(SEEDS, 0), tmp_path / "s.json", answered=known).round(6)
    again = search(Draws(SEEDS, 0), tmp_path / "s.json", answered=known)
    again.round(6)
    assert (again.asked, again.unread, again.scored) == (10, 2, 18)


def test_novelty_against_a_naive_loop() -> None:
    pool = Pool(parts(), (3, 4, 5))
    first = pool.novelty(SEEDS[:2], Weights())
    assert first.tolist() == pytest.approx((-2 * parts().gibberish.gibberish(SEEDS[:2])).tolist())
    pool.add(SEEDS[:2])
    pool.add(SEEDS[2:3])
    assert pool.bleu.size == 3
    rows = HashedWords().embed(SEEDS).toarray()
    expected = [-pool.bleu.against(q) - float(np.mean([rows[j] @ row for j in range(3)])) for q, row in zip(SEEDS, rows, strict=True)]
    found: Array = pool.novelty(SEEDS, Weights(gibberish=0))
    assert found.tolist() == pytest.approx(expected)
    assert found[0] < pool.novelty(["why do penguins sleep there ?"], Weights(gibberish=0))[0]


def test_the_pool_grows_by_all_that_was_proposed() -> None:
    looked = search(Evolution(SEEDS, 1))
    for total in (8, 16):
        looked.round(8)
        assert looked._pool.bleu.size == total == len(looked.tried)


def test_evolution_finds_more_than_random_draws() -> None:
    evolved, drawn = search(Evolution(SEEDS, 2, parents=3)), search(Draws(SEEDS, 2))
    for _ in range(8):
        evolved.round(8)
        drawn.round(8)
    assert len(evolved.found()) >= 2 * len(drawn.found())


@pytest.mark.parametrize("kind", ["evolution", "draws", "policy"])
@pytest.mark.parametrize("cut", ["between rounds", "before learning"])
def test_an_interrupted_search_is_the_one_that_was_not(kind: str, cut: str, tmp_path: Path) -> None:
    def searcher(where: Path) -> Searcher:
        made: dict[str, Any] = {"evolution": lambda: Evolution(SEEDS, 5), "draws": lambda: Draws(SEEDS, 5), "policy": lambda: policy(where / "policy")}
        return made[kind]()  # type: ignore[no-any-return]

    whole = search(searcher(tmp_path / "a"), tmp_path / "a.json")
    for _ in range(3):
        whole.round(4)
    first = search(searcher(tmp_path / "b"), tmp_path / "b.json")
    first.round(4)
    if cut == "before learning":

        def interrupted(rewards: Sequence[float]) -> None:
            raise KeyboardInterrupt

        first._searcher.learn = interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            first.round(4)
    again = search(searcher(tmp_path / "b"), tmp_path / "b.json")
    while len(again.tried) < 12:
        again.round(4)
    assert again.tried == whole.tried


def test_a_policy_learns_what_it_is_paid_for() -> None:
    """Paid for one word, it says it more often."""
    taught = policy(lr=0.003, rank=4, batch_size=8, entropy=0.0, temperature=1.0, top_p=1.0)
    shares = []
    for _ in range(9):
        said = taught.propose(32)
        shares.append(float(np.mean(["rome" in question for question in said])))
        taught.learn([10.0 * ("rome" in question) for question in said])
    assert max(shares[:2]) < 0.2
    assert min(shares[-2:]) > 0.5


def test_a_policy_learns_on_a_model_of_half_precision() -> None:
    """Ratios of probabilities and values need more digits than bfloat16 has."""
    bundle = bundle_of("llama")
    bundle = bundle.with_model(bundle.model.to(torch.bfloat16))
    taught = Policy(bundle, SEEDS, PolicySettings(rank=2, max_new_tokens=3, shots=1), Engine(task_of("text-generation")), None, "test")
    taught.propose(4)
    assert taught._rollout is not None
    assert {each.dtype for each in taught._evaluate(taught._rollout)} == {torch.float32}
    taught.learn([1.0, 0, 0, 0])
    assert taught._value.weight.abs().sum() > 0
    assert all(parameter.isfinite().all() for parameter in taught._learnt.parameters())


def test_a_policy_goes_on_where_it_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimiser's state is loaded while the parameters are on the engine's device: that of parameters on another one would stay behind."""
    first = policy(tmp_path)
    first.propose(4)
    first.learn([1.0, 0, 0, 0])
    moved = list[nn.Module]()

    @contextmanager
    def moving(model: nn.Module, device: torch.device) -> Iterator[nn.Module]:
        moved.append(model)
        yield model
        moved.remove(model)

    def load(directory: Path, model: nn.Module, optimizer: Optimizer) -> Any:
        assert any(model is each for each in moved)
        return load_state(directory, model, optimizer)

    monkeypatch.setattr("unlearned.holes._policy.on_device", moving)
    monkeypatch.setattr("unlearned.holes._policy.load_state", load)
    assert policy(tmp_path).rounds == 1


def test_a_question_ends_where_the_models_generation_does() -> None:
    bundle = bundle_of("llama")
    assert bundle.model.generation_config is not None
    bundle.model.generation_config.eos_token_id = [1, 2]  # type: ignore[union-attr]
    asking = Policy(bundle, SEEDS, PolicySettings(rank=2), Engine(task_of("text-generation")), None, "test")
    assert asking._cut([3, 4, 2, 5]) == (3, "where does")


def test_the_policys_model_is_not_changed() -> None:
    bundle = bundle_of("llama")
    before = {name: tensor.clone() for name, tensor in bundle.model.state_dict().items()}
    taught = Policy(bundle, SEEDS, PolicySettings(rank=2, max_new_tokens=3, shots=1), Engine(task_of("text-generation")), None, "test")
    taught.propose(4)
    taught.learn([1.0, 0, 0, 0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in bundle.model.state_dict().items())
