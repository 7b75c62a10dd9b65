"""Rows of generated images, put beside each other set by set."""

from __future__ import annotations

from typing import NamedTuple

from unlearned.records import AuditRecord, Picture
from unlearned.report import words


class Shown(NamedTuple):
    """A row and what is written beside it."""

    label: str
    alternative: str
    picture: Picture


def pictures(record: AuditRecord) -> dict[str, list[Shown]]:
    """Rows by set; in each the models as they are come first, then the same after each attack."""
    sets: dict[str, list[Shown]] = {}
    for picture in sorted(record.pictures, key=lambda row: row.after is not None):
        name = picture.split.removesuffix("-rest")
        label = words.SUBJECTS[picture.subject] + (f", after {picture.after}" if picture.after else "")
        count = f"{picture.count} generated images" if picture.count > 1 else "One generated image"
        sets.setdefault(name, []).append(Shown(label, f"{count}: {label}.", picture))
    return sets
