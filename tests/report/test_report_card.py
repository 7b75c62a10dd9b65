from __future__ import annotations

import re

import yaml

from unlearned.records import AuditRecord
from unlearned.report import model_card

from .conftest import HOSTILE, make, three


def front_matter(text: str) -> dict[str, object]:
    _, head, _ = text.split("---\n", 2)
    data = yaml.safe_load(head)
    assert isinstance(data, dict)
    return data


def test_front_matter_names_tag_and_library(full: AuditRecord, lonely: AuditRecord) -> None:
    assert front_matter(model_card(full)) == {"library_name": "transformers", "tags": ["machine-unlearning"]}
    assert front_matter(model_card(make([], recipe={}))) == {"tags": ["machine-unlearning"]}


def test_verdict_checks_and_numbers_are_in_words(full: AuditRecord) -> None:
    text = model_card(full)
    assert "**FAILED.** The model leaks more about the forget set than a retrained model." in text
    assert "- undecided: relearn: Fewer than two references" in text
    row = next(line for line in text.splitlines() if line.startswith("| utility | accuracy | forget"))
    assert row == "| utility | accuracy | forget | 99.5 % \\[96.5, 100.0\\] | 65.2 % \\[62.2, 68.2\\] | 64.0 % \\[61.0, 67.0\\] | +1.2 pp |"
    assert "relearn: knowledge of the unseen rest rises from 2.0 % to 91.0 % in 50 steps" in text
    assert "name: neggrad-plus, lr: 0.01, alpha: 0.95" in text


def test_the_card_does_not_say_what_was_forgotten(full: AuditRecord) -> None:
    secret = {**full.recipe, "forget": {"description": "name == 'Jane Doe'", "n": 150}}
    text = model_card(full.model_copy(update={"recipe": secret}))
    assert "Jane" not in text
    assert "150 samples, fingerprint 9f86d081884c7d65" in text


def test_limits_name_a_missing_reference(full: AuditRecord, lonely: AuditRecord) -> None:
    assert "The evidence is about what was measured" in model_card(full)
    assert "No model retrained without the forget set was measured" in model_card(lonely)
    assert "No model retrained without the forget set was measured" not in model_card(full)
    assert "No attack with a growing budget was run." in model_card(lonely)


def test_free_text_is_neither_html_nor_markup_nor_cells(hostile: AuditRecord) -> None:
    text = model_card(hostile)
    assert "<" not in text
    assert front_matter(text) == {"tags": ["machine-unlearning"]}
    body = text.split("---\n", 2)[2]
    table = [line for line in body.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {8, 3}
    assert not re.search(r"(?<!\\)`", body)
    assert "a\\|b \\`c\\`" in body
    assert len(HOSTILE) <= body.count("\\[red\\]x\\[/red\\]")


def test_a_link_in_free_text_is_not_clickable() -> None:
    text = model_card(make(three("https://evil.example [x](http://evil.example)\n# head", "m", "s", (0.1, 0.2, 0.3))))
    assert "://" not in text
    assert "](" not in text
    assert not re.search(r"^# head", text, re.MULTILINE)
