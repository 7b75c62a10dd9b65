"""Image classifiers: any `from_pretrained` classifier of transformers, any `nn.Module` from pixels to logits.

Loss: cross-entropy. Outputs: logits, (B, C). Knowledge: probability of the true class. Utility: accuracy.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from unlearned.data.samples import Row, Samples
from unlearned.errors import Fault, InputError
from unlearned.tasks import tasks
from unlearned.tasks._heads import head_of
from unlearned.tasks._images import read_images
from unlearned.tasks._models import (
    call_function,
    from_pretrained,
    is_function,
    is_transformers,
    load_function,
    only_float32,
    pretrained_directory,
    restore,
    save_module,
)
from unlearned.tasks._task import Batch, Bundle, Choices, Data, DataSource, ModelSource, Task, beside, measured, stack


@tasks.register("image-classification")
class ImageClassification(Task):
    """Rows hold `pixel_values` (C, H, W) float32 and `labels` ()."""

    name: ClassVar[str] = "image-classification"

    @property
    def utility_metric(self) -> str:
        return "accuracy"

    def load(self, source: ModelSource, field: str) -> Bundle:
        only_float32(source, field)
        if is_function(source.source):
            return load_function(source, field)
        pretrained_directory(source, field)
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        model = from_pretrained(AutoModelForImageClassification.from_pretrained, source, field)
        companions: dict[str, Any] = {}
        try:
            companions["processor"] = AutoImageProcessor.from_pretrained(source.source, trust_remote_code=False)
        except (OSError, ValueError) as error:
            # Saved without one, images are scaled to [0, 1] and used at their own size; with a broken one, the model would get other pixels than it knows.
            if any((Path(source.source) / name).exists() for name in ("preprocessor_config.json", "processor_config.json")):
                what = f"the image processor in {source.source!r} cannot be read ({type(error).__name__})."
                raise InputError(Fault(field, what, "Save the image processor again with its save_pretrained.")) from error
        return Bundle(model, companions, source)

    def save(self, bundle: Bundle, directory: Path) -> None:
        if not is_transformers(bundle.model):
            save_module(bundle, directory, self.name)
            return
        bundle.model.save_pretrained(directory)  # type: ignore[operator]  # a module's attributes may be tensors, for the type checker
        if "processor" in bundle.companions:
            bundle.companions["processor"].save_pretrained(directory)

    def restore(self, directory: Path, like: Bundle) -> Bundle:
        return restore(directory, like)

    def fresh(self, bundle: Bundle) -> Bundle:
        return bundle.with_model(fresh_module(bundle))

    def read(self, source: DataSource | Data, bundle: Bundle, field: str, like: Samples | None = None) -> Samples:
        return read_images(source, bundle, field, like)

    def collate(self, rows: Sequence[Row]) -> Batch:
        return stack(rows, ("pixel_values", "labels"))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy −log softmax(f(x))_y."""
        return self.losses_from(self.outputs(model, batch), batch)

    def losses_from(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(measured(outputs), batch["labels"], reduction="none")

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits, (B, C)."""
        out = model(batch["pixel_values"])
        logits = getattr(out, "logits", out)
        assert isinstance(logits, Tensor)
        return logits

    def log_likelihoods(self, model: nn.Module, batch: Batch) -> Tensor:
        """Log softmax(f(x))_y: the negative loss."""
        return -self.losses(model, batch)

    def log_odds(self, model: nn.Module, batch: Batch) -> Tensor:
        """The margin f(x)_y − log Σ_{k≠y} exp f(x)_k: the same number, without the loss of digits where the model is sure."""
        logits, true = measured(self.outputs(model, batch)), batch["labels"][:, None]
        others = logits.scatter(1, true, float("-inf"))
        return logits.gather(1, true)[:, 0] - others.logsumexp(dim=1)

    def constraints(self, model: nn.Module, batch: Batch) -> Tensor:
        """The largest logit of each sample, (B, 1): which one it is, is held fixed (Block et al. 2025, section 5)."""
        return self.outputs(model, batch).amax(dim=1, keepdim=True)

    def choices(self, model: nn.Module, batch: Batch) -> Choices:
        """One choice of weight 1: the label."""
        logits, targets = self.outputs(model, batch)[:, None], batch["labels"][:, None]
        return Choices(logits, targets, torch.ones_like(targets, dtype=logits.dtype))

    def classes(self, batch: Batch) -> Tensor:
        """The labels, (B,)."""
        return batch["labels"]

    def features(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the linear layer that gives the logits reads, (B, D)."""
        return head_of(model, batch["pixel_values"]).features

    def knowledge(self, model: nn.Module, batch: Batch) -> Tensor:
        """softmax(f(x))_y."""
        return torch.exp(-self.losses(model, batch))

    def utility(self, model: nn.Module, batch: Batch) -> Tensor:
        """1 where the largest logit is the true class's, else 0."""
        return (self.outputs(model, batch).argmax(dim=1) == batch["labels"]).to(torch.float32)

    def faults(self, bundle: Bundle, samples: Samples, field: str) -> list[Fault]:
        faults = []
        shapes, unfit = set(), 0
        for i in range(len(samples)):
            pixels = samples[i]["pixel_values"]
            shapes.add(tuple(pixels.shape))
            unfit += not bool(torch.isfinite(pixels).all())
        if unfit:
            return [Fault(field, f"{unfit} images hold NaN or infinity.", "Remove or replace them.")]
        if len(shapes) > 1:
            some = " and ".join("x".join(map(str, shape)) for shape in sorted(shapes)[:2])
            return [
                Fault(
                    field,
                    f"the images have {len(shapes)} different sizes, for example {some} (channels x height x width).",
                    "Resize them to one size, or use a model with an image processor.",
                )
            ]
        if not len(samples):
            return []
        labels = torch.tensor(samples.fact("label"))
        try:
            with torch.no_grad():
                logits = self.outputs(copy.deepcopy(bundle.model).eval(), beside(self.collate([samples[0]]), bundle.model))
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            shape = "x".join(map(str, next(iter(shapes))))
            reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
            return [
                Fault(
                    field,
                    f"the model cannot take these images of {shape} (channels x height x width): {reason}.",
                    "Give images of the size and channels that it was trained on.",
                )
            ]
        if logits.ndim != 2:
            return [
                Fault(
                    "model",
                    f"the model returns a tensor of shape {tuple(logits.shape)} for one image.",
                    "A classifier returns logits of shape (batch, classes).",
                )
            ]
        classes = logits.shape[1]
        outside = labels[(labels < 0) | (labels >= classes)]
        if len(outside):
            faults.append(
                Fault(
                    field,
                    f"{len(outside)} labels lie outside 0..{classes - 1}, for example {int(outside[0])}; the model has {classes} classes.",
                    "Number the classes from 0, or use the model that knows them.",
                )
            )
        return faults


def fresh_module(bundle: Bundle) -> nn.Module:
    """A newly initialised module of the same architecture.

    transformers: from its config. `module:function`: called again. Any other module: a copy whose layers are asked to reset themselves.

    Raises:
        InputError: if a layer has parameters and no `reset_parameters`.
    """
    model = bundle.model
    if is_transformers(model):
        fresh: nn.Module = type(model)(copy.deepcopy(model.config))
        return fresh.to(next(model.parameters()).dtype)
    if bundle.origin is not None and is_function(bundle.origin.source):
        made = call_function(bundle.origin.source, "model.source")
        assert isinstance(made, nn.Module)
        return made
    made = copy.deepcopy(model)
    for name, layer in made.named_modules():
        reset = getattr(layer, "reset_parameters", None)
        if reset is not None:  # also without parameters: batch normalisation may hold nothing but statistics of the data
            reset()
        elif next(layer.parameters(recurse=False), None) is not None:
            raise InputError(
                Fault(
                    "model",
                    f"layer {name!r} ({type(layer).__name__}) cannot be initialised anew.",
                    "Give it a reset_parameters method, or name the model as module:function.",
                )
            )
    return made
