"""What a run writes down: findings, costs, the verdict and the audit record that holds them.

Everything that anybody reads (terminal table, `audit.json`, HTML page, model card) is made from these records and from nothing else. They
hold numbers and names. Only exhibits can hold samples, and content of a forget set only where the user asked for it. What a model generates comes in here
where a setting asks for pictures.
"""

from unlearned.records._audits import SCHEMA, AuditRecord, Check, SetSummary, Verdict
from unlearned.records._benchmarks import BENCH_SCHEMA, BenchRecord, BenchRow, Quoted
from unlearned.records._comparisons import COMPARE_SCHEMA, ComparedRun, CompareRecord
from unlearned.records._costs import Cost, Environment
from unlearned.records._exhibits import Answer, Exhibit, Holes, Picture, Probe, Rehearsals, Rehearsed, Said, Trace, Trial
from unlearned.records._findings import HALF, LABEL, NO_REFERENCE, Direction, Finding, SubjectName, label_sentence, pick
from unlearned.records._pruning import PRUNING, Pruning, Removal
from unlearned.records._rankings import RANK_SCHEMA, RankRecord
from unlearned.records._record import Document, Record

__all__ = [
    "BENCH_SCHEMA",
    "COMPARE_SCHEMA",
    "HALF",
    "LABEL",
    "NO_REFERENCE",
    "PRUNING",
    "RANK_SCHEMA",
    "SCHEMA",
    "Answer",
    "AuditRecord",
    "BenchRecord",
    "BenchRow",
    "Check",
    "CompareRecord",
    "ComparedRun",
    "Cost",
    "Direction",
    "Document",
    "Environment",
    "Exhibit",
    "Finding",
    "Holes",
    "Picture",
    "Probe",
    "Pruning",
    "Quoted",
    "RankRecord",
    "Record",
    "Rehearsals",
    "Rehearsed",
    "Removal",
    "Said",
    "SetSummary",
    "SubjectName",
    "Trace",
    "Trial",
    "Verdict",
    "label_sentence",
    "pick",
]
