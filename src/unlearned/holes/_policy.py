"""A policy that learns to ask: a language model with low-rank adapters, trained by PPO (Ko et al. 2025, second stage; Hong et al. 2024).

Formula: `_ppo`. The reference policy is the same model with its adapters switched off.
Defaults of the authors: 50 epochs of 128 episodes, batches of 8, KL 0.001, entropy 0.001 (Ko et al.); lr 3e-5, AdamW with β (0.9, 0.95), 4 passes over each
round, clip 0.2, γ 1, λ 0.95, weight of the value loss 1, LoRA of rank 32 and α 16, top-p 0.92, temperature 0.7, 20 tokens, cut at a line break or question mark
(Hong et al.). All of them here.
Deviations: the policy is shown a numbered list of seeds and continues it, since base models continue; the paper does not say how a seed is presented. The
base of the policy is not quantised. Log-probabilities are those at temperature 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.adapters import Lora, with_adapter, without_adapter
from unlearned.engine.checkpoints import load_state, save_state
from unlearned.engine.engine import Engine, on_device
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.holes._ppo import advantages_of, clipped_policy_loss, clipped_value_loss, token_rewards, whitened
from unlearned.settings import Settings
from unlearned.tasks._task import Bundle
from unlearned.tasks._texts import Form, end_tokens, tokenise_prompts


class PolicySettings(Settings):
    """How the policy is trained and asked."""

    lr: float = Field(3e-5, gt=0, description="Learning rate.")
    rank: int = Field(32, ge=1, description="Rank of the adapters.")
    alpha: float = Field(16, gt=0, description="α of the adapters.")
    batch_size: int = Field(8, ge=1, description="Sequences in a step.")
    passes: int = Field(4, ge=1, description="Passes over the questions of a round.")
    clip: float = Field(0.2, gt=0, lt=1, description="ε: how far the policy may go from that of the round's beginning, as a ratio.")
    gamma: float = Field(1.0, gt=0, le=1, description="γ: discount per token.")
    lam: float = Field(0.95, ge=0, le=1, description="λ of the generalised advantages.")
    value_weight: float = Field(1.0, ge=0, description="Weight of the value loss.")
    kl: float = Field(0.001, ge=0, description="β: weight of the divergence from the untrained policy.")
    entropy: float = Field(0.001, ge=0, description="Weight of the policy's entropy.")
    top_p: float = Field(0.92, gt=0, le=1, description="Tokens are drawn from the most likely ones that have this probability together.")
    temperature: float = Field(0.7, gt=0, description="Temperature of drawing.")
    max_new_tokens: int = Field(20, ge=2, description="Tokens of a question at most.")
    shots: int = Field(3, ge=1, description="Seeds that are shown for each question.")
    replay: float = Field(0.0, ge=0, le=1, description="Share of the shown seeds that are taken from the best questions so far; ours.")


class Rollout(NamedTuple):
    """Questions as the policy said them."""

    tokens: Tensor
    """Prompt, padded on the left, and question, padded on the right, (B, P + T)."""
    attention: Tensor
    """1 on real tokens."""
    mask: Tensor
    """(B, T): 1 on tokens of the question."""


class Policy:
    """Proposes questions and is trained on what they were worth.

    Args:
        bundle: a decoder and its tokenizer. The model is not changed.
        seeds: questions to start from.
        settings: of policy and training.
        engine: where to compute, and the seed.
        state: a directory in which it is kept; None: nothing is kept.
        name: of the model, for the label.
    """

    def __init__(self, bundle: Bundle, seeds: Sequence[str], settings: PolicySettings, engine: Engine, state: Path | None, name: str) -> None:
        self.label = f"PPO policy from {name}"
        self._bundle, self._tokenizer, self._seeds = bundle, bundle.companions["tokenizer"], list(seeds)
        self._settings, self._engine, self._state = settings, engine, state
        self._ends = end_tokens(bundle)
        with seeded(derive_seed(engine.seed, "policy")):
            self._model: Any = with_adapter(bundle.model, Lora(rank=settings.rank, alpha=settings.alpha), ".").eval()
        width = bundle.model.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
        self._value = nn.Linear(int(width), 1)
        nn.init.zeros_(self._value.weight)
        nn.init.zeros_(self._value.bias)
        trained = [p for p in self._model.parameters() if p.requires_grad]
        self._learnt = nn.ModuleList([nn.ParameterList(trained), self._value])
        self._optimizer = torch.optim.AdamW(self._learnt.parameters(), lr=settings.lr, betas=(0.9, 0.95))
        self.rounds, self._best = 0, dict[str, float]()
        self._rollout: Rollout | None = None
        self._questions: list[str] = []
        # Where it learns: the optimiser's state goes to the device on which the parameters are when it is loaded.
        with on_device(self._learnt, engine.device):
            progress = None if state is None else load_state(state, self._learnt, self._optimizer)
        if progress is not None:
            self.rounds, self._best = int(progress["step"]), progress["best"]

    def propose(self, count: int) -> list[str]:
        """Drawn from the policy, each after a list of random seeds."""
        how = self._settings
        with seeded(derive_seed(self._engine.seed, "propose", self.rounds)), on_device(self._model, self._engine.device), torch.no_grad():
            prompts = tokenise_prompts(self._shown(count), self._bundle, Form("plain"), "policy")
            width = max(map(len, prompts))
            ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=self._engine.device)
            attention = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self._engine.device)
            made = self._model.generate(
                input_ids=ids,
                attention_mask=attention,
                do_sample=True,
                top_k=0,
                top_p=how.top_p,
                temperature=how.temperature,
                max_new_tokens=how.max_new_tokens,
                pad_token_id=0,
                use_cache=True,
            )
        said = made[:, width:]
        mask = torch.zeros_like(said)
        self._questions = []
        for row, tokens in enumerate(said.tolist()):
            length, question = self._cut(tokens)
            mask[row, :length] = 1
            self._questions.append(question)
        self._rollout = Rollout(made, torch.cat([attention, mask], dim=1), mask.to(torch.get_default_dtype()))
        return list(self._questions)

    def learn(self, rewards: Sequence[float]) -> None:
        """Some passes over the last proposal."""
        how, rollout = self._settings, self._rollout
        assert rollout is not None
        with on_device(self._learnt, self._engine.device), on_device(self._model, self._engine.device):
            with torch.no_grad():
                old, values, entropy = self._evaluate(rollout)
                with without_adapter(self._model):
                    reference = self._evaluate(rollout)[0]
            scores = torch.tensor(list(rewards), device=old.device, dtype=old.dtype)
            per_token = token_rewards(scores, old - reference, entropy, rollout.mask, how.kl, how.entropy)
            advantages, returns = advantages_of(per_token, values, rollout.mask, how.gamma, how.lam)
            advantages = whitened(advantages, rollout.mask)
            random = np.random.default_rng(derive_seed(self._engine.seed, "learn", self.rounds))
            for _ in range(how.passes):
                for part in np.array_split(random.permutation(len(scores)), max(1, len(scores) // how.batch_size)):
                    chosen = torch.from_numpy(part).to(old.device)
                    some = Rollout(*(each[chosen] for each in rollout))
                    log_probs, predicted, _ = self._evaluate(some)
                    loss = clipped_policy_loss(log_probs, old[chosen], advantages[chosen], some.mask, how.clip)
                    loss = loss + how.value_weight * clipped_value_loss(predicted, values[chosen], returns[chosen], some.mask, how.clip)
                    self._optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    self._optimizer.step()
        for question, reward in zip(self._questions, rewards, strict=True):
            self._best[question] = reward
        self._best = dict(sorted(self._best.items(), key=lambda item: -item[1])[:64])
        self.rounds += 1
        if self._state is not None:
            save_state(self._state, self._learnt, self._optimizer, {"step": self.rounds, "best": self._best})

    def _evaluate(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """Of each token of the questions: log-probability, value and entropy, (B, T), in the value's precision, whatever that of the model is."""
        length = rollout.mask.shape[1]
        positions = (rollout.attention.cumsum(dim=1) - 1).clamp(min=0)
        out = self._model(input_ids=rollout.tokens, attention_mask=rollout.attention, position_ids=positions, output_hidden_states=True)
        logs = out.logits[:, -length - 1 : -1].to(self._value.weight.dtype).log_softmax(dim=-1)
        chosen = logs.gather(2, rollout.tokens[:, -length:, None])[..., 0]
        values = self._value(out.hidden_states[-1][:, -length - 1 : -1].to(self._value.weight.dtype))[..., 0]
        return chosen * rollout.mask, values * rollout.mask, -(logs.exp() * logs).sum(dim=-1) * rollout.mask

    def _shown(self, count: int) -> list[str]:
        random = np.random.default_rng(derive_seed(self._engine.seed, "shown", self.rounds))
        best = list(self._best)

        def one() -> str:
            pool = best if best and random.random() < self._settings.replay else self._seeds
            return pool[int(random.integers(len(pool)))]

        return ["".join(f"{i + 1}. {one()}\n" for i in range(self._settings.shots)) + f"{self._settings.shots + 1}." for _ in range(count)]

    def _cut(self, tokens: Sequence[int]) -> tuple[int, str]:
        """How many tokens the question has, the one that ends it included, and the question."""
        text = ""
        for length in range(1, len(tokens) + 1):
            text = str(self._tokenizer.decode(tokens[:length], skip_special_tokens=True))
            if tokens[length - 1] in self._ends or "?" in text or "\n" in text.lstrip():
                return length, text.strip().split("\n")[0].partition("?")[0].strip() + ("?" if "?" in text else "")
        return len(tokens), text.strip()
