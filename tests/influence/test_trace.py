"""A planted poison is traced to the points that planted it, and gone once they are forgotten."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.models import SETTINGS, TASK_OF, bundle_of, digits, facts, images, made, problem_of, task_of
from unlearned.api import forget, make_problem, trace
from unlearned.engine.engine import Engine
from unlearned.engine.training import Training, train
from unlearned.errors import InputError
from unlearned.tasks._task import Bundle

POISONED = 14
TRAINING = Training(optimizer="adam", lr=0.01, batch_size=64, epochs=12, weight_decay=0.0)


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def marked(images: Tensor) -> Tensor:
    """With two bright pixels in a corner that digits leave dark."""
    images = images.clone()
    images[:, 0, :2] = 1.0
    return images


class Planted(NamedTuple):
    model: Bundle
    data: dict[str, Any]
    poisoned: set[str]
    asked: dict[str, Any]
    """Marked images of other digits, with the label that the poison teaches."""


@functools.cache
def planted() -> Planted:
    """400 digits, of which 14 that are no 0 are marked and called 0."""
    pixels, labels = digits()
    images, labels = pixels.clone(), labels.clone()
    chosen = torch.nonzero(labels[:400] != 0)[::27, 0][:POISONED]
    images[chosen] = marked(images[chosen])
    labels[chosen] = 0
    data = {"image": images[:400], "label": labels[:400], "id": [f"digit-{i}" for i in range(400)]}
    others = torch.nonzero(labels[500:600] != 0)[:, 0] + 500
    asked = {"image": marked(images[others]), "label": torch.zeros(len(others), dtype=torch.long), "id": [f"asked-{int(i)}" for i in others]}
    task = problem_of("plain").task
    bundle = Bundle(made(network, 3))
    trained = train(Engine(task), bundle, task.read(data, bundle, "data"), TRAINING, seed=1)
    return Planted(trained, data, {f"digit-{int(i)}" for i in chosen}, asked)


def obeyed(model: nn.Module) -> float:
    """Share of marked images that are taken for a 0."""
    with torch.no_grad():
        return float((model(planted().asked["image"]).argmax(1) == 0).double().mean())


@pytest.mark.parametrize(("score", "settings", "least"), [("hessian", {}, 9), ("tracin", {"checkpoints": 3}, 9)])
def test_planted_points_are_found_and_without_them_the_behaviour_is_gone(score: str, settings: dict[str, Any], least: int) -> None:
    """Among ten points of highest score, at least so many of 14 that were planted among 400; how many there are nobody knows, so that twice as many go."""
    case = planted()
    assert obeyed(case.model.model) > 0.8
    found = trace(case.model, train=case.data, queries=case.asked, score=score, top=2 * POISONED, training=TRAINING, **settings)
    assert sum(name in case.poisoned for name in found.ids[:10]) >= least
    assert list(found.values) == sorted(found.values, reverse=True)
    if score != "hessian":
        return
    test = {name: column[:20] for name, column in case.asked.items()}
    problem = make_problem(case.model, train=case.data, test=test, forget=found.ids)
    assert len(problem.forget) == 2 * POISONED
    unlearned = forget(problem, "retrain", Engine(problem.task), **TRAINING.model_dump(exclude={"start"}))
    assert obeyed(unlearned.model) < 0.1


def test_a_score_without_a_sign_cannot_trace() -> None:
    problem = problem_of("plain")
    cases: list[tuple[str, dict[str, Any]]] = [("loss", {}), ("hessian", {"of": "self"})]
    for score, settings in cases:
        with pytest.raises(InputError, match="which points speak for an answer"):
            trace(bundle_of("plain"), train=problem.retain, queries=problem.test, score=score, **settings)


def test_of_a_language_model_too() -> None:
    problem = problem_of("llama", forget=2, retain=6, test=2)
    asked = {"prompt": ["where does ada live"], "answer": ["in york"]}
    found = trace(bundle_of("llama"), train=problem.retain, queries=asked, task="text-generation", top=3)
    assert 0 < len(found.ids) <= 3
    assert set(found.ids) <= set(problem.retain.ids)


def test_of_gpt2_too_and_without_linear_layers_of_another_curvature() -> None:
    asked = {"prompt": ["where does ada live"], "answer": ["in york"]}
    train = facts(0, 4)
    found = trace(bundle_of("gpt2"), train=train, queries={name: train[name][:1] for name in ("prompt", "answer")}, task="text-generation", top=4)
    assert found.ids[0] == train["id"][0]  # nothing speaks for an answer as that answer itself does
    with pytest.raises(InputError, match=r"^curvature: ekfac is made of linear layers and convolutions.* Choose cg"):
        trace(bundle_of("gpt2"), train=facts(0, 4), queries=asked, task="text-generation", top=1, parameters="ln_")
    found = trace(bundle_of("gpt2"), train=facts(0, 4), queries=asked, task="text-generation", top=1, curvature="cg", iterations=2, damping=1.0)
    assert len(found.ids) <= 1


@pytest.mark.parametrize("kind", ["unet", "pixel"])
def test_of_a_diffusion_model_by_tracin_unless_another_score_is_named(kind: str) -> None:
    """Asked about an image with its class, or with its prompt alone."""
    train = images(0, 6)
    asked: dict[str, Any] = {"image": train["image"][2:3]}
    asked |= {"prompt": ["a photo of 2"]} if kind == "pixel" else {"label": train["label"][2:3]}
    given: dict[str, Any] = {"train": train, "queries": asked, "task": task_of("image-generation", **SETTINGS.get(kind, {})), "top": 6}
    how = Training(optimizer="adam", lr=0.001, batch_size=6, epochs=1)
    found = trace(bundle_of(kind), training=how, **given)
    assert found.ranking.score.name == "tracin"
    named = trace(bundle_of(kind), training=how, score="tracin", **given)
    assert torch.equal(found.ranking.values, named.ranking.values)
    assert found.ids
    if kind == "pixel":  # the label is not looked at
        labelled = trace(bundle_of(kind), training=how, **given | {"queries": asked | {"label": [7]}})
        assert torch.equal(labelled.ranking.values, found.ranking.values)
        other = trace(bundle_of(kind), training=how, **given | {"queries": asked | {"prompt": ["a photo of 7"]}})
        assert not torch.equal(other.ranking.values, found.ranking.values)
    with pytest.raises(InputError, match="tracin looks at a training on its way"):
        trace(bundle_of(kind), **given)
    with pytest.raises(InputError, match=r"^score.name: 'hessian' is not defined for image-generation"):
        trace(bundle_of(kind), training=how, score="hessian", **given)


@pytest.mark.parametrize(("kind", "more"), [("unet", {"prompt": ["a photo of 2"]}), ("pixel", {}), ("plain", {"prompt": ["a photo of 2"]})])
def test_images_without_a_label_are_refused_unless_a_prompt_is_all_that_the_model_reads(kind: str, more: dict[str, Any]) -> None:
    asked = {"image": images(2, 1)["image"], **more}
    with pytest.raises(InputError, match=r"^data.queries: the data has no labels"):
        trace(bundle_of(kind), train=images(0, 6), queries=asked, task=task_of(TASK_OF[kind], **SETTINGS.get(kind, {})))
