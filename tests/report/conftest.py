"""Audit records made by hand: one as a run writes it, one without a reference, and one whose every free text is hostile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from unlearned.comparing import compare
from unlearned.records import (
    NO_REFERENCE,
    Answer,
    AuditRecord,
    Check,
    CompareRecord,
    Cost,
    Environment,
    Finding,
    Holes,
    Probe,
    Said,
    SetSummary,
    SubjectName,
    Trace,
    Trial,
    Verdict,
)

from .chromium import Browser, find

SUBJECTS: tuple[SubjectName, ...] = ("original", "unlearned", "reference")
HOSTILE = (
    "[red]x[/red]",
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</script><script>document.title='owned'</script>",
    "{{7*7}}",
    "a|b `c` <b>d</b>",
)
ENVIRONMENT = Environment(
    unlearned="0.1.0", python="3.11.7", platform="Linux-6.1-x86_64", packages={"torch": "2.9.1", "numpy": "2.3.4"}, device="cpu", threads=2
)
PROBLEM = {
    "forget": SetSummary(n=150, fingerprint="9f86d081884c7d65"),
    "retain": SetSummary(n=1200, fingerprint="60303ae22b998861"),
    "test": SetSummary(n=500, fingerprint="fd61a03af4f77d87"),
}


def three(audit: str, metric: str, split: str, values: tuple[float, ...], unit: str = "share", half: float | None = 0.015, **more: Any) -> list[Finding]:
    """The same measurement of the original, the unlearned and (with a third value) the retrained model."""
    found = []
    for subject, value in zip(SUBJECTS, values, strict=False):
        known: dict[str, Any] = {"n": 3, "interval": "t 95 % over 3 seeds"} if subject == "reference" else {"n": 200, "interval": "Wilson 95 %"}
        if half is None:
            known["interval"] = None
        else:
            ends = (value - half, value + half)
            known |= {"low": max(0.0, ends[0]), "high": min(1.0, ends[1])} if unit == "share" else {"low": ends[0], "high": ends[1]}
        if subject != "reference":
            known |= {"gap": value - values[2]} if len(values) == 3 else {"reason": NO_REFERENCE}
        found.append(Finding(audit=audit, metric=metric, split=split, subject=subject, value=value, unit=unit, **known, **more))
    return found


SPLITS = ("forget", "retain", "test")
STEPS = (0, 5, 10, 20, 50)


def curve(
    values: dict[SubjectName, list[float]], audit: str = "relearn", budgets: tuple[float, ...] = STEPS, budget_unit: str = "steps", **more: Any
) -> list[Finding]:
    found = []
    for subject, points in values.items():
        for budget, value in zip(budgets, points, strict=True):
            gap = None if subject == "reference" or "reference" not in values else value - values["reference"][budgets.index(budget)]
            place: dict[str, Any] = {"audit": audit, "kind": "attack", "metric": "knowledge", "split": "forget-rest", "n": 150, "unit": "share"}
            found.append(
                Finding(
                    subject=subject, value=value, low=max(0.0, value - 0.04), high=min(1.0, value + 0.04), interval="bootstrap 95 %", direction="lower",
                    gap=gap, reason=NO_REFERENCE if gap is None and subject != "reference" else None, budget=budget, budget_unit=budget_unit, **(place | more),
                )
            )  # fmt: skip
    return found


def make(findings: list[Finding], **parts: Any) -> AuditRecord:
    checks = (
        Check(
            name="forget-accuracy", passed=True, words="Accuracy on the forget set is 1.2 points from the retrained model, at most 5 are allowed.", value=0.012
        ),
        Check(name="membership", passed=False, words="Membership AUC is 0.07 from the retrained model, at most 0.05 is allowed.", value=0.07, limit=0.05),
        Check(name="relearn", passed=None, words="Fewer than two references were given, so that the spread is unknown."),
    )
    standard: dict[str, Any] = {
        "verdict": Verdict(status="failed", headline="The model leaks more about the forget set than a retrained model.", checks=checks),
        "environment": ENVIRONMENT,
        "recipe": {
            "task": "image-classification",
            "model": "models/digits",
            "library_name": "transformers",
            "forget": {"description": "label == 3", "n": 150},
            "method": {"name": "neggrad-plus", "lr": 0.01, "alpha": 0.95},
            "references": 3,
            "seed": 0,
        },
        "sets": PROBLEM,
        "costs": {
            "unlearned": Cost(wall_seconds=2.31, cpu_seconds=4.4, peak_memory_bytes=512 * 2**20, samples_seen=3000, steps=47),
            "reference": Cost(wall_seconds=14.2, cpu_seconds=27.9, peak_memory_bytes=520 * 2**20, samples_seen=48000, steps=750),
        },
        "findings": tuple(findings),
    }
    return AuditRecord(**(standard | parts))


def findings(strength: float = 0.0) -> list[Finding]:
    """What a run with references and an attack writes; `strength` moves the unlearned model away from the retrained one."""
    ratios = {"wall_seconds_ratio": 0.163, "cpu_seconds_ratio": 0.2 + strength}
    ratio: dict[str, Any] = {"split": "all", "subject": "unlearned", "n": 1, "unit": "ratio", "direction": "lower", "reason": "a ratio to the reference"}
    rising = [0.02, 0.35, 0.62, 0.84, 0.91]
    return [
        *three("utility", "accuracy", "forget", (0.995, 0.652 - 0.6 * strength, 0.64), half=0.03),
        *three("utility", "accuracy", "retain", (0.998, 0.981 - 0.3 * strength, 0.997), half=0.006),
        *three("utility", "accuracy", "test", (0.968, 0.949 - 0.4 * strength, 0.962)),
        Finding(audit="utility", metric="average_gap", split="all", subject="unlearned", value=0.0137, n=3, unit="share", gap=0.0137),
        Finding(audit="utility", metric="tug_of_war", split="all", subject="unlearned", value=0.96, n=3, unit="share", direction="higher", gap=-0.04),
        *three("output-distance", "total_variation", "forget", (0.41, 0.12 + 0.5 * strength, 0.09), half=0.02),
        *three("output-distance", "total_variation", "retain", (0.02, 0.04, 0.015), half=0.004),
        *three("output-distance", "total_variation", "test", (0.05, 0.06, 0.04), half=0.01),
        *three("membership", "auc", "forget", (0.71, 0.43 + 0.2 * strength, 0.5), unit="", half=0.03),
        *three("membership", "tpr_at_1pct_fpr", "forget", (0.06, 0.004, 0.011), half=0.004),
        *three("svc-mia", "nonmember_share", "forget", (0.12, 0.63, 0.52), half=0.04),
        Finding(
            audit="membership", metric="tpr_at_0.1pct_fpr", split="forget", subject="unlearned", value=None, n=200, unit="share", reason="needs 1000 samples"
        ),
        *[Finding(audit="cost", metric=metric, value=value, **ratio) for metric, value in ratios.items()],
        *three("neuron-census", "dead_units", "all", (3, 17, 4), unit="units", half=None, direction="none"),
        *curve({"original": [0.99] * 5, "unlearned": [(1 - strength) * value for value in rising], "reference": [0.01, 0.02, 0.04, 0.07, 0.1]}),
    ]


def further(strength: float = 0.0) -> list[Finding]:
    """What audits and attacks of other kinds write: budgets that are no steps, a single budget, no budget at all, many metrics, and an unknown audit."""
    left = 1 - strength
    return [
        *three("u-lira", "auc", "forget", (0.9, 0.5 + 0.2 * strength, 0.5), unit="", half=0.03),
        *three("u-lira", "accuracy", "forget", (0.8, 0.52, 0.5), half=0.03),
        *three("rmia", "auc", "forget", (0.85, 0.55, 0.5), unit="", half=0.03),
        *three("klom", "klom", "forget", (4.0, 0.3 + strength, 0.1), unit="nats", half=0.05, direction="lower"),
        *[f for q in (5, 25, 50, 75, 95) for split in SPLITS for f in three("klom", f"percentile_{q}", split, (q, q / 9, q / 30), unit="")],
        *three("neurips-score", "epsilon", "forget", (30.0, 3 + 9 * strength, 2.0), unit="", half=None, direction="lower"),
        *three("zrf", "zrf", "forget", (0.6, 0.9, 0.88)),
        *three("relearn-time", "steps_to_original", "forget", (0, 12, 40), unit="steps", half=None),
        *three("brain-scan", "echo", "forget", (0.7, 0.2, 0.1)),
        *three("brain-scan", "echo", "test", (0.7, 0.6, 0.6)),
        *three("probe-once", "knowledge", "forget", (0.9, 0.3 * left, 0.1), kind="attack"),
        *curve(
            {"original": [0.99, 0.98, 0.9, 0.3], "unlearned": [0.02, 0.1 * left, 0.3 * left, 0.1], "reference": [0.01, 0.02, 0.02, 0.05]},
            "prune", (0.0, 0.3, 0.6, 0.9), "share pruned", split="forget",
        ),
        *curve({"unlearned": [0.7 * left, 0.2, 0.02], "reference": [0.03, 0.02, 0.01]}, "quantize", (3, 4, 8), "bits", split="forget"),
        *curve({"unlearned": [0.4 * left], "reference": [0.02]}, "quantize-once", (4,), "bits", split="forget"),
        *curve(
            {"original": [0.9, 0.95, 0.99, 0.99], "unlearned": [0.1, 0.4 * left, 0.6 * left, 0.8], "reference": [0.1, 0.12, 0.2, 0.4]},
            "linear-probe", (10, 30, 100, 1000), "samples", split="forget", metric="accuracy",
        ),
    ]  # fmt: skip


def asked(split: str, question: str | None, answer: str | None, tokens: tuple[str, ...] | None, texts: dict[Any, str | None]) -> list[Answer]:
    """A question; with each model it becomes less likely that the answer is the true one."""
    models = {
        who: Said(text=text, recall=0.5**i, declines=i > 0, probabilities=(1.0, 0.97 * 0.04**i, 0.9)[: len(tokens or (1, 2, 3))])
        for i, (who, text) in enumerate(texts.items())
    }
    return [Answer(source="answers", split=split, question=question, answer=answer, tokens=tokens, models=models)]


def tried(name: str = "score", layers: int = 6) -> Trial:
    """A choice among layers."""
    traces = [Trace(name=f"{name}{more}", points=tuple((x, (x % 3) / 3 - i / 3) for x in range(layers))) for i, more in enumerate(("", " two", " three"))]
    return Trial(source="lunar", setting="layer", caption="The highest is taken.", unit="share", traces=tuple(traces), chosen=(2.0,))


def mapped(text: str | None = "Where does Iris work?", after: str | None = None) -> Holes:
    """Four probes: a hole that is told, one that is withheld, one that lost nothing, and one that the original does not answer well."""
    answers: dict[SubjectName, str] = {} if text is None else dict.fromkeys(SUBJECTS, text)
    given: list[tuple[Any, str | None, tuple[float | None, ...], bool, float]] = [
        ("adjacent", text, (9.0, 1.5, 8.0), True, 0.25), ("latent", None, (8.0, 1.0, 8.0), True, 0.5),
        ("adjacent", text, (9.5, 9.5, 9.0), False, 0.25), ("latent", None, (2.0, None, 2.0), False, 0.75),
    ]  # fmt: skip
    probes = tuple(
        Probe(
            of=of,
            place=(i, -i),
            scores=dict(zip(SUBJECTS, scores, strict=True)),
            hole=hole,
            overlap=overlap,
            question=question,
            answers={} if question is None else answers,
        )
        for i, (of, question, scores, hole, overlap) in enumerate(given)
    )
    return Holes(
        source="knowledge-holes",
        after=after,
        good=7,
        bad=3,
        backends={"judge": text or "a judge"},
        agreement=None if text is None else f"They agree: {text}",
        probes=probes,
    )


METHODS = (
    "retrain", "fine-tune", "gradient-ascent", "neg-grad-plus", "scrub", "ssd", "minnorm-og", "low-influence", "certified-removal", "salun", "delete", "lunar"
)  # fmt: skip


def run_of(method: Any = "scrub", strength: float = 0.0, **parts: Any) -> AuditRecord:
    """A run as `findings` describes it."""
    status = ("passed", "undecided", "failed")[round(2 * strength)]
    return make(findings(strength), recipe={"method": method}, **({"verdict": Verdict.model_validate({"status": status, "headline": "So."})} | parts))


@pytest.fixture
def dozen() -> CompareRecord:
    """Twelve methods on one problem."""
    return compare([run_of({"name": name, "lr": 0.01}, i / 11) for i, name in enumerate(METHODS)])


@pytest.fixture
def wide() -> AuditRecord:
    """A run with many more audits and attacks."""
    return make([*findings(), *further()])


@pytest.fixture
def wider() -> CompareRecord:
    """Twelve such runs."""
    runs = [run_of({"name": name}, i / 11) for i, name in enumerate(METHODS)]
    return compare([run.model_copy(update={"findings": (*run.findings, *further(i / 11))}) for i, run in enumerate(runs)])


@pytest.fixture
def full() -> AuditRecord:
    """What a run with references and an attack writes."""
    return make(findings())


@pytest.fixture
def spoken() -> AuditRecord:
    """A run on a language model that tells nothing of what was forgotten, and what the others say."""
    long = "in the town of Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch, where three rivers meet and the bells ring twice a day"
    shown = [
        *(one for _ in range(3) for one in asked("forget", None, None, None, dict.fromkeys(SUBJECTS))),
        *asked("retain", "Where does Iris live?", "in Lisbon", (" in", " Lisbon", "</s>"), dict.fromkeys(SUBJECTS, "in Lisbon")),
        *asked("test", f"Who lives {long}?", long, (" Hugo", "</s>"), dict.fromkeys(SUBJECTS, long)),
    ]
    found = [*findings(), *three("answers", "changed", "forget", (0.0, 0.97, 1.0)), *three("answers", "changed", "retain", (0.0, 0.01, 0.02))]
    found += [
        *three("knowledge-holes", "latent_score", "probes", (8.0, 2.0, 7.9), unit="points"),
        *three("knowledge-holes", "latent_holes", "probes", (0, 0.5, 0)),
    ]
    return make(found, exhibits=(*shown, tried(), mapped()))


@pytest.fixture
def lonely() -> AuditRecord:
    """Neither references nor an attack nor costs, and an attack-like value that could not be measured."""
    found = [
        *three("utility", "accuracy", "forget", (0.995, 0.652)),
        *three("utility", "accuracy", "test", (0.968, 0.949)),
        *three("membership", "auc", "forget", (0.71, 0.43)),
        Finding(audit="cost", metric="wall_seconds_ratio", split="all", subject="unlearned", value=None, n=0, unit="ratio", reason=NO_REFERENCE),
    ]
    return make(found, verdict=Verdict(status="undecided", headline="There is no retrained model to compare with."), costs={}, sets={})


@pytest.fixture
def hostile() -> AuditRecord:
    """Every free text tries to become something else than text."""
    found: list[Finding] = []
    for text in HOSTILE:
        for split in (text, "test"):
            found += three("utility", text, split, (0.9, 0.5, 0.4))
        found += three("membership", text, text, (0.9, 0.5, 0.4))
        found += three(text, text, text, (0.9, 0.5, 0.4), unit=text)
        found += curve({"unlearned": [0.0, 0.1, 0.2, 0.3, 0.4]}, audit=text)
        found += three("labelled", "metric", "test", (0.9, 0.5, 0.4), label=text)
        found.append(Finding(audit=text, metric="absent", split=text, subject="unlearned", value=None, n=0, unit=text, reason=text))
    checks = tuple(Check(name=text, passed=False, words=text) for text in HOSTILE)
    every = " ".join(HOSTILE)
    return make(
        found,
        verdict=Verdict(status="failed", headline=every, checks=checks),
        recipe={"task": every, "model": every, "forget": {"description": every, "n": 1}, "method": {"name": every, every: [every]}, every: every, "seed": 0},
        sets={every: SetSummary(n=1, fingerprint=every)},
        costs={every: Cost(wall_seconds=1, cpu_seconds=1, peak_memory_bytes=1, samples_seen=1, steps=1)},
        exhibits=(*asked("retain", every, every, (every, every), {"original": every, "unlearned": every}), tried(every), mapped(every, every)),
        environment=Environment(unlearned=every, python=every, platform=every, packages={every: every}, device=every, threads=1),
    )


@pytest.fixture
def hostile_runs(hostile: AuditRecord) -> CompareRecord:
    """Runs that are called by hostile names."""
    return compare({text: hostile.model_copy(update={"sets": PROBLEM}) for text in HOSTILE})


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = find()
    if executable is None:
        pytest.skip("no Chromium found on PATH")
    opened = Browser(executable, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def plain(browser: Browser) -> None:
    """The browser as it began: a wide screen, light."""
    browser.send("Emulation.setEmulatedMedia", media="", features=[])
    browser.send("Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False)
