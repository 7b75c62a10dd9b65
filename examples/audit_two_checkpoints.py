"""Judge a checkpoint that other software unlearned: two directories of `save_pretrained`, a retrained model, and a folder of images.

The original is a tiny ResNet. The candidate was fine-tuned on what shall stay, in plain PyTorch. Prints the verdict and its checks:

failed: the candidate is not like a model that never saw the digit 3
  failed     accuracy on forget: 100.0 %, 100.0 points above the retrained model; the limit is 5 points.
  ...
"""

import tempfile
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits
from transformers import ResNetConfig, ResNetForImageClassification
from transformers.utils import logging

import unlearned


def write_images(root: Path, part: slice) -> None:
    """Digits as FOLDER/CLASS/IMAGE."""
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[part], digits.target[part], strict=True)):
        path = root / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).astype("uint8")).save(path)


def new_model(seed: int) -> ResNetForImageClassification:
    """A ResNet with random weights."""
    torch.manual_seed(seed)
    shape = {"num_channels": 1, "embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(**shape, num_labels=10))


def train(model: ResNetForImageClassification, epochs: int, keep: range | list[int], lr: float = 0.003) -> ResNetForImageClassification:
    """Plain PyTorch on the training digits whose class is in `keep`."""
    digits = load_digits()
    images = torch.tensor(digits.images[:1000] / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(digits.target[:1000])
    kept = torch.isin(labels, torch.tensor(list(keep))).nonzero()[:, 0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    model.train()
    for _ in range(epochs):
        for chosen in kept[torch.randperm(len(kept))].split(64):
            optimizer.zero_grad()
            model(images[chosen], labels=labels[chosen]).loss.backward()
            optimizer.step()
    return model.eval()


def main(root: Path) -> unlearned.AuditRecord:
    """Make the checkpoints, then audit them as anybody would who only has the files."""
    others = [0, 1, 2, 4, 5, 6, 7, 8, 9]
    write_images(root / "train", slice(None, 1000))
    write_images(root / "test", slice(1000, None))
    original = train(new_model(0), 8, range(10))
    original.save_pretrained(root / "original")
    train(original, 1, others, lr=0.0003).save_pretrained(root / "candidate")
    train(new_model(1), 8, others).save_pretrained(root / "retrained")

    problem = unlearned.make_problem(str(root / "original"), train=str(root / "train"), test=str(root / "test"), forget="label == 3")
    record = unlearned.audit(problem, str(root / "candidate"), [str(root / "retrained")])
    unlearned.write_report(record, root / "report")
    return record


if __name__ == "__main__":
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as directory:
        record = main(Path(directory))
    print(f"{record.verdict.status}: the candidate is not like a model that never saw the digit 3")
    for check in record.verdict.checks:
        print(f"  {({True: 'passed', False: 'failed', None: 'undecided'})[check.passed]:<10} {check.name}: {check.words}")
    assert record.verdict.status == "failed"
