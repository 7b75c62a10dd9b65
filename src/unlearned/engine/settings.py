"""Settings of the engine and of optimisation, shared by everything that trains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unlearned.settings import Pattern, Settings

__all__ = ["Compute", "Optimisation", "Settings"]


class Compute(Settings):
    """Where and how to compute. Changes no result beyond rounding."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="`auto` takes an accelerator if there is one; or cpu, cuda, cuda:1, mps.")
    precision: Literal["no", "bf16", "fp16"] = Field("no", description="Mixed precision of training.")
    threads: int | None = Field(None, ge=1, description="Threads of one process on the CPU; None leaves torch's choice.")
    workers: int = Field(1, ge=1, le=256, description="Processes for independent jobs, such as reference models.")
    batch_size: int = Field(256, ge=1, description="Samples per forward pass when nothing is trained.")
    gradient_checkpointing: bool = Field(False, description="Compute activations anew in the backward pass: less memory, a third more work.")
    checkpoint_seconds: float = Field(60, ge=0, description="Training saves its state this often, to continue after an interruption; 0: after each step.")
    trackers: tuple[str, ...] = Field((), description="Trackers of accelerate that receive the losses, for example tensorboard.")


class Optimisation(Settings):
    """How weights are trained by gradient steps."""

    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="Optimiser.")
    lr: float = Field(0.01, gt=0, description="Learning rate.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay.")
    batch_size: int = Field(256, ge=1, description="Samples per step.")
    epochs: int = Field(10, ge=1, le=100_000, description="Passes over the data.")
    schedule: Literal["constant", "cosine"] = Field("constant", description="Learning rate over the training; cosine falls to 0.")
    max_grad_norm: float | None = Field(None, gt=0, description="Gradients are scaled down to this norm; None: never.")
    parameters: Pattern = Field(".*", description="Regular expression for the names of the parameters that may change, matched anywhere in the name.")
