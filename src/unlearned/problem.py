"""What is to be forgotten, by which model, and what must stay: checked once, up front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from unlearned.data.fingerprints import of_json, of_tensors
from unlearned.data.samples import Samples
from unlearned.errors import Fault, raise_faults
from unlearned.records import SetSummary
from unlearned.tasks._task import Bundle, Task


@dataclass(frozen=True)
class Problem:
    """The original model and the sets: forget, retain, test and, if hyper-parameters are chosen, validation.

    Raises:
        InputError: with everything that is wrong: an empty set, ids that repeat or appear in two sets, samples that the model cannot take.
    """

    task: Task
    original: Bundle
    forget: Samples
    retain: Samples
    test: Samples
    validation: Samples | None = None

    def __post_init__(self) -> None:
        """Check everything."""
        raise_faults(self._faults())

    @property
    def sets(self) -> dict[str, Samples]:
        """The sets by name, in the order in which they are reported."""
        named = {"forget": self.forget, "retain": self.retain, "test": self.test}
        return named if self.validation is None else named | {"validation": self.validation}

    @property
    def summaries(self) -> dict[str, SetSummary]:
        """Size and fingerprint of each set."""
        return {name: SetSummary(n=len(samples), fingerprint=samples.fingerprint) for name, samples in self.sets.items()}

    @property
    def fingerprint(self) -> str:
        """Hash of sets and original model: equal problems have equal fingerprints."""
        return of_json(
            {
                "architecture": self.task.architecture(self.original),
                "weights": of_tensors(self.original.model.state_dict()),
                "sets": {name: samples.fingerprint for name, samples in self.sets.items()},
            }
        )

    def _faults(self) -> Iterator[Fault]:
        if not len(self.forget):
            yield Fault(
                "forget",
                "the forget set is empty: no sample of the training data was chosen.",
                "Check the filter or the ids; columns and ids are those of data.train.",
            )
        if not len(self.retain):
            yield Fault(
                "forget",
                "the forget set is the whole training data: nothing is left to retain.",
                "Forget a part of it. To forget everything, discard the model.",
            )
        if not len(self.test):
            yield Fault("data.test", "the test set is empty.", "Give held-out samples.")
        for name, samples in self.sets.items():
            yield from id_faults(samples, _FIELDS[name], f"{name} set")
        both = set(self.forget.ids) & set(self.retain.ids)
        if both:
            yield Fault(
                "forget",
                f"{len(both)} samples are in the forget set and in the retain set.",
                "Take them out of the retain set: what is forgotten cannot be retained.",
            )
        for name, samples in self.sets.items():
            yield from self.task.faults(self.original, samples, _FIELDS[name])


_FIELDS = {"forget": "data.train", "retain": "data.train", "test": "data.test", "validation": "data.validation"}


def id_faults(samples: Samples, field: str, what: str) -> list[Fault]:
    """What is wrong with the ids of a set: that they repeat. They are counted, not shown."""
    repeated = sum(n > 1 for n in Counter(samples.ids).values())
    return [Fault(field, f"{repeated} ids of the {what} appear more than once.", "Ids name samples: make them unique.")] if repeated else []
