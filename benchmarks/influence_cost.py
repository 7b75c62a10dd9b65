"""What scoring costs: python benchmarks/influence_cost.py DIRECTORY-OF-FASHION-MNIST

Two questions, one thread:
- 60,000 images of 14 x 14 pixels, a residual network of 20,000 parameters. Printed is the processor time of one epoch of its training, and of scoring all
  images by `gradient-norm`, of the last layer and of all layers, each in units of the epoch.
- `less` with a projection to 8192 dimensions and one checkpoint, for growing numbers of images, each in a process of its own. Printed is the peak of its
  resident memory: features lie on the disk, so that it does not grow with the data.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch
from peak_memory import peak_bytes

from unlearned.bench._images import read_images
from unlearned.bench._networks import fashion_network
from unlearned.engine.engine import Engine
from unlearned.engine.settings import Compute
from unlearned.engine.training import Training, train
from unlearned.influence._score import Grounds, Score
from unlearned.influence.gradient_norm import GradientNorm
from unlearned.influence.less import Less
from unlearned.tasks import tasks
from unlearned.tasks._task import Bundle


def grounds_of(directory: Path, per_class: int, engine: Engine) -> Grounds:
    """So many images of each class, and a network after one epoch of a small training."""
    images = read_images("fashion-mnist", directory, per_class, 10)
    how = Training(optimizer="adamw", lr=4e-3, batch_size=128, epochs=1)
    few = images.train.subset(range(0, len(images.train), max(1, len(images.train) // 1000)))
    return Grounds(train(engine, Bundle(fashion_network()), few, how, 0), images.train, images.test, how)


def seconds(score: Score, grounds: Grounds, engine: Engine) -> float:
    """Processor time of scoring."""
    begun = time.process_time()
    score.rate(grounds, engine)
    return time.process_time() - begun


def compare_with_an_epoch(directory: Path) -> None:
    """Print the times."""
    engine = Engine(tasks.get("image-classification")(), Compute(device="cpu"))
    grounds = grounds_of(directory, 6000, engine)
    begun = time.process_time()
    assert grounds.training is not None
    train(engine, grounds.original, grounds.points, grounds.training, 1)
    epoch = time.process_time() - begun
    print(f"{len(grounds.points)} images; one epoch of training: {epoch:.1f} s of processor time", flush=True)
    for layer in ("last", "all"):
        spent = seconds(GradientNorm(layer=layer), grounds, engine)  # type: ignore[arg-type]
        print(f"gradient-norm, {layer} layer{'s' if layer == 'all' else ''}: {spent:.1f} s, {spent / epoch:.2f} epochs", flush=True)


def peak(directory: Path, per_class: int) -> None:
    """Print the peak memory of this process after `less`."""
    engine = Engine(tasks.get("image-classification")(), Compute(device="cpu"))
    grounds = grounds_of(directory, per_class, engine)
    before = peak_bytes() / 2**20
    spent = seconds(Less(checkpoints=1, share=min(1.0, 1000 / len(grounds.points))), grounds, engine)
    after = peak_bytes() / 2**20
    print(f"less, 8192 dimensions, {len(grounds.points)} images: peak {after:.0f} MiB ({before:.0f} MiB before), {spent:.0f} s", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="holds fashion-mnist/")
    parser.add_argument("--peak", type=int, help="only `less`, with so many images of each class")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak is not None:
        peak(options.directory, options.peak)
        return
    compare_with_an_epoch(options.directory)
    for per_class in (50, 100, 400):
        subprocess.run([sys.executable, __file__, str(options.directory), "--peak", str(per_class)], check=True)


if __name__ == "__main__":
    main()
