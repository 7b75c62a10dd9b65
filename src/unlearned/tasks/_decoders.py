"""The blocks of a decoder, the projection that ends each one's MLP, and what flows through them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from unlearned.errors import Fault, InputError
from unlearned.tasks._linear import linear_layers, transposed_linear_layers
from unlearned.tasks._task import Batch

_DOWN = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2", "fc2", "feed_forward.w2", "mlp.fc_out")
"""Where the families of decoders keep the projection from the MLP's inner width to the model's."""


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The decoder's blocks, first to last: the longest list of modules of one class in the model.

    Raises:
        InputError: if the model has no such list.
    """
    lists = [list(m) for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) and len({type(block) for block in m}) == 1]
    lists = [blocks for blocks in lists if any(down_path(block) or _experts(block) for block in blocks)]
    if not lists:
        raise InputError(
            Fault("model", f"{type(model).__name__} has no decoder blocks that are known here.", "Use a decoder of a family that the documentation lists.")
        )
    return max(lists, key=len)


def language_model_in(model: nn.Module) -> nn.Module | None:
    """What has a vocabulary, also within adapters, which answer for attributes of the model inside; None: nothing has."""
    return next((module for module in model.modules() if hasattr(type(module), "get_output_embeddings")), None)


def run(model: nn.Module, count: int, **inputs: Any) -> Any:
    """A forward pass with logits of the last `count` tokens; of all where the model cannot leave any out, as nearly all decoders of transformers can.

    One for each word of the vocabulary, they are most of what a small model computes and holds.
    """
    inner = language_model_in(model)
    asked = model if inner is None else inner
    return model(**inputs, **({"logits_to_keep": count} if "logits_to_keep" in inspect.signature(asked.forward).parameters else {}))


def run_batch(model: nn.Module, batch: Batch, count: int = 1) -> Any:
    """The same with the tokens of a batch, and one logit unless told: enough for what flows through the blocks."""
    return run(model, count, input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])


def down_path(block: nn.Module) -> str | None:
    """The name, within a block, of the layer from the MLP's inner width to the model's width."""
    known = dict(block.named_modules())
    return next((path for path in _DOWN if _is_linear(known.get(path))), None)


def down_projection(model: nn.Module, layer: int) -> nn.Module:
    """The down-projection of block `layer`, from 0.

    Raises:
        InputError: if the block has none of its own (a mixture of experts), it is quantised, or the model has no block of that number.
    """
    blocks = blocks_of(model)
    if not 0 <= layer < len(blocks):
        raise InputError(
            Fault("method.layers", f"there is no layer {layer}; the model has {len(blocks)}, counted from 0.", f"Give numbers from 0 to {len(blocks) - 1}.")
        )
    block = blocks[layer]
    path = down_path(block)
    if path is None:
        what = f"block {layer} ({type(block).__name__}) is a mixture of experts: there is no one projection through which its MLP writes."
        raise InputError(Fault("model", what, "Use a dense model."))
    found = block.get_submodule(path)
    weight = found.weight
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        raise InputError(Fault("model", f"the weights of block {layer} are quantised and cannot be edited.", "Load the model in float32 or bfloat16."))
    return found


def is_transposed(projection: nn.Module) -> bool:
    """Whether its weight goes from input to output."""
    return isinstance(getattr(projection, "base_layer", projection), transposed_linear_layers())  # an adapter may stand around it


def matrix_of(projection: nn.Module) -> Tensor:
    """W with output = W h, (q, p): a view on the layer's weight (GPT-2 keeps its transpose)."""
    weight = projection.weight
    assert isinstance(weight, Tensor)
    return weight.T if is_transposed(projection) else weight


def writes_to_the_residual(model: nn.Module, layer: int, batch: Batch) -> bool:
    """Whether what the down-projection puts out is added to the block's output as it is: false where a norm comes between.

    Measured: the projection's output is shifted by as much as the block's output is large, and the block's output has to shift by the same.
    """
    block, projection = blocks_of(model)[layer], down_projection(model, layer)
    seen: list[Tensor] = []

    def run(shift: Tensor | None) -> Tensor:
        with torch.no_grad(), ExitStack() as stack:
            if shift is not None:
                stack.enter_context(_hooked(projection, lambda _, __, output: output + shift.to(output)))
            stack.enter_context(_hooked(block, lambda _, __, output: seen.append(_first(output).float())))
            model(**{name: batch[name][:1] for name in ("input_ids", "attention_mask")})
        return seen.pop()

    before = run(None)
    shift = before.square().mean().sqrt() * torch.linspace(-1, 1, before.shape[-1], device=before.device)
    moved = run(shift) - before
    return bool((moved - shift).norm() < 0.05 * shift.expand_as(moved).norm())


Change = Callable[[Tensor], Tensor]
"""From a residual stream (B, T, q) to another of the same shape."""


@contextmanager
def changed_states(model: nn.Module, changes: Mapping[int, Change], *, at: Literal["input", "output"] = "output") -> Iterator[None]:
    """While it lasts, the residual stream in front of each of these blocks (`at` input) or behind it (output) is what its change makes of it.

    The one way in which methods and attacks reach hidden states. Gradients flow through a change; contexts may be nested, the inner one acts on what the outer
    one left; hooks are gone afterwards, also after an error. Where blocks are computed anew in the backward pass (gradient checkpointing), they are changed
    there as they were: see `recomputed_alike`.

    Args:
        model: with decoder blocks, wrapped or not.
        changes: by number of the block, from 0. While a model generates from its cache, T is 1.
        at: where.

    Raises:
        InputError: if the model has no decoder blocks that are known.
    """
    blocks = blocks_of(model)

    def install() -> list[RemovableHandle]:
        if at == "input":
            return [blocks[layer].register_forward_pre_hook(partial(_change_input, change), with_kwargs=True) for layer, change in changes.items()]
        return [blocks[layer].register_forward_hook(partial(_change_output, change)) for layer, change in changes.items()]

    with _installed([install]):
        yield


_Install = Callable[[], list[RemovableHandle]]
_lasting: list[_Install] = []
"""What puts the hooks of each change that lasts at present in place, the outer ones first."""


@contextmanager
def _installed(changes: Sequence[_Install]) -> Iterator[None]:
    with ExitStack() as stack:
        for install in changes:
            for handle in install():
                stack.callback(handle.remove)
            _lasting.append(install)
            stack.callback(_lasting.remove, install)
        yield


def recomputed_alike() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What is entered in the forward pass and again when activations are computed anew: `context_fn` of torch's checkpointing.

    The changes that last now are there again then. Whether the hooks of a block are part of what is computed anew depends on the version of transformers;
    where they are not, nobody calls them.
    """
    now = tuple(_lasting)

    @contextmanager
    def again() -> Iterator[None]:
        with _installed([install for install in now if install not in _lasting]):
            yield

    return nullcontext(), again()


@contextmanager
def skipped(model: nn.Module, layers: Collection[int]) -> Iterator[None]:
    """While it lasts, each block of these numbers hands on what it was given, as if it were not there.

    The block still runs, so that a cache holds as many positions for it as for others.
    """
    blocks = blocks_of(model)
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(blocks[layer].register_forward_hook(_return_input, with_kwargs=True).remove)
        yield


def without_component(hidden: Tensor, direction: Tensor, level: float | Tensor = 0.0) -> Tensor:
    """H − r̂ (r̂ᵀ h − level): the component along a direction is gone, or set to `level`. Idempotent.

    Args:
        hidden: (..., q).
        direction: r, (q,), of any length but 0; nothing is removed along a direction of length 0.
        level: what the component becomes.
    """
    length = direction.norm()
    r = (direction / length.clamp(min=torch.finfo(direction.dtype).tiny)).to(hidden)
    along: Tensor = (hidden @ r)[..., None]
    removed: Tensor = (along - level) * r * (length > 0)
    return hidden - removed


@contextmanager
def shifted(model: nn.Module, shifts: Mapping[int, Tensor]) -> Iterator[None]:
    """While it lasts, each block of these numbers adds its vector (q,) to its output at every position."""

    def adding(vector: Tensor) -> Change:
        return lambda hidden: hidden + vector.to(hidden)

    with changed_states(model, {layer: adding(vector) for layer, vector in shifts.items()}):
        yield


def hidden_states(model: nn.Module, layer: int, batch: Batch) -> Tensor:
    """The residual stream behind block `layer`, (B, T, q), differentiable."""
    seen: list[Tensor] = []
    with _hooked(blocks_of(model)[layer], lambda _, __, output: seen.append(_first(output))):
        run_batch(model, batch)
    return seen[0]


def block_outputs(model: nn.Module, batch: Batch) -> Tensor:
    """The residual stream behind each block, (B, T, L, q), of the batch's tokens, without gradients."""
    seen: list[Tensor] = []
    with torch.no_grad(), ExitStack() as stack:
        for block in blocks_of(model):
            stack.enter_context(_hooked(block, lambda _, __, output: seen.append(_first(output))))
        run_batch(model, batch)
    return torch.stack(seen, dim=2)


def last_prompt_token(hidden: Tensor, prompt_length: Tensor) -> Tensor:
    """The hidden state at the last token of each prompt, (B, ...), of (B, T, ...)."""
    return hidden[torch.arange(len(hidden), device=hidden.device), prompt_length - 1]


def prompts_alone(batch: Batch) -> Batch:
    """The batch without what stands behind the longest of its prompts, so that nothing of it is computed."""
    longest = int(batch["prompt_length"].max())
    return {name: batch[name][:, :longest] for name in ("input_ids", "attention_mask")} | {"prompt_length": batch["prompt_length"]}


def prompt_states(model: nn.Module, batch: Batch, at: Literal["input", "output"] = "output") -> Tensor:
    """The residual stream at the last prompt token in front of each block or behind it, (B, L, q), without gradients."""
    seen: dict[int, Tensor] = {}

    def keeping(layer: int) -> Change:
        def keep(hidden: Tensor) -> Tensor:
            seen[layer] = last_prompt_token(hidden, batch["prompt_length"])
            return hidden

        return keep

    count = len(blocks_of(model))
    with torch.no_grad(), changed_states(model, {layer: keeping(layer) for layer in range(count)}, at=at):
        run_batch(model, batch)
    return torch.stack([seen[layer] for layer in range(count)], dim=1)


def projection_inputs(model: nn.Module, layers: Sequence[int], batch: Batch) -> dict[int, Tensor]:
    """What the down-projections of these blocks read, h (B, T, p) by block, without gradients."""
    return projections_and_outputs(model, layers, batch)[0]


def projections_and_outputs(model: nn.Module, layers: Sequence[int], batch: Batch) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """What the down-projections of these blocks read, h (B, T, p), and the residual stream behind the blocks, (B, T, q), by block, without gradients."""
    seen: dict[int, Tensor] = {}
    behind: dict[int, Tensor] = {}
    with torch.no_grad(), ExitStack() as stack:
        for layer in layers:
            keep: Callable[..., None] = lambda _, inputs, __, number=layer: seen.__setitem__(number, inputs[0])  # noqa: E731
            stack.enter_context(_hooked(down_projection(model, layer), keep))
            put: Callable[..., None] = lambda _, __, output, number=layer: behind.__setitem__(number, _first(output))  # noqa: E731
            stack.enter_context(_hooked(blocks_of(model)[layer], put))
        run_batch(model, batch)
    return seen, behind


def _change_input(change: Change, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (change(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}


def _change_output(change: Change, _: nn.Module, __: Any, output: Any) -> Any:
    changed = change(_first(output))
    return (changed, *output[1:]) if isinstance(output, tuple) else changed


def _return_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    given = args[0] if args else kwargs["hidden_states"]
    return (given, *output[1:]) if isinstance(output, tuple) else given


@contextmanager
def _hooked(layer: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _first(output: Any) -> Tensor:
    """A block returns its hidden states, or a tuple that begins with them."""
    hidden = output[0] if isinstance(output, tuple) else output
    assert isinstance(hidden, Tensor)
    return hidden


def _is_linear(layer: nn.Module | None) -> bool:
    return isinstance(getattr(layer, "base_layer", layer), linear_layers())  # an adapter may stand around it


def _experts(block: nn.Module) -> bool:
    return any("expert" in type(layer).__name__.lower() or "moe" in type(layer).__name__.lower() for layer in block.modules())
