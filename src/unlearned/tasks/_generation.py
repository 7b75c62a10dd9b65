"""Greedy answers of a causal language model, in batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlearned.tasks._decoders import run
from unlearned.tasks._task import Batch
from unlearned.tasks._texts import IGNORED


def greedy(model: nn.Module, batch: Batch, end: frozenset[int], max_new_tokens: int) -> Tensor:
    """What the model answers, and how it ranked what it should have answered, (B, T, 2).

    At [..., 0] the generated tokens, each + 1, and 0 after the end. At [..., 1] the rank, from 1, of the j-th token of the true answer among the scores of
    step j; 0 where the true answer is over, or generation ended before.

    Prompts are padded on the left, with positions that count real tokens, so that a prompt is answered as it is alone. An answer ends with one of the tokens
    `end`, after `max_new_tokens`, or where the model's context is full.

    Args:
        model: of transformers; in eval mode.
        batch: `input_ids`, `labels`, `attention_mask`, `prompt_length`.
        end: tokens that end an answer; they are not part of it.
        max_new_tokens: ≥ 1.
    """
    prompts, mask = left_padded(batch)
    gold = true_answers(batch)
    context = getattr(getattr(model, "config", None), "max_position_embeddings", None) or 10**9
    room = (context - mask.sum(dim=1)).clamp(min=1, max=max_new_tokens)  # of each prompt by itself, whatever it shares a batch with
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)
    tokens, past, said, ranks = prompts, None, [], []
    stops = torch.tensor(sorted(end), device=prompts.device)
    for step in range(int(room.max())):
        out = run(model, 1, input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=past, use_cache=True)
        scores, past = out.logits[:, -1], out.past_key_values
        chosen = scores.argmax(dim=1)
        alive = ~ended
        if step < gold.shape[1]:
            wanted = gold[:, step]
            better = (scores > scores.gather(1, wanted.clamp(min=0)[:, None])).sum(dim=1)
            ranks.append(torch.where(alive & (wanted >= 0), better + 1, 0))
        else:
            ranks.append(torch.zeros_like(chosen))
        ended = ended | torch.isin(chosen, stops)
        said.append(torch.where(ended, 0, chosen + 1))
        ended = ended | (step + 1 >= room)
        if bool(ended.all()):
            break
        tokens = chosen[:, None]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = (positions[:, -1:] + 1).clamp(max=context - 1)
    return torch.stack([torch.stack(said, dim=1), torch.stack(ranks, dim=1)], dim=2)


def left_padded(batch: Batch) -> tuple[Tensor, Tensor]:
    """The prompts alone, padded on the left with 0, and their mask, both (B, P)."""
    lengths = batch["prompt_length"]
    width = int(lengths.max())
    # Column c of the result is token c − (width − length) of the row.
    source = torch.arange(width, device=lengths.device) - (width - lengths)[:, None]
    mask = (source >= 0).long()
    return batch["input_ids"].gather(1, source.clamp(min=0)) * mask, mask


def true_answers(batch: Batch) -> Tensor:
    """The tokens that should follow the prompt, (B, A), −1 behind them."""
    lengths = batch["prompt_length"]
    labels = batch["labels"]
    width = max(1, int((batch["attention_mask"].sum(dim=1) - lengths).max()))
    source = torch.arange(width, device=lengths.device) + lengths[:, None]
    inside = source < labels.shape[1]
    found = labels.gather(1, source.clamp(max=labels.shape[1] - 1))
    return torch.where(inside & (found != IGNORED), found, -1)
