from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.models import bits, problem_of, same_bits
from unlearned.api import forget
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import generator_states, restore_generators
from unlearned.engine.settings import Compute

EAGER = Compute(checkpoint_seconds=0)
SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 8}


def test_a_checkpoint_of_another_training_is_not_continued(tmp_path: Path) -> None:
    problem = problem_of("plain")
    clean = bits(forget(problem, "gradient-ascent", Engine(problem.task), **SHORT).model)
    engine = Engine(problem.task, EAGER, work=tmp_path)
    forget(problem, "fine-tune", engine, **SHORT)
    assert list((tmp_path / "checkpoints" / "unlearn").iterdir())  # it left its state behind
    assert same_bits(bits(forget(problem, "gradient-ascent", engine, **SHORT).model), clean)


def test_all_global_generators_continue_where_they_were() -> None:
    for seed in (3, 4):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        random.gauss(0, 1)
        np.random.standard_normal()  # one of a pair: the other is kept for the next call
        states = generator_states()
        first = random.gauss(0, 1), random.random(), np.random.standard_normal(), np.random.rand(), torch.rand(1).item()
        random.seed(9)
        np.random.seed(9)
        torch.manual_seed(9)
        restore_generators(states)
        assert first == (random.gauss(0, 1), random.random(), np.random.standard_normal(), np.random.rand(), torch.rand(1).item())
