"""The Python API: what the command line does, as functions."""

from __future__ import annotations

from unlearned.api._given import ModelLike, as_bundle, forget_ids, load, make_problem, read_ids
from unlearned.api._influence import rank, rank_record, trace
from unlearned.api._measuring import attack, attack_all, audit, choose_attacks, choose_audits, choose_suite, conclude, make_subject, measure, model_faults
from unlearned.api._unlearning import Forgotten, forget

__all__ = [
    "Forgotten",
    "ModelLike",
    "as_bundle",
    "attack",
    "attack_all",
    "audit",
    "choose_attacks",
    "choose_audits",
    "choose_suite",
    "conclude",
    "forget",
    "forget_ids",
    "load",
    "make_problem",
    "make_subject",
    "measure",
    "model_faults",
    "rank",
    "rank_record",
    "read_ids",
    "trace",
]
