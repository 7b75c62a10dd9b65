"""Seeds: one number from the user, one stream for each purpose, and the caller's generators left as they were."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def derive_seed(seed: int, *purpose: object) -> int:
    """A seed in [0, 2³²) for one purpose: streams of different purposes are unrelated, whatever the order in which they are used."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch; put their states back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()  # other libraries draw from this one
    apple = _apple_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            for state in apple.values():  # `manual_seed` seeds it, `fork_rng` leaves it out
                torch.mps.set_rng_state(state)


@contextmanager
def replaying(states: dict[str, Tensor]) -> Iterator[None]:
    """Draw once more what was drawn from these `generator_states`; put the present ones back afterwards."""
    before = generator_states()
    restore_generators(states)
    try:
        yield
    finally:
        restore_generators(before)


def generator_states() -> dict[str, Tensor]:
    """States of the global generators of torch (of every device), numpy and Python, as tensors (whole numbers below 2³² are exact in float64)."""
    numpy = np.random.get_state(legacy=False)
    keys = [*np.asarray(numpy["state"]["key"]).tolist(), numpy["state"]["pos"], numpy["has_gauss"], numpy["gauss"]]
    _, words, gauss = random.getstate()
    states = {
        "torch": torch.get_rng_state(),
        "numpy": torch.tensor(keys, dtype=torch.float64),
        "python": torch.tensor([*words, float("nan") if gauss is None else gauss], dtype=torch.float64),
    }
    return states | _apple_state() | {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])}


def restore_generators(states: dict[str, Tensor]) -> None:
    """Undo: set the generators to states from `generator_states`."""
    torch.set_rng_state(states["torch"])
    *keys, position, has_gauss, gauss = states["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), int(position), int(has_gauss), gauss))
    *words, drawn = states["python"].tolist()
    random.setstate((3, tuple(int(word) for word in words), None if drawn != drawn else drawn))  # noqa: PLR0124  # NaN
    for name, state in states.items():
        if name.startswith("cuda"):
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda")))
        elif name == "mps":
            torch.mps.set_rng_state(state)


def _apple_state() -> dict[str, Tensor]:
    return {"mps": torch.mps.get_rng_state()} if torch.backends.mps.is_available() else {}
