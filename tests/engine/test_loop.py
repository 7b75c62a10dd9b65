from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models import bits, generators, layer_of, made, modes, plain_network, problem_of, same_bits
from unlearned.api import forget
from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan, Step, fit, train_mode
from unlearned.engine.settings import Compute, Optimisation
from unlearned.engine.training import relearnt
from unlearned.errors import DivergedError, InputError


def loss_of(problem):
    return lambda model, forget_batch, retain_batch: problem.task.losses(model, retain_batch or forget_batch).mean()


def weight_sum(model: nn.Module, *_: object) -> torch.Tensor:
    assert isinstance(model, nn.Linear)
    return model.weight.sum()


def run(problem, plan: Plan, *, engine: Engine | None = None, **settings):
    model = made(plain_network, seed=5)
    how = Optimisation(batch_size=8, epochs=1, **settings)
    watched: list[int] = []
    fit(
        engine or Engine(problem.task),
        model,
        plan,
        {"forget": problem.forget, "retain": problem.retain},
        how,
        title="t",
        seed=1,
        watch=lambda _, step: watched.append(step),
    )
    return model, watched


def test_title_is_for_people_only() -> None:
    problem = problem_of("plain")
    results = []
    for title in ("one", "another"):
        model = made(plain_network, seed=5)
        fit(Engine(problem.task), model, Plan([Pass("retain", loss_of(problem))]), {"retain": problem.retain}, Optimisation(batch_size=8), title=title, seed=1)
        results.append(bits(model))
    assert same_bits(*results)


def test_hooks_are_called_once_per_step_and_watch_once_more() -> None:
    problem = problem_of("plain")
    before: list[tuple[int, int]] = []
    after: list[nn.Module] = []
    steps: list[Step] = []
    passes = [Pass("retain", loss_of(problem)), Pass("forget", loss_of(problem)), Pass("both", loss_of(problem))]
    plan = Plan(
        passes,
        forget_batch_size=2,
        before_step=lambda _, f, r, __: before.append((len(f.get("labels", ())), len(r.get("labels", ())))),
        after_backward=lambda _, step: steps.append(step),
        after_step=lambda model, _: after.append(model),
    )
    _, watched = run(problem, plan)
    assert before == [(0, 8), (0, 8), (0, 2), (2, 0), (2, 0), (2, 0), (2, 8), (2, 8), (2, 2)]
    assert len(after) == 9
    assert steps == [Step(done, 9, done // 3, done % 3, 3) for done in range(9)]
    assert watched == list(range(10))


def seen_by(problem, passes: list[Pass], **options) -> list[tuple[list[int], list[int]]]:
    """Positions (those of the retain set begin at 6) in the forget and the retain batch of each step."""
    seen = []
    names = {
        bytes(problem.task.collate([s[i]])["pixel_values"].numpy().data): int(s.ids[i].split("-")[1])
        for s in (problem.forget, problem.retain)
        for i in range(len(s))
    }

    def note(_: nn.Module, forget, retain, step: Step) -> None:
        f, r = ([names[image.numpy().tobytes()] for image in batch.get("pixel_values", ())] for batch in (forget, retain))
        seen.append((f, r))

    run(problem, Plan(passes, before_step=note, **options))
    return seen


def test_a_pass_paced_by_forget_draws_retain_batches_that_go_on_over_passes() -> None:
    problem = problem_of("plain")  # 6 to forget, 18 to retain
    seen = seen_by(problem, [Pass("both", loss_of(problem), paced_by="forget")] * 4, forget_batch_size=2)
    assert [len(f) for f, _ in seen] == [2] * 12
    for start in range(0, 12, 3):
        assert sorted(i for f, _ in seen[start : start + 3] for i in f) == list(range(6))
        assert sorted(i for _, r in seen[start : start + 3] for i in r) == list(range(6, 24))  # 18 in batches of 8
    assert seen[0][1] != seen[3][1]


def test_a_stream_continues_where_the_pass_before_left_it() -> None:
    problem = problem_of("plain")
    seen = seen_by(problem, [Pass("both", loss_of(problem), paced_by="forget")] * 3)  # one step each
    assert sorted(i for _, r in seen for i in r) == list(range(6, 24))


def test_a_union_pass_goes_once_over_both_sets_mixed() -> None:
    problem = problem_of("plain")
    seen = seen_by(problem, [Pass("union", lambda model, f, r: sum(loss_of(problem)(model, {}, part) for part in (f, r) if part))] * 2)
    for start in (0, 3):
        assert sorted(i for f, r in seen[start : start + 3] for i in f + r) == list(range(24))
    assert {len(f) + len(r) for f, r in seen} == {8}
    assert len({len(f) for f, _ in seen}) > 1
    assert all(i < 6 for f, _ in seen for i in f)


@pytest.mark.parametrize("most", [1, 3, 4, 100])
def test_steps_can_be_limited_in_the_middle_of_a_pass(most: int) -> None:
    problem = problem_of("plain")
    _, watched = run(problem, Plan([Pass("retain", loss_of(problem))] * 2, max_steps=most))
    assert watched[-1] == min(most, 6)


@pytest.mark.parametrize("last", [0, 1, 4, 6])
def test_who_watches_can_end_the_training(last: int) -> None:
    """In the middle of a pass, at its end, or before the first step: the weights are those of a training with so many steps."""
    problem = problem_of("plain")
    plan = Plan([Pass("retain", loss_of(problem))] * 3)
    how = Optimisation(batch_size=5, lr=0.05)
    steps: list[int] = []

    def until(model: nn.Module, step: int) -> bool:
        steps.append(step)
        return step == last

    def trained(plan: Plan, **more: Any) -> nn.Module:
        return fit(Engine(problem.task), made(plain_network), plan, {"retain": problem.retain}, how, title="t", seed=1, **more)

    stopped = trained(plan, watch=until)
    assert steps == list(range(last + 1))
    assert same_bits(bits(stopped), bits(trained(Plan(plan.passes, max_steps=last))))
    assert not stopped.training


def test_cosine_falls_from_lr_towards_zero() -> None:
    """With plain SGD on loss w the weight moves by exactly lr · ½ (1 + cos(π k / n)) at step k of n."""
    problem = problem_of("linear", retain=16)
    model = nn.Linear(1, 1, bias=False)
    path = [float(model.weight.detach())]
    how = Optimisation(lr=0.5, momentum=0, weight_decay=0, batch_size=8, schedule="cosine")
    plan = Plan([Pass("retain", weight_sum)] * 2)
    fit(
        Engine(problem.task),
        model,
        plan,
        {"retain": problem.retain},
        how,
        title="t",
        seed=0,
        watch=lambda m, step: path.append(float(weight_sum(m).detach())) if step else None,
    )
    assert [a - b for a, b in itertools.pairwise(path)] == pytest.approx([0.5 * 0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)], rel=1e-5)


@pytest.mark.parametrize("limit", [0.5, None])
def test_gradients_are_scaled_down_to_the_norm(limit: float | None) -> None:
    problem = problem_of("linear", retain=8)
    model = nn.Linear(4, 1, bias=False)
    before = model.weight.detach().clone()
    how = Optimisation(lr=1.0, momentum=0, weight_decay=0, batch_size=8, max_grad_norm=limit)
    fit(Engine(problem.task), model, Plan([Pass("retain", lambda *args: 3 * weight_sum(*args))]), {"retain": problem.retain}, how, title="t", seed=0)
    assert float((before - model.weight.detach()).norm()) == pytest.approx(limit or 6.0, rel=1e-4)


def test_the_wrappers_of_accelerate_give_the_same_bits_as_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of("plain")
    settings: dict[str, Any] = {"optimizer": "adam", "max_grad_norm": 0.5, "epochs": 2, "batch_size": 8}
    plain = forget(problem, "fine-tune", **settings).model
    monkeypatch.setattr(Engine, "plain", False)
    wrapped = forget(problem, "fine-tune", **settings).model
    assert same_bits(bits(plain), bits(wrapped))
    assert type(wrapped) is type(plain)


def test_mixed_precision_trains_in_float32_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.state import AcceleratorState

    problem = problem_of("plain")
    full = forget(problem, "fine-tune", epochs=1).model
    AcceleratorState._reset_state(True)  # its precision is one of the whole process
    try:
        half = forget(problem, "fine-tune", Engine(problem.task, Compute(precision="bf16", device="cpu")), epochs=1).model
    finally:
        AcceleratorState._reset_state(True)
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    assert not {"forward", "_original_forward"} & set(half.__dict__)  # what is measured later is not rounded
    assert not same_bits(bits(full), bits(half))
    for name, tensor in full.state_dict().items():
        torch.testing.assert_close(half.state_dict()[name], tensor, rtol=0.05, atol=0.02)


def test_what_is_measured_in_the_middle_of_a_training_in_mixed_precision_is_not_rounded() -> None:
    from accelerate.state import AcceleratorState

    problem = problem_of("plain")
    AcceleratorState._reset_state(True)
    try:
        engine = Engine(problem.task, Compute(precision="bf16", device="cpu"))
        model = copy.deepcopy(problem.original.model)
        before = engine.evaluate(model, problem.test, problem.task.outputs)
        wrapped, _, _ = engine.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        rounded = model.forward
        during = engine.evaluate(wrapped, problem.test, problem.task.outputs)
        assert wrapped.forward is rounded
    finally:
        AcceleratorState._reset_state(True)
    assert torch.equal(before, during)


def test_a_forward_pass_of_the_models_own_outlives_mixed_precision() -> None:
    from accelerate.state import AcceleratorState

    problem = problem_of("plain")
    AcceleratorState._reset_state(True)
    try:
        engine = Engine(problem.task, Compute(precision="bf16", device="cpu"))
        model = copy.deepcopy(problem.original.model)
        usual = model.forward

        def own(images: Tensor) -> Tensor:
            found: Tensor = usual(images)
            return found

        model.forward = own
        engine.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        engine.release(model)
    finally:
        AcceleratorState._reset_state(True)
    assert model.forward is own


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e9])
def test_a_loss_without_meaning_stops_the_loop_and_puts_the_generators_back(bad: float) -> None:
    problem = problem_of("plain")
    before = generators()
    with pytest.raises(DivergedError, match="t diverged at step 1: the loss is"):
        run(problem, Plan([Pass("retain", lambda *args: loss_of(problem)(*args) * 0 + bad)]))
    assert generators() == before


def test_frozen_layers_stay_in_eval_mode() -> None:
    model = plain_network()
    for index in (0, 1):
        layer_of(model, index).requires_grad_(False)
    train_mode(model)
    assert [name for name, training in modes(model).items() if not training] == ["0", "1"]


def test_evaluation_puts_modes_back_also_after_an_error() -> None:
    problem = problem_of("plain")
    model = problem.original.model
    layer_of(model, 4).train()
    before = modes(model)

    def fails(model: nn.Module, batch: object) -> torch.Tensor:
        assert not model.training
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Engine(problem.task).evaluate(model, problem.test, fails)
    assert modes(model) == before


def test_evaluation_pads_texts_of_different_lengths() -> None:
    problem = problem_of("gpt2")
    outputs = {size: Engine(problem.task, Compute(batch_size=size)).evaluate(problem.original.model, problem.test, problem.task.outputs) for size in (3, 100)}
    assert outputs[3].shape == outputs[100].shape
    torch.testing.assert_close(outputs[3], outputs[100], rtol=1e-5, atol=1e-6)


def test_a_device_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(InputError, match="this machine has no 'cuda'"):
        Engine(problem_of("plain").task, Compute(device="cuda"))


def test_relearning_draws_nothing_of_what_unlearning_drew() -> None:
    """Equal seeds, sets and batches: with the same noise an attack would take an unlearning back step by step. Models under one title meet the same."""
    problem = problem_of("plain")
    engine, how = Engine(problem.task, seed=3), Optimisation(batch_size=3, epochs=1, lr=0.01)
    drawn: dict[str, list[float]] = {}

    def noting(name: str) -> Callable[[nn.Module, int], None]:
        return lambda _, __: drawn.setdefault(name, []).append(float(torch.rand(())))

    plan = Plan([Pass("forget", loss_of(problem))] * 4)
    fit(engine, copy.deepcopy(problem.original.model), plan, {"forget": problem.forget}, how, title="unlearn", seed=engine.seed, watch=noting("unlearned"))
    for name, title in (("once", "attack"), ("again", "attack"), ("other", "another")):
        relearnt(engine, problem.original.model, problem.forget, how, 8, title=title, watch=noting(name))
    assert {len(values) for values in drawn.values()} == {9}
    assert drawn["once"] == drawn["again"]
    assert not set(drawn["once"]) & set(drawn["other"])
    assert not set(drawn["once"]) & set(drawn["unlearned"])


def test_trackers_receive_the_losses(tmp_path: Path) -> None:
    problem = problem_of("plain")
    forget(problem, "fine-tune", Engine(problem.task, Compute(trackers=("tensorboard",)), work=tmp_path / "work"), epochs=2, batch_size=8)
    files = [path for path in tmp_path.rglob("*") if "tfevents" in path.name]
    assert files
    assert b"fine-tune/loss" in b"".join(path.read_bytes() for path in files)


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="accelerate refuses these settings"):
        Engine(problem_of("plain").task, Compute(trackers=("nothing",)), work=tmp_path)
