"""Attacks on weights against naive loops and worked arithmetic."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tests.conformance.test_measurements import subject_of
from tests.models import bundle_of, layer_of, problem_of
from unlearned.attacks._quantizers import QUANTISERS, Library, Quantiser, quantisable
from unlearned.attacks._weights import weights_of
from unlearned.attacks.prune import Prune, channel_sizes, largest
from unlearned.attacks.quantize import Quantize, rounded
from unlearned.engine.engine import Engine
from unlearned.evidence.subject import Subject
from unlearned.records import Finding, pick


def values(findings: list[Finding], who: str) -> dict[float | None, float | None]:
    return {f.budget: f.value for f in findings if f.subject == who and f.metric == "knowledge"}


def knowledge(subject: Subject, model: nn.Module) -> float:
    return float(subject.engine.evaluate(model, subject.problem.forget, subject.engine.task.knowledge).mean())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- which weights

_PROJECTIONS = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down")


@pytest.mark.parametrize(
    ("kind", "kinds", "names"),
    [
        ("plain", ("linear", "convolution", "embedding"), ["0", "3", "8"]),
        ("plain", ("linear",), ["8"]),
        ("plain", ("embedding",), []),
        ("gpt2", ("embedding",), ["transformer.wte", "transformer.wpe"]),
        ("llama", ("embedding",), ["model.embed_tokens"]),
        ("llama", ("linear",), [f"model.layers.0.{name}_proj" for name in _PROJECTIONS]),
    ],
)
def test_weights_by_kind(kind: str, kinds: tuple, names: list[str]) -> None:
    """Both language models tie the last layer to the embedding: it counts as the embedding's weight, once."""
    assert [weight.name for weight in weights_of(bundle_of(kind).model, kinds)] == names


def test_output_channels_lie_where_the_layer_says() -> None:
    model = nn.ModuleList([nn.Linear(3, 5), Conv1D(5, 3), nn.Conv2d(3, 5, 2), nn.ConvTranspose2d(3, 5, 2), nn.Embedding(5, 3)])
    assert [weight.tensor.shape[weight.channels] for weight in weights_of(model)] == [5] * 5


# --- pruning


def test_smallest_weights_go_by_hand() -> None:
    """Magnitudes 1 to 6 over two tensors: half of them, 1, 2, 3, go."""
    masks = largest([torch.tensor([[1.0, -5.0], [3.0, -4.0]]), torch.tensor([-2.0, 6.0])], 0.5)
    assert [mask.tolist() for mask in masks] == [[[False, True], [False, True]], [False, True]]


@pytest.mark.parametrize(("share", "left"), [(0.0, 4), (0.24, 3), (0.25, 3), (0.5, 0), (0.75, 0)])
def test_what_ties_goes_together(share: float, left: int) -> None:
    [mask] = largest([torch.tensor([1.0, 2.0, -2.0, 2.0])], share)
    assert int(mask.sum()) == left


@pytest.mark.parametrize("share", [0.0, 0.1, 0.33, 0.5, 0.99])
def test_pruning_against_a_sorted_list(share: float) -> None:
    tensors = [random(4, 3, seed=1), random(7, seed=2), random(2, 3, 2, 2, seed=3)]
    entries = sorted((abs(float(x)), i, j) for i, tensor in enumerate(tensors) for j, x in enumerate(tensor.flatten()))
    gone = {(i, j) for _, i, j in entries[: round(share * len(entries))]}
    for i, mask in enumerate(largest(tensors, share)):
        assert mask.flatten().tolist() == [(i, j) not in gone for j in range(mask.numel())]


def test_size_of_a_channel_is_its_root_mean_square() -> None:
    weight = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    assert channel_sizes(weight, 0).tolist() == pytest.approx([12.5**0.5, 2**0.5])
    assert channel_sizes(weight, 1).tolist() == pytest.approx([4.5**0.5, 10**0.5])


def test_curve_of_pruned_models_by_hand() -> None:
    subject = subject_of("plain")
    findings = Prune(shares=(0.4,)).measure(subject)
    for who, model in subject.models()[:2]:
        pruned = copy.deepcopy(model)
        weights = [layer_of(pruned, i).weight for i in (0, 3, 8)]
        smallest = sorted(float(x) for weight in weights for x in weight.detach().abs().flatten())
        limit = smallest[round(0.4 * len(smallest)) - 1]
        with torch.no_grad():
            for weight in weights:
                weight[weight.abs() <= limit] = 0
        assert values(findings, who) == {0: pytest.approx(knowledge(subject, model)), 40: pytest.approx(knowledge(subject, pruned))}
    assert {f.budget_unit for f in findings} == {"% pruned"}


def test_channels_lose_weights_and_bias_and_the_answer_keeps_its_own() -> None:
    """Fourteen channels of two convolutions; the last layer's ten, one per class, are not among them."""
    subject = subject_of("plain")
    findings = Prune(shares=(0.5,), structure="channels").measure(subject)
    pruned = copy.deepcopy(subject.unlearned.model)
    sizes = [(float(layer_of(pruned, i).weight[c].detach().square().mean().sqrt()), i, c) for i, n in ((0, 6), (3, 8)) for c in range(n)]
    with torch.no_grad():
        for _, i, c in sorted(sizes)[:7]:
            layer_of(pruned, i).weight[c] = 0
            layer_of(pruned, i).bias[c] = 0
    assert values(findings, "unlearned")[50] == pytest.approx(knowledge(subject, pruned))
    assert not any(layer._forward_hooks for layer in subject.problem.original.model.modules())


@pytest.mark.parametrize(
    ("attack", "what"),
    [
        (Prune(layers=("embedding",)), "no weights of embedding layers"),
        (Prune(layers=("linear",), structure="channels"), "no channels of linear layers"),
        (Quantize(layers=("embedding",)), "no embedding layer"),
    ],
)
def test_a_model_without_such_layers_is_not_attacked(attack: Prune | Quantize, what: str) -> None:
    [finding] = attack.measure(subject_of("plain"))
    assert finding.value is None
    assert what in (finding.reason or "")


# --- quantisation


def test_rounding_by_hand() -> None:
    """3 bits: three steps to either side; the steps are 1 and 2."""
    weight = torch.tensor([[3.0, 1.4, -0.4, -2.6], [6.0, -6.0, 2.9, 3.1]])
    assert rounded(weight, 3, 0).tolist() == [[3.0, 1.0, 0.0, -3.0], [6.0, -6.0, 2.0, 4.0]]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("shape", "channels"), [((5, 7), 0), ((5, 7), 1), ((4, 3, 2, 2), 0), ((4, 3, 2, 2), 1)])
def test_rounding_takes_the_nearest_point_of_each_channels_grid(bits: int, shape: tuple[int, ...], channels: int) -> None:
    weight = random(*shape, seed=bits)
    found = rounded(weight, bits, channels)
    most = 2 ** (bits - 1) - 1
    for channel, after in zip(weight.movedim(channels, 0).flatten(1).tolist(), found.movedim(channels, 0).flatten(1).tolist(), strict=True):
        step = max(abs(x) for x in channel) / most
        grid = [k * step for k in range(-most, most + 1)]
        assert after == pytest.approx([min(grid, key=lambda point: abs(point - x)) for x in channel], abs=1e-12)
    torch.testing.assert_close(rounded(found, bits, channels), found)


def test_a_channel_of_zeros_stays() -> None:
    assert rounded(torch.zeros(2, 3), 4, 0).tolist() == [[0.0] * 3] * 2


def test_a_change_below_half_a_step_is_undone() -> None:
    """The original lies on the grid of 4 bits. The unlearned model differs by less than half a step, enough to forget, and not where a channel is largest."""
    problem = problem_of("linear")
    original = copy.deepcopy(problem.original.model)
    layer = layer_of(original, 1)
    with torch.no_grad():
        layer.weight.copy_(rounded(layer.weight, 4, 0))
        hidden = copy.deepcopy(original)
        steps = layer.weight.abs().amax(dim=1, keepdim=True) / 7
        x = torch.stack([problem.forget[i]["pixel_values"].flatten() for i in range(len(problem.forget))])
        y = torch.tensor(problem.forget.fact("label"))
        away = torch.zeros_like(layer.weight).index_add_(0, y, -x)
        layer_of(hidden, 1).weight += torch.where(layer.weight.abs() < 6.9 * steps, 0.49 * steps * away.sign(), 0.0)
    bundle = problem.original
    changed = type(problem)(problem.task, bundle.with_model(original), problem.forget, problem.retain, problem.test)
    findings = Quantize(bits=(4,)).measure(Subject(changed, bundle.with_model(hidden), [], Engine(problem.task)))
    before, after = values(findings, "original"), values(findings, "unlearned")
    assert (after[0] or 0) < (before[0] or 0) - 0.005
    assert after[28] == pytest.approx(before[28], abs=1e-6)
    assert {f.budget_unit for f in findings} == {"of 32 bits removed"}


class _HalfPrecision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = bundle_of("linear").model.to(torch.bfloat16)

    def forward(self, pixels: Tensor) -> Tensor:
        logits = self.inner(pixels.to(torch.bfloat16)).float()
        assert isinstance(logits, Tensor)
        return logits


def test_bits_are_counted_from_the_precision_that_the_weights_have() -> None:
    problem = problem_of("linear", model=_HalfPrecision())
    findings = Quantize(bits=(16, 8)).measure(Subject(problem, problem.original, [], Engine(problem.task)))
    assert [(f.budget, f.budget_unit) for f in pick(findings, subject="unlearned", metric="knowledge")] == [
        (0, "of 16 bits removed"),
        (8, "of 16 bits removed"),
    ]


def test_only_the_chosen_layers_are_rounded() -> None:
    subject = subject_of("plain")
    changed = copy.deepcopy(subject.unlearned.model)
    with torch.no_grad():
        layer_of(changed, 8).weight.copy_(rounded(layer_of(changed, 8).weight, 2, 0))
    findings = Quantize(bits=(2,), layers=("linear",)).measure(subject)
    assert values(findings, "unlearned")[30] == pytest.approx(knowledge(subject, changed))
    assert [f.budget for f in pick(findings, subject="reference", metric="knowledge")] == [0, 30]


# --- quantisation by libraries


@pytest.mark.parametrize("library", ["torchao", "bitsandbytes"])
def test_a_library_quantises_the_quantisable_of_a_copy(library: Library) -> None:
    pytest.importorskip(library)
    subject = subject_of("llama")
    before = {name: tensor.clone() for name, tensor in subject.unlearned.model.state_dict().items()}
    findings = Quantize(by=library, bits=(8, 4)).measure(subject)
    assert list(values(findings, "unlearned")) == [0, 24, 28]
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.unlearned.model.state_dict().items())
    for bits, share in ((8, 0.03), (4, 0.4)):
        model = copy.deepcopy(subject.unlearned.model)
        QUANTISERS[library].quantise(model, bits, None)
        batch = subject.engine.task.collate([subject.problem.forget[i] for i in range(2)])
        with torch.no_grad():
            plain, rough = (subject.engine.task.outputs(each, batch) for each in (subject.unlearned.model, model))
        assert 0 < float((rough - plain).abs().max()) < share * float(plain.abs().max())


def test_torchao_rounds_to_the_nearest_of_its_grid() -> None:
    pytest.importorskip("torchao")
    for bits, group_size in ((8, None), (4, None), (3, 8)):
        layer = nn.Linear(16, 5)
        weight = layer.weight.detach().clone()
        QUANTISERS["torchao"].quantise(nn.Sequential(layer), bits, group_size)
        groups = weight.reshape(5, -1, group_size or 16)
        steps = groups.abs().amax(dim=2, keepdim=True) / (2 ** (bits - 1) - 1)
        assert ((layer.weight.dequantize().reshape(groups.shape) - groups).abs() <= 0.51 * steps).all()


def test_the_chosen_library_does_the_rounding_and_the_copy_is_what_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def zeros(model: nn.Module, bits: int, group_size: int | None) -> None:
        asked.append((bits, group_size))
        with torch.no_grad():
            for layer in quantisable(model).values():
                layer.weight.zero_()

    monkeypatch.setitem(QUANTISERS, "torchao", Quantiser((4,), True, zeros))
    subject = subject_of("llama")
    findings = values(Quantize(by="torchao", bits=(4,), group_size=2).measure(subject), "unlearned")
    emptied = copy.deepcopy(subject.unlearned.model)
    zeros(emptied, 4, 2)
    assert findings == {0: knowledge(subject, subject.unlearned.model), 28: knowledge(subject, emptied)}
    assert asked[:3] == [(4, 2)] * 3


def test_what_a_library_cannot_do_is_said_up_front(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearned.attacks.quantize.is_installed", lambda library: library == "torchao")
    problem = problem_of("llama")
    said = {fault.field: str(fault) for fault in Quantize(by="bitsandbytes", bits=(8, 3), group_size=4, layers=("embedding",)).faults(problem)}
    assert said.keys() == {"by", "bits", "layers", "group_size"}
    assert "pip install bitsandbytes" in said["by"]
    assert "no format of 3 bits. Choose from 8, 4" in said["bits"]
    [fault] = Quantize(by="torchao", group_size=7).faults(problem)
    assert "which groups of 7 do not divide" in str(fault)
    assert Quantize(by="torchao").faults(problem) == Quantize().faults(problem) == []
