"""Judges: image classifiers that say what a generated image shows."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from unlearned.errors import Fault, InputError
from unlearned.tasks._heads import head_of
from unlearned.tasks._task import Bundle, ModelSource
from unlearned.tasks.image_classification import ImageClassification

_SHIPPED = {"digits": "unlearned.tasks._judges:digits_judge"}


def digits_judge() -> nn.Module:
    """A classifier of 8 x 8 grey digits in [0, 1], trained on the digits of scikit-learn: 18,000 weights."""
    model = judging_network(8, 16)
    model.load_state_dict(load(resources.files("unlearned.tasks").joinpath("digits_judge.safetensors").read_bytes()))
    return model.eval()


def judging_network(side: int, width: int) -> nn.Module:
    """From (B, 1, side, side) to 10 logits; 2 · width features before the last layer. The side is a multiple of 4."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (side // 4) ** 2, 2 * width),
        nn.ReLU(),
        nn.Linear(2 * width, 10),
    )


class Judge:
    """A classifier as it looks at images in [0, 1].

    Args:
        bundle: the classifier, with an image processor if it has one.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._model = bundle.model.eval().requires_grad_(False)

    @property
    def numbers(self) -> Mapping[str, int] | None:
        """Numbers of its classes by name, if it names them."""
        found: dict[str, int] | None = getattr(getattr(self._model, "config", None), "label2id", None)
        return found

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, K), on the device of the images; NaN for an image that is not finite."""
        return self._asked(images, lambda pixels: ImageClassification().outputs(self._model, {"pixel_values": pixels}).softmax(dim=1))

    def features(self, images: Tensor) -> Tensor:
        """What its last linear layer reads, (B, D).

        Raises:
            InputError: if its logits are not those of a linear layer.
        """
        return self._asked(images, lambda pixels: head_of(self._model, pixels).features)

    def classes(self, shape: tuple[int, ...]) -> int:
        """How many classes it tells apart in images of this shape (C, H, W).

        Raises:
            InputError: if it does not take them.
        """
        try:
            probabilities = self.probabilities(torch.zeros(1, *shape))
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            size = "x".join(map(str, shape))
            reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
            what = f"the judge cannot take generated images of {size} (channels x height x width): {reason}."
            raise InputError(Fault("task.judge", what, "Name a classifier for images of that size, or one with an image processor.")) from error
        if probabilities.ndim != 2:
            raise InputError(Fault("task.judge", "the judge gives no logits of shape (batch, classes).", "Name an image classifier."))
        return probabilities.shape[1]

    def _asked(self, images: Tensor, ask: Any) -> Tensor:
        finite = images.flatten(1).isfinite().all(dim=1)
        self._model.to(images.device)
        with torch.no_grad():
            out: Tensor = ask(self._pixels(torch.where(finite[:, None, None, None], images, 0)))
        out[~finite] = torch.nan
        return out

    def _pixels(self, images: Tensor) -> Tensor:
        processor = self._bundle.companions.get("processor")
        if processor is None:
            return images.to(next(self._model.parameters()).dtype)
        colour = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        pictures = (colour * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return torch.as_tensor(processor(images=list(pictures), return_tensors="pt")["pixel_values"]).to(images.device)


@functools.lru_cache(maxsize=4)
def judge_of(source: ModelSource) -> Judge:
    """The judge of this source, loaded once per process.

    Raises:
        InputError: if it cannot be loaded.
    """
    shipped = _SHIPPED.get(source.source)
    return Judge(ImageClassification().load(source if shipped is None else ModelSource(source=shipped), "task.judge"))
