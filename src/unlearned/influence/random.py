"""Random: a control. What a score is worth shows beside a ranking that knows nothing.

Paper: none.
Formula: s(z) uniform in (0, 1).
Defaults: none.
Deviations: none.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.influence import scores
from unlearned.influence._score import Grounds, Score, Values


@scores.register("random")
class Random(Score):
    """A number that means nothing."""

    name: ClassVar[str] = "random"
    by_gradients: ClassVar[bool] = False

    def rate(self, grounds: Grounds, engine: Engine) -> Values:
        drawn = np.random.default_rng(derive_seed(engine.seed, self.name)).random(len(grounds.points))
        return Values(torch.from_numpy(drawn))
