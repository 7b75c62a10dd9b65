"""Words that are learned for a diffusion model: where they stand, what is trained, the simplex, and what they find in a model whose word was renamed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models import bits, bundle_of, images, problem_of, prompt_tokenizer, same_bits
from unlearned.api import make_problem
from unlearned.attacks.prompt_search import PromptSearch, RelaxedWords, onto_simplex
from unlearned.attacks.textual_inversion import TextualInversion
from unlearned.engine.engine import Engine
from unlearned.evidence.subject import Subject
from unlearned.records import pick
from unlearned.tasks._words import Words, own_tokens, replaced, with_prefix, with_words
from unlearned.tasks.image_generation import Denoiser, ImageGeneration, denoiser_of


def ids(*texts: str, length: int = 4) -> Tensor:
    return torch.tensor(prompt_tokenizer(length)(list(texts), padding="max_length", max_length=length)["input_ids"])[:, None]


def subject_without_three(kind: str = "pixel") -> Subject:
    problem = make_problem(
        bundle_of(kind),
        train=images(0, 40),
        test=images(100, 16),
        forget="label == 3",
        task=ImageGeneration.model_validate({"judge": "digits", "sampling_steps": 2, "score": "probability"}),
    )
    return Subject(problem, bundle_of(kind, 200), [], Engine(problem.task))


def test_the_concept_is_named_by_the_words_that_only_its_prompts_have() -> None:
    forgotten, retained = ids("a photo of 3", "a photo of 4"), ids("a photo of 1", "a photo")
    [own] = own_tokens(forgotten, retained)
    assert prompt_tokenizer().convert_ids_to_tokens(own) == ["3", "4"]
    changed = replaced(forgotten, [own])
    assert changed[:, 0, -1].tolist() == [-1, -2]
    assert torch.equal(changed[:, 0, :3], forgotten[:, 0, :3])
    assert torch.equal(replaced(retained, [own]), retained)


@pytest.mark.parametrize(
    ("text", "length", "count", "expected"),
    [
        ("a photo of 3", 8, 2, [-1, -2, "a", "photo", "of", "3", "[pad]", "[pad]"]),
        ("a photo of 3", 4, 3, [-1, -2, -3, "3"]),
        ("a photo of 3", 5, 3, [-1, -2, -3, "3", "[pad]"]),
        ("3", 4, 1, [-1, "3", "[pad]", "[pad]"]),
    ],
)
def test_words_in_front_move_the_prompt_or_take_the_place_of_its_first_words(text: str, length: int, count: int, expected: list[Any]) -> None:
    tokenizer = prompt_tokenizer(length)
    found = with_prefix(ids(text, length=length), ids("", length=length)[0], count)[0, 0].tolist()
    assert [token if token < 0 else tokenizer.convert_ids_to_tokens(token) for token in found] == expected


def test_the_token_that_begins_a_prompt_stays_first() -> None:
    """As with CLIP: 7 begins, 9 ends and pads."""
    prompt, empty = torch.tensor([[[7, 1, 2, 9, 9, 9]]]), torch.tensor([[7, 9, 9, 9, 9, 9]])
    assert with_prefix(prompt, empty, 2)[0, 0].tolist() == [7, -1, -2, 1, 2, 9]
    assert with_prefix(prompt, empty, 3)[0, 0].tolist() == [7, -1, -2, -3, 2, 9]


@pytest.mark.parametrize("kind", ["pixel", "stable", "stable-xl"])
def test_a_learned_word_that_equals_a_known_one_changes_nothing(kind: str) -> None:
    problem = problem_of(kind)
    model = denoiser_of(problem.original.model)
    prompts = torch.stack([problem.forget[i]["prompt"] for i in range(6)])
    own = own_tokens(prompts[3:4], prompts[:3])
    before = bits(model)

    def words(number: int, table: Any) -> Words:
        return Words(table, table.weight.detach()[own[number]])

    other = with_words(model, words)
    noisy, when = torch.randn(6, *model.latent_shape, generator=torch.Generator().manual_seed(1)), torch.full((6,), 40)
    with torch.no_grad():
        torch.testing.assert_close(other(noisy, when, replaced(prompts, own)), model(noisy, when, prompts))
    assert same_bits(before, bits(model))


def test_projection_onto_the_simplex_against_bisection() -> None:
    """The paper's code finds the threshold by bisection: w = max(v − τ, 0) with Σ w = 1."""
    rows = 2 * torch.randn(20, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = onto_simplex(rows)
    for row, point in zip(rows, found, strict=True):
        low, high = float(row.min()) - 1, float(row.max())
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if float((row - middle).clamp(min=0).sum()) > 1 else (low, middle)
        torch.testing.assert_close(point, (row - low).clamp(min=0), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(onto_simplex(found), found)


def test_a_drawn_token_is_read_whole_and_its_gradient_goes_straight_through() -> None:
    table = torch.nn.Embedding(5, 3)
    words = RelaxedWords(table, torch.tensor([[0.0, 0.2, 0.8, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(words.eval().vectors().detach(), table.weight.detach()[[2, 0]])
    words.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = torch.stack([words.vectors().detach()[0] for _ in range(100)])
    counts = [int(((drawn - table.weight.detach()[token]).abs() < 1e-5).all(dim=1).sum()) for token in range(5)]
    assert counts[0] == counts[3] == counts[4] == 0
    assert 5 < counts[1] < 40
    coefficient = torch.tensor([[1.0, -2.0, 0.5]])
    [gradient] = torch.autograd.grad((words.vectors()[:1] * coefficient).sum(), [words.words])
    torch.testing.assert_close(gradient[0], table.weight.detach() @ coefficient[0])


@pytest.mark.parametrize("attack", [TextualInversion(steps=3, lr=0.1, sampling_steps=2), PromptSearch(steps=3, sampling_steps=2, space="embeddings")])
def test_words_alone_are_learned_and_the_model_is_left_as_it_was(attack: Any) -> None:
    subject = subject_without_three()
    before = bits(subject.unlearned.model)
    curve = pick(attack.measure(subject), metric="knowledge", subject="unlearned")
    assert [f.budget for f in curve] == [0, 3]
    assert curve[0].value != curve[1].value
    assert same_bits(before, bits(subject.unlearned.model))


def test_the_curve_of_textual_inversion_begins_with_the_model_as_it_is() -> None:
    subject = subject_without_three()
    values = subject.value(subject.engine.task.knowledge, "forget", subject.unlearned.model)
    curve = pick(TextualInversion(steps=1, sampling_steps=2).measure(subject), metric="knowledge", subject="unlearned")
    assert curve[0].value == pytest.approx(float(values.mean()), rel=1e-6)


def test_a_short_search_visits_all_timesteps(monkeypatch: pytest.MonkeyPatch) -> None:
    visited: set[int] = set()

    def recorded(self: Denoiser, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        visited.update(timesteps.tolist())
        return noised(self, latents, noise, timesteps)

    noised = Denoiser.noised
    monkeypatch.setattr(Denoiser, "noised", recorded)
    PromptSearch(steps=4, timesteps=2, sampling_steps=2).measure(subject_without_three())
    assert visited == {25, 75}


def test_what_cannot_be_searched_is_said() -> None:
    [fault] = TextualInversion().faults(problem_of("unet"))
    assert "not asked with prompts" in fault.what
    [fault] = PromptSearch(count=4).faults(problem_of("pixel"))
    assert "leave no room" in fault.what
    [fault] = TextualInversion().faults(problem_of("pixel", forget=1))
    assert "no word names the concept" in fault.what
