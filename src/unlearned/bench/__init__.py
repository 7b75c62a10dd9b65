"""Suites that reproduce a paper's experiment and print it beside the paper's numbers; one file per suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlearned.registry import Registry

if TYPE_CHECKING:
    from unlearned.bench._suite import Suite

suites: Registry[Suite] = Registry("suite", "unlearned.bench", "unlearned.bench._suite:Suite")
