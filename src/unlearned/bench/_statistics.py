"""Statistics of batch normalisation that were left behind, and new ones."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, on_device


def recomputed(engine: Engine, model: nn.Module, samples: Samples) -> nn.Module:
    """A copy whose batch normalisation has the mean and variance of these samples, batch by batch with equal weight, in the place of its running ones.

    After a few steps running statistics are still largely those of the model before, or of whatever images passed through last: weights and statistics do
    not belong together.

    Args:
        engine: batches and device.
        model: unchanged.
        samples: at least two.
    """
    made = copy.deepcopy(model).eval()
    layers = [layer for layer in made.modules() if isinstance(layer, _BatchNorm)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # all batches weigh the same
        layer.train()
    with on_device(made, engine.device), torch.no_grad():
        for batch in engine.batches(samples):
            engine.task.outputs(made, batch)
    return made.eval()
