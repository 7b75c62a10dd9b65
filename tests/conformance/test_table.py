from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.table import ATTACKS, AUDITS, METHODS, Row
from unlearned.attacks import attacks
from unlearned.audits import audits
from unlearned.methods import methods
from unlearned.registry import Registry
from unlearned.tasks import tasks

ROOMS = [pytest.param(registry, rows, id=registry.kind) for registry, rows in ((methods, METHODS), (audits, AUDITS), (attacks, ATTACKS))]


@pytest.mark.parametrize(("registry", "rows"), ROOMS)
def test_every_part_has_a_row_on_every_task_that_it_is_defined_for(registry: Registry[Any], rows: list[Row]) -> None:
    wanted = {(name, task) for name in registry for task in registry.get(name).tasks or tasks.names()}
    assert {(row.name, row.task) for row in rows} == wanted


def test_titles_are_unique() -> None:
    titles = [row.title for row in (*METHODS, *AUDITS, *ATTACKS)]
    assert len(titles) == len(set(titles))
