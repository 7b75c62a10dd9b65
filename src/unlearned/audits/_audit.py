"""The seam of audits."""

from __future__ import annotations

from typing import ClassVar

from unlearned.evidence.measurement import Measurement


class Audit(Measurement):
    """A measurement with its settings."""

    by_default: ClassVar[bool] = True
    """Whether it is made where no audit is named; not if it trains models, or needs data or a package that most do not have."""
