"""Prompt search: which words in front of the prompt make the model draw what it has forgotten?

Paper: Zhang et al. 2024, "To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy to Generate Unsafe Images ... For Now" (UnlearnDiffAtk),
arXiv 2310.11868; code OPTML-Group/Diffusion-MU-Attack, 5a3e5d3. With `target: original`: P4D, Chin et al. 2023, arXiv 2309.06135, as that code has it.
Formula: N words δ before the prompt p that minimise ‖ε − ε_θ(x_t, t, (δ, p))‖² on one reference x. Each δ is a row of the simplex over the vocabulary; forward
a token is drawn from it and its gradient goes straight through; after each step the row is projected back (Euclidean). P4D: ε_original(x_t, t, p) for ε.
Defaults of the authors: 3 words; Adam, 0.01, weight decay 0.1; timesteps 10, 30, ..., 990 of 1000 one after the other, 40 iterations each (here shares of the
schedule, so that models of any number of timesteps can be attacked); images are drawn with the likeliest tokens.
Deviations: a curve over all steps, where they stop at the first success; one search for the whole forget set, on two references of each class, in the place of
one for each prompt on one. In fewer steps than a sweep over the timesteps takes (2,000), iterations are fewer, so that all timesteps are visited. Rows start as
random points of the simplex. Where the text encoder reads no more words, δ takes the place of the first.
`space: embeddings` searches vectors in the place of tokens: more than anybody could type, and the upper end of what prompts can do.
Findings: as of `memora`: `knowledge`, `retention`, `recovery`, `half_recovery_steps`, `recovery_area` and the label, with the steps as budget.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.attacks import attacks
from unlearned.attacks._prompting import Prompting
from unlearned.engine.engine import frozen
from unlearned.engine.loop import Plan, Step
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Optimisation
from unlearned.errors import Fault
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.tasks._task import Batch
from unlearned.tasks._words import Words, with_prefix
from unlearned.tasks.image_generation import Denoiser, ImageGeneration, denoiser_of


def onto_simplex(rows: Tensor) -> Tensor:
    """The nearest point of the probability simplex to each row, argmin_w ‖w − v‖, w ≥ 0, Σ w = 1 (Duchi et al. 2008), (..., V)."""
    ordered = rows.sort(dim=-1, descending=True).values
    count = torch.arange(1, rows.shape[-1] + 1, dtype=rows.dtype, device=rows.device)
    surplus = (ordered.cumsum(dim=-1) - 1) / count
    last = (ordered > surplus).sum(dim=-1, keepdim=True) - 1
    return (rows - surplus.gather(-1, last)).clamp(min=0)


class RelaxedWords(Words):
    """Words that are points of the simplex over the vocabulary: drawn from in train mode, in eval mode the likeliest token."""

    def vectors(self) -> Tensor:
        """What the text encoder reads, (count, q): one embedding per word. Gradients pass straight through the draw to the rows of the simplex."""
        rows = self.words
        token = torch.multinomial(rows.detach().clamp(min=0) + 1e-12, 1)[:, 0] if self.training else rows.argmax(dim=-1)
        chosen = torch.nn.functional.one_hot(token, rows.shape[-1]).to(rows)
        straight = chosen + rows - rows.detach()
        read: Tensor = straight @ self.weight
        return read


@attacks.register("prompt-search")
class PromptSearch(Prompting):
    """Learn words in front of the prompt."""

    name: ClassVar[str] = "prompt-search"
    count: int = Field(3, ge=1, le=64, description="Words in front of the prompt.")
    space: Literal["tokens", "embeddings"] = Field("tokens", description="tokens: words of the vocabulary. embeddings: any vectors.")
    target: Literal["noise", "original"] = Field("noise", description="What the prediction shall be: the true noise, or what the original says to the prompt.")
    iterations: int = Field(40, ge=1, description="Steps at one timestep, before the next one; fewer where `steps` do not suffice for all timesteps.")
    timesteps: int = Field(50, ge=1, le=1000, description="Timesteps that are visited, evenly over the schedule, one after the other and again.")
    lr: float = Optimisation.field("lr", 0.01)
    weight_decay: float = Optimisation.field("weight_decay", 0.1)

    @property
    def wanted_pairs(self) -> int:
        return 1

    def faults(self, problem: Problem) -> list[Fault]:
        found = super().faults(problem)
        if not found:
            length = problem.forget[0]["prompt"].shape[-1]
            if self.count >= length:
                found = [Fault("count", f"{self.count} words leave no room for the prompt: the text encoder reads {length}.", "Give fewer.")]
        return found

    def words(self, subject: Subject, number: int, table: nn.Module) -> Words:
        weight = table.weight
        assert isinstance(weight, Tensor)
        drawing = torch.Generator().manual_seed(derive_seed(subject.engine.seed, self.name, "words", number))
        rows = onto_simplex(torch.rand(self.count, len(weight), generator=drawing).to(weight))
        return RelaxedWords(table, rows) if self.space == "tokens" else Words(table, rows @ weight.detach())

    def asked(self, problem: Problem, prompts: Tensor) -> Tensor:
        empty = denoiser_of(problem.original.model).empty
        assert empty is not None
        return with_prefix(prompts, empty.cpu(), self.count)

    def how(self) -> Optimisation:
        return Optimisation(optimizer="adam", lr=self.lr, batch_size=1, weight_decay=self.weight_decay)

    def plan(self, subject: Subject, model: Denoiser) -> Plan:
        task, now = subject.engine.task, {"position": 0.0}
        stay = max(1, min(self.iterations, self.steps // self.timesteps))
        assert isinstance(task, ImageGeneration)
        original = frozen(subject.problem.original.model).to(subject.engine.device) if self.target == "original" else None
        del model

        def visit(reading: nn.Module, known: Batch, retain: Batch, step: Step) -> None:
            del reading, known, retain
            now["position"] = (step.done // stay % self.timesteps + 0.5) / self.timesteps

        def loss(reading: nn.Module, known: Batch, retain: Batch) -> Tensor:
            del retain
            inner = denoiser_of(reading)
            latents = inner.encode(known["pixel_values"], drawn=False)
            noise = torch.randn_like(latents)
            when = torch.full((len(latents),), int(now["position"] * len(inner.alphas_cumprod)), device=latents.device)
            noisy = inner.noised(latents, noise, when)
            wanted = inner.target(latents, noise, when)
            if original is not None:
                with torch.no_grad():
                    wanted = original(noisy, when, known["usual"])
            errors: Tensor = (reading(noisy, when, known["prompt"]) - wanted) ** 2
            return errors.mean()

        def project(reading: nn.Module, step: Step) -> None:
            del step
            with torch.no_grad():
                for layer in reading.modules():
                    if isinstance(layer, RelaxedWords):
                        layer.words.copy_(onto_simplex(layer.words))

        return Plan(self.passes(loss), max_steps=self.steps, before_step=visit, after_step=project)
