from __future__ import annotations

import re
from pathlib import Path

import pytest

from unlearned.data.filters import column_names, select
from unlearned.data.samples import ColumnRows, Samples
from unlearned.errors import InputError

LABELS = [0, 1, 2, 3, 3, 4]
SITES = ["n", "s", "n", "s", "n", "s"]
DATA = Samples(ColumnRows({"x": list(range(6))}), list("abcdef"), {"label": LABELS, "site": SITES, "score": [0.5, None, 1.5, 2.5, 0.1, 9.0]})


@pytest.mark.parametrize(
    "where",
    [
        "label == 3",
        "label != 3",
        "1 < label <= 3",
        "label >= 2 and site == 'n'",
        "label == 0 or label == 4 and site == 'n'",
        "(label == 0 or label == 4) and site == 's'",
        "not label == 3 and site == 's'",
        "not (label == 3 or site == 's')",
        "label in [0, 4]",
        "label not in (0, 4)",
        'site in {"n"} or label == 1',
        "label == -1 or label > 2",
        "3 == label",
        "score == None",
        "id == 'c' or id == 'f'",
    ],
)
def test_filters_mean_what_they_mean_in_python(where: str) -> None:
    names = list("abcdef")
    rows = [{"label": LABELS[i], "site": SITES[i], "score": DATA.facts["score"][i], "id": names[i]} for i in range(6)]
    expected = [i for i, row in enumerate(rows) if eval(where, {}, row)]
    assert select(DATA, where, "forget") == expected
    assert 0 < len(expected) < 6


@pytest.mark.parametrize(
    "where",
    [
        "",
        "label ==",
        "label = 3",
        "label",
        "3",
        "True",
        "label + 1 == 2",
        "len(site) == 1",
        "site.upper() == 'N'",
        "label is 3",
        "[x for x in label]",
        "label if site else site",
        "lambda: label",
        "label == f'{site}'",
    ],
)
def test_anything_but_comparisons_is_refused(where: str) -> None:
    with pytest.raises(InputError, match=r"^forget: "):
        select(DATA, where, "forget")


def test_unknown_columns_and_values_without_order_are_refused() -> None:
    with pytest.raises(InputError, match=r"the filter uses a name that is no column\. .*Columns of this data: id, label, score, site"):
        select(DATA, "colour == 1", "forget")
    with pytest.raises(InputError, match="the filter uses 2 names that are no columns"):
        select(DATA, "colour == 1 or size == 2", "forget")
    with pytest.raises(InputError, match="different kinds"):
        select(DATA, "score < 1", "forget")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("label == '3'", "'label', which holds no text, with text. Leave the quotes out"),
        ("label in ['3', '4'] and site == 'north'", "'label', which holds no text, with text. Leave the quotes out"),
        ("'3' == label", "'label', which holds no text, with text. Leave the quotes out"),
        ("site == 3", "'site', which holds text, with something else. Put quotes around text"),
    ],
)
def test_text_is_not_compared_with_numbers_without_a_word(where: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        select(DATA, where, "forget")


def test_the_column_of_the_names_is_named_where_there_is_one() -> None:
    data = Samples(ColumnRows({"x": [0, 1]}), None, {"label": [0, 1], "label_name": ["kiwi", "lemon"]})
    with pytest.raises(InputError, match="The names are in 'label_name'"):
        select(data, "label == 'kiwi'", "forget")


def test_values_that_merely_do_not_occur_choose_nothing() -> None:
    assert select(DATA, "label == 99 or site == 'nowhere' or site == None", "forget") == []
    assert select(DATA, "label == '3' or label == 3", "forget") == [3, 4]


@pytest.mark.parametrize(
    "where",
    [
        "__import__('os').system('touch MARK') == 0",
        "label == __import__('pathlib').Path('MARK').touch()",
        "label in [open('MARK', 'w')]",
        "().__class__.__base__ == 1",
        "label == (lambda: open('MARK', 'w'))()",
    ],
)
def test_no_code_runs(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        select(DATA, where, "forget")
    assert list(tmp_path.iterdir()) == []


def test_only_the_names_of_columns_are_told() -> None:
    assert column_names("name == 'Ada Lovelace' and label == 3") == ["label", "name"]
    assert column_names("((") == []
