"""Settings that do not fit a problem."""

from __future__ import annotations

from typing import Any

import pytest

from unlearned.api import forget
from unlearned.engine.engine import Engine
from unlearned.errors import InputError
from unlearned.methods import methods
from unlearned.problem import Problem


def refused(problem: Problem, name: str, match: str, **settings: Any) -> None:
    """What the method refuses when it is carried out is found when it is asked before any work, too."""
    with pytest.raises(InputError, match=match) as error:
        forget(problem, name, **settings)
    found = methods.get(name)(**settings).faults(problem, Engine(problem.task))
    assert set(error.value.faults) <= set(found)
