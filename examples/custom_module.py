"""Your own `nn.Module`, named as `module:function` with safetensors weights, taken the whole way by a recipe. Prints:

undecided: unlearned with ssd at 0.1 of the samples that retraining needs
"""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import unlearned
from unlearned.demo import digits_train


class Perceptron(nn.Module):
    """Two layers over flat pixels: any module from (B, C, H, W) to logits will do."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 128)
        self.head = nn.Linear(128, 10)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits, (B, 10)."""
        logits: Tensor = self.head(torch.relu(self.hidden(pixel_values.flatten(1))))
        return logits


def network() -> nn.Module:
    """What the recipe names. It takes no arguments and returns a new module."""
    return Perceptron()


def train_original(weights: Path) -> None:
    """Any training will do; here plain PyTorch."""
    torch.manual_seed(0)
    model, digits = network(), digits_train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    for _ in range(20):
        for chosen in torch.randperm(len(digits["label"])).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(digits["image"][chosen, None]), digits["label"][chosen]).backward()
            optimizer.step()
    save_file(model.state_dict(), weights)


def main(root: Path) -> unlearned.AuditRecord:
    """Train, save, and carry out a recipe."""
    train_original(root / "original.safetensors")
    recipe = unlearned.parse_recipe(
        {
            "model": {"source": "custom_module:network", "weights": str(root / "original.safetensors")},
            "data": {"train": "unlearned.demo:digits_train", "test": "unlearned.demo:digits_test"},
            "forget": {"where": "label == 3"},
            "method": {"name": "ssd", "alpha": 4, "batch_size": 64},
            "training": {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.01, "batch_size": 64, "epochs": 20},
            "references": {"count": 2, "cache": str(root / "references")},
            "attacks": [],
        }
    )
    return unlearned.run(recipe, root / "run")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        record = main(Path(directory))
    share = record.costs["unlearned"].samples_seen / record.costs["reference"].samples_seen
    print(f"{record.verdict.status}: unlearned with ssd at {share:.1f} of the samples that retraining needs")
    assert record.verdict.status != "failed", record.verdict.headline
