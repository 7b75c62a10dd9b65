"""Which samples come in which batch: a function of seed, set and pass alone, so that any position can be returned to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader

from unlearned.data.samples import Row, Samples
from unlearned.engine.randomness import derive_seed
from unlearned.tasks._task import Batch


def batch_positions(n: int, batch_size: int, seed: int, *purpose: object) -> list[list[int]]:
    """Positions 0..n−1 in random order, cut into batches.

    A last batch of one sample joins the batch before it: batch normalisation has no variance over one sample.
    """
    order = np.random.default_rng(derive_seed(seed, *purpose)).permutation(n).tolist()
    batches = [order[i : i + batch_size] for i in range(0, n, batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] += last
    return batches


def cycled(n: int, batch_size: int, seed: int, *purpose: object) -> Iterator[list[int]]:
    """Batches without end, going through the positions again and again, in a new order each time."""
    return itertools.chain.from_iterable(batch_positions(n, batch_size, seed, *purpose, i) for i in itertools.count())


def shard(positions: list[int], rank: int, world: int) -> list[int]:
    """This process's part of a batch; positions repeat so that all processes have equally many."""
    if world == 1:
        return positions
    size = -(-len(positions) // world)
    padded = list(itertools.islice(itertools.cycle(positions), size * world))
    return padded[rank::world]


class _View:
    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, position: int) -> Row:
        return self._samples[position]


def load(samples: Samples, batches: list[list[int]], collate: Callable[[list[Row]], Batch], *, pin: bool = False) -> Iterator[Batch]:
    """Collated batches at these positions."""
    if not batches:
        return iter(())
    # Its own generator: iteration would else draw from the global one, and a training that continues in the middle of a pass would go another way.
    whole = partial(_collate, collate, samples.attached)
    return iter(DataLoader(_View(samples), batch_sampler=batches, collate_fn=whole, pin_memory=pin, generator=torch.Generator()))  # type: ignore[arg-type]


def mixed(forget: Batch, retain: Batch) -> Batch:
    """One batch of both parts, forget samples first, with the columns that both have; either may be empty.

    Models with batch normalisation answer otherwise for a mixed batch than for its parts.
    """
    if not forget or not retain:
        return forget or retain
    return {name: torch.cat([forget[name], retain[name]]) for name in forget if name in retain}


def _collate(collate: Callable[[list[Row]], Batch], attached: tuple[str, ...], rows: list[Row]) -> Batch:
    return {**collate(rows), **{name: torch.stack([row[name] for row in rows]) for name in attached}}
