"""UCE: keys and values of the cross-attention are changed in closed form, so that a concept's words are read as those of a guide.

Paper: Gandikota et al. 2024 (WACV), "Unified Concept Editing in Diffusion Models", arXiv 2308.14761; code of the authors: rohitgandikota/
unified-concept-editing.
Formula: for each matrix W_0 of keys or values, W = [λ W_0 + Σ_e s_e W_0 g c_eᵀ + Σ_p s_p W_0 p pᵀ] [λ I + Σ_e s_e c_e c_eᵀ + Σ_p s_p p pᵀ]⁻¹, the minimum of
Σ_e s_e ‖W c_e − W_0 g‖² + Σ_p s_p ‖W p − W_0 p‖² + λ ‖W − W_0‖². c_e, g, p: what the text encoder says at the last token of an erased prompt, of the guide and
of a preserved prompt, before the tokens that end and pad it; of the empty prompt the first token.
Defaults of the authors (their code): λ 0.5, s_e = s_p = 1, guide the empty prompt.
Deviations: by default erased are the distinct prompts of the forget set, and preserved those of the retain set that are not among them; the authors name words
by hand. Their five templates around a word are not added. Solved in float64.
"""

from __future__ import annotations

import copy
import re
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, on_device
from unlearned.errors import Fault, InputError, collecting
from unlearned.methods import methods
from unlearned.methods._diffusion import PARTS, diffusion_task
from unlearned.methods._method import Method
from unlearned.problem import Problem
from unlearned.tasks._task import exactly
from unlearned.tasks.image_generation import denoiser_of


def edited(weight: Tensor, erased: Tensor, guides: Tensor, preserved: Tensor, ridge: float, erase: float, preserve: float) -> Tensor:
    """The minimum W of Σ_e s_e ‖W c_e − W_0 g_e‖² + Σ_p s_p ‖W p − W_0 p‖² + λ ‖W − W_0‖², (q, d), in the type of what is given.

    Args:
        weight: W_0, (q, d).
        erased: c, (E, d).
        guides: g, (E, d).
        preserved: p, (P, d); may be empty.
        ridge: λ > 0.
        erase: s_e.
        preserve: s_p.
    """
    moment = ridge * torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device) + erase * erased.T @ erased + preserve * preserved.T @ preserved
    wanted = ridge * weight + erase * weight @ guides.T @ erased + preserve * weight @ preserved.T @ preserved
    solved: Tensor = torch.linalg.solve(moment, wanted, left=False)
    return solved


def last_tokens(prompts: Tensor, special: set[int]) -> Tensor:
    """Position of the last token of each prompt that is not special; 0 if there is none. (N,).

    Args:
        prompts: token ids, (N, T).
        special: ids of what begins, ends and pads a prompt.
    """
    own = torch.stack([prompts != token for token in special]).all(dim=0)
    positions = torch.arange(prompts.shape[1], device=prompts.device)
    return torch.where(own, positions, 0).amax(dim=1)


@methods.register("uce")
class UCE(Method):
    """Edit keys and values in closed form."""

    name: ClassVar[str] = "uce"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-generation"})
    ridge: float = Field(0.5, gt=0, description="λ: how strongly the matrices are held.")
    erase_scale: float = Field(1.0, gt=0, description="s_e: weight of erased prompts.")
    preserve_scale: float = Field(1.0, ge=0, description="s_p: weight of preserved prompts.")
    guide: str = Field("", description="Prompt that erased ones are read as; empty: the empty prompt.")
    concepts: tuple[str, ...] = Field((), description="Prompts to erase; empty: those of the forget set.")
    preserved: tuple[str, ...] | None = Field(None, description="Prompts to preserve; None: those of the retain set.")

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:
        """A model without cross-attention to a prompt; prompts that it cannot read."""
        found: list[Fault] = []
        with collecting(found):
            _keys_and_values(problem.original.model)
        if not found:
            given = {"concepts": self.concepts, "preserved": self.preserved or (), "guide": (self.guide,)}
            for name, prompts in given.items():
                with collecting(found):
                    if prompts:
                        diffusion_task(engine).prompts(prompts, problem.original, f"method.{name}")
        return found

    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        model = copy.deepcopy(problem.original.model).eval()
        task, layers = diffusion_task(engine), _keys_and_values(model)
        erased = task.prompts(self.concepts, problem.original, "method.concepts") if self.concepts else _distinct(problem.forget)
        kept = _distinct(problem.retain) if self.preserved is None else task.prompts([*self.preserved, ""], problem.original, "method.preserved")[:-1]
        kept = kept[[not bool((erased == prompt).flatten(1).all(dim=1).any()) for prompt in kept]]
        guide = task.prompts([self.guide], problem.original, "method.guide")
        with on_device(model, engine.device), torch.no_grad():
            c, p, g = (self._vectors(problem, model, prompts.to(engine.device)) for prompts in (erased, kept, guide))
            for layer in layers:
                weight = edited(exactly(layer.weight), c, g.expand_as(c), p, self.ridge, self.erase_scale, self.preserve_scale)
                if layer.weight.requires_grad:
                    layer.weight.copy_(weight)
                engine.meter.count(len(c) + len(p))
        return model

    @staticmethod
    def _vectors(problem: Problem, model: nn.Module, prompts: Tensor) -> Tensor:
        """What the text encoders say at the last token of each prompt, (N, d), in float64."""
        tokenizer = problem.original.companions["tokenizer"]
        special = {token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) if token is not None}
        states = denoiser_of(model).embed(prompts).states
        return exactly(states[torch.arange(len(prompts), device=states.device), last_tokens(prompts[:, 0], special)])


def _keys_and_values(model: nn.Module) -> list[nn.Linear]:
    layers = [layer for name, layer in model.named_modules() if re.search(PARTS["keys-and-values"], f"{name}.") and isinstance(layer, nn.Linear)]
    if denoiser_of(model).conditioned_on != "prompt" or not layers:
        what = "the model has no cross-attention to a prompt, whose keys and values could be edited."
        raise InputError(Fault("model", what, "Use a model with a text encoder."))
    return layers


def _distinct(samples: Samples) -> Tensor:
    """Distinct prompts of a set, (N, E, T), in order of their first appearance."""
    prompts = torch.stack([samples[i]["prompt"] for i in range(len(samples))])
    rows = [tuple(prompt.flatten().tolist()) for prompt in prompts]
    return prompts[[rows.index(row) for row in dict.fromkeys(rows)]]
