"""The seam between modalities and everything else."""

from __future__ import annotations

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from unlearned.data.fingerprints import of_json
from unlearned.data.samples import Row, Samples
from unlearned.errors import Fault
from unlearned.settings import Settings

Batch = dict[str, Tensor]
"""Collated samples: name to tensor, first dimension B."""

Data = Samples | Mapping[str, Any] | tuple[Any, ...] | Any
"""Samples that a program holds in memory: a dict or tuple of columns, a data set of the `datasets` library, or `Samples`."""


class ModelSource(BaseModel):
    """Where a model comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(description="A directory or hub id for `from_pretrained`, or `module:function` that returns an nn.Module.")
    weights: str | None = Field(None, description="For `module:function`: a safetensors file (or a directory that this package saved) with the weights.")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Numbers that a language model's weights are held in.")
    allow_pickle: bool = Field(False, description="Read weights in pickle format (tensors only). Off, because such files can run code.")


def model_source(text: str) -> dict[str, str]:
    """`SOURCE`, or `module:function@WEIGHTS` for a module with weights, as fields of a `ModelSource`."""
    function, at, weights = text.partition("@")
    return {"source": function, "weights": weights} if at and ":" in function else {"source": text}


class DataSource(BaseModel):
    """Where samples come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(description="A folder of images, a .npz, .parquet, .jsonl or .csv file, a saved or hub data set, or `module:function`.")
    config: str | None = Field(None, description="Configuration of a data set of the hub that has several.")
    split: str | None = Field(None, description="Split of a data set that has several.")
    columns: Mapping[str, str] = Field(default_factory=dict, description="Names of this data's columns for those that the task expects, as {expected: given}.")


@dataclass(frozen=True)
class Bundle:
    """A model and what goes with it."""

    model: nn.Module
    companions: Mapping[str, Any] = field(default_factory=dict)
    """Processor, tokenizer or scheduler, by that name."""
    origin: ModelSource | None = None
    """Where it was loaded from; None if it was made in Python."""

    def with_model(self, model: nn.Module) -> Bundle:
        """The same companions around another model of the same architecture."""
        return replace(self, model=model)


class Choices(NamedTuple):
    """A loss as a weighted sum of cross-entropies, one for each choice that the model makes about a sample: Σ_m w_m (−log softmax(z_m)_{y_m})."""

    logits: Tensor
    """z, (B, M, C), differentiable."""
    targets: Tensor
    """y, (B, M); any valid number where the weight is 0."""
    weights: Tensor
    """w ≥ 0, (B, M)."""


class Task(Settings, ABC):
    """What the rest of the package asks of a modality: frozen settings, and functions of their arguments.

    `losses`, `outputs`, `knowledge` and `utility` take the model in whatever mode (train or eval) it is in and do not change it. In eval mode
    they are functions of the model and the batch alone; in train mode they may draw from the global random generators.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def utility_metric(self) -> str:
        """What `utility` measures, as the findings call it."""

    @abstractmethod
    def load(self, source: ModelSource, field: str) -> Bundle:
        """Load a model in eval mode, in float32 (language models: as the source says), from safetensors.

        Raises:
            InputError: if it cannot be loaded, or only as a pickle that was not allowed. `field` is named in the message.
        """

    def bound(self, bundle: Bundle) -> Self:
        """This task with what it needs of a model's companions to read the model's answers; all models of a problem share these companions."""
        del bundle
        return self

    @abstractmethod
    def save(self, bundle: Bundle, directory: Path) -> None:
        """Write the model so that `load` (and the library it came from) can read it. The directory exists and is empty."""

    @abstractmethod
    def restore(self, directory: Path, like: Bundle) -> Bundle:
        """What `save` wrote from a bundle like this one, in eval mode: its weights, the same companions."""

    def save_adapter(self, adapted: nn.Module, directory: Path) -> None:
        """Write the adapter of a model that peft has wrapped, so that peft reads it beside the same model. The directory exists and is empty."""
        adapted.save_pretrained(directory)  # type: ignore[operator]

    @abstractmethod
    def fresh(self, bundle: Bundle) -> Bundle:
        """The same architecture, newly initialised from torch's global random generator."""

    @abstractmethod
    def read(self, source: DataSource | Data, bundle: Bundle, field: str, like: Samples | None = None) -> Samples:
        """Read samples, ready for `collate`.

        Args:
            source: where from.
            bundle: the model whose processor or tokenizer makes them ready.
            field: named in messages.
            like: the training data, when further data is read whose classes must be numbered as there.

        Raises:
            InputError: if they cannot be read or do not have what the task needs.
        """

    def read_queries(self, source: DataSource | Data, bundle: Bundle, field: str, like: Samples | None = None) -> Samples:
        """Read what the model is asked about, with as much of a training sample as the loss of this model looks at.

        Args:
            source: where from.
            bundle: the model.
            field: named in messages.
            like: the training data, if they could be read.

        Raises:
            InputError: if they cannot be read or do not have what the loss needs.
        """
        return self.read(source, bundle, field, like)

    @abstractmethod
    def collate(self, rows: Sequence[Row]) -> Batch:
        """Make a batch of samples."""

    @abstractmethod
    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Training loss of each sample, (B,), differentiable."""

    def training_losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss of each sample when a model is trained from new weights, (B,): `losses`, unless such a training needs more than what is measured later."""
        return self.losses(model, batch)

    def losses_from(self, outputs: Tensor, batch: Batch) -> Tensor:
        """`losses` from what `outputs` returned, without another forward pass; for tasks whose loss is a function of the outputs.

        Raises:
            NotImplementedError: if it is not.
        """
        del outputs, batch
        raise NotImplementedError(f"the loss of {self.name} is not a function of its outputs")

    @abstractmethod
    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the model says, (B, ...)."""

    @abstractmethod
    def knowledge(self, model: nn.Module, batch: Batch) -> Tensor:
        """How much of each sample the model shows, (B,) in [0, 1]."""

    @abstractmethod
    def utility(self, model: nn.Module, batch: Batch) -> Tensor:
        """How well the model does on each sample, (B,) in [0, 1]; its mean is `utility_metric`."""

    def log_likelihoods(self, model: nn.Module, batch: Batch) -> Tensor:
        """Log π(y|x) of each sample's whole answer, (B,), differentiable: not per token, as a loss may be.

        Raises:
            NotImplementedError: if the model gives no probabilities.
        """
        del model, batch
        raise NotImplementedError(f"models of {self.name} give no probability of a sample")

    def log_odds(self, model: nn.Module, batch: Batch) -> Tensor:
        """Log p/(1 − p) with p = exp(−loss), (B,): among models that differ by their seeds it is nearly normal, as p itself is not.

        A loss smaller than the spacing of floating-point numbers at 1 counts as that spacing.
        """
        losses = self.losses(model, batch)
        least = losses.clamp(min=torch.finfo(losses.dtype).eps)
        return -least - torch.log(-torch.expm1(-least))

    def constraints(self, model: nn.Module, batch: Batch) -> Tensor:
        """The numbers per sample that an exact unlearning must leave as they are on retained data, (B, K), differentiable.

        Raises:
            NotImplementedError: if the task defines none.
        """
        del model, batch
        raise NotImplementedError(f"{self.name} names no outputs that unlearning must keep")

    def choices(self, model: nn.Module, batch: Batch) -> Choices:
        """The cross-entropies that `losses` sums up: what the curvature of the loss is made of.

        Raises:
            NotImplementedError: if the loss is no sum of cross-entropies.
        """
        del model, batch
        raise NotImplementedError(f"the loss of {self.name} is no sum of cross-entropies")

    def classes(self, batch: Batch) -> Tensor | None:
        """The class of each sample, (B,), where the outputs are logits of classes; None: samples have none."""
        del batch
        return None

    def features(self, model: nn.Module, batch: Batch) -> Tensor:
        """The representation that the model's last layer reads, (B, D), differentiable.

        Raises:
            NotImplementedError: if the task defines none.
            InputError: if the model has no such layer.
        """
        del model, batch
        raise NotImplementedError(f"{self.name} names no representation")

    def faults(self, bundle: Bundle, samples: Samples, field: str) -> list[Fault]:
        """What is wrong with these samples for this model: shapes that cannot be collated, labels out of range, ..."""
        del bundle, samples, field
        return []

    def architecture(self, bundle: Bundle) -> str:
        """Fingerprint of the architecture: what `fresh` makes, without the values of the weights."""
        config: dict[str, Any] = getattr(getattr(bundle.model, "config", None), "to_diff_dict", dict)()
        parts = {
            "task": self.name,
            "class": f"{type(bundle.model).__module__}.{type(bundle.model).__qualname__}",
            "tensors": [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in bundle.model.state_dict().items()],
            "config": {name: value for name, value in config.items() if name != "_name_or_path"},
            "text": repr(bundle.model),
            "code": _source_code(bundle),
        }
        return of_json(parts)


def _source_code(bundle: Bundle) -> list[str]:
    """Source of the user's own layers and factory: the same tensors may be computed with differently. Libraries are left to their versions."""
    kinds = {type(layer) for layer in bundle.model.modules()}
    own = [kind for kind in kinds if kind.__module__.partition(".")[0] not in {"torch", "transformers", "diffusers"}]
    parts: list[Any] = sorted(own, key=lambda kind: (kind.__module__, kind.__qualname__))
    if bundle.origin is not None and ":" in bundle.origin.source:
        module, _, name = bundle.origin.source.partition(":")
        parts.append(getattr(sys.modules.get(module), name, None))
    code = []
    for part in parts:
        with suppress(OSError, TypeError):  # made in a notebook or by a built-in: no source to be had
            code.append(inspect.getsource(part))
    return code


def finest(device: torch.device) -> torch.dtype:
    """The most exact numbers that a device has: float64, or float32 on Apple's GPUs (`mps`), which have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def beside(batch: Batch, model: nn.Module) -> Batch:
    """The batch where the model rests, which is not always where an engine computes; unchanged for a model without parameters."""
    first = next(model.parameters(), None)
    return batch if first is None else {name: tensor.to(first.device) for name, tensor in batch.items()}


def exactly(values: Tensor) -> Tensor:
    """In float64, for sums that a closed form needs; on the CPU where the device has no float64."""
    return values.to(torch.float64) if finest(values.device) == torch.float64 else values.cpu().double()


def measured(logits: Tensor) -> Tensor:
    """Logits in float64 where nothing is trained: in float32 the losses of confident answers all round to 0, and no ranking is left."""
    return logits if torch.is_grad_enabled() else logits.to(finest(logits.device))


def stack(rows: Sequence[Row], columns: Sequence[str]) -> Batch:
    """Collate rows whose tensors have equal shapes."""
    return {name: torch.stack([row[name] for row in rows]) for name in columns}
