"""Making models anew, loading and saving them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.models import bits, bundle_of, flags, layer_of, linear_network, made, plain_network, problem_of, same_bits, task_of
from unlearned.errors import InputError
from unlearned.tasks._task import Bundle, ModelSource

CLASSIFIER = task_of("image-classification")


@pytest.mark.parametrize("kind", ["plain", "resnet", "vit", "gpt2", "llama", "unet"])
def test_a_fresh_model_has_the_architecture_and_none_of_the_weights(kind: str) -> None:
    problem = problem_of(kind)
    model = problem.original.model
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(100)
    drawn = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            drawn.append(problem.task.fresh(problem.original))
    assert same_bits(bits(drawn[0].model), bits(drawn[1].model))
    assert not same_bits(bits(drawn[0].model), bits(drawn[2].model))
    assert problem.task.architecture(drawn[0]) == problem.task.architecture(problem.original)
    assert all(float(tensor.double().abs().max()) < 50 for tensor in drawn[0].model.state_dict().values())
    assert flags(drawn[0].model) == flags(model)


def test_a_fresh_model_keeps_no_statistics_of_the_data() -> None:
    """Batch normalisation without parameters holds nothing but running means: they were computed with the forget set."""
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, affine=False), nn.Linear(64, 10))
    model(torch.rand(50, 1, 8, 8) + 7)
    fresh = CLASSIFIER.fresh(Bundle(model)).model
    assert torch.equal(layer_of(fresh, 1).running_mean, torch.zeros(64))
    assert int(layer_of(fresh, 1).num_batches_tracked) == 0


def test_a_layer_that_cannot_be_made_anew_is_named() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

    with pytest.raises(InputError, match="layer '1' \\(Scale\\) cannot be initialised anew"):
        CLASSIFIER.fresh(Bundle(nn.Sequential(nn.Linear(2, 2), Scale())))


def test_architectures_differ() -> None:
    wider = nn.Sequential(plain_network(), nn.Linear(10, 10))
    names = [CLASSIFIER.architecture(Bundle(model)) for model in (plain_network(), plain_network(), wider, made(linear_network))]
    assert names[0] == names[1]
    assert len(set(names)) == 3


@pytest.mark.parametrize("kind", ["resnet", "gpt2", "unet"])
def test_a_saved_model_can_be_loaded_by_name(kind: str, tmp_path: Path) -> None:
    bundle = bundle_of(kind)
    task = problem_of(kind).task
    task.save(bundle, tmp_path)
    loaded = task.load(ModelSource(source=str(tmp_path)), "model")
    assert same_bits(bits(bundle.model), bits(loaded.model))
    assert not loaded.model.training
    assert task.architecture(loaded) == task.architecture(bundle)


def make_network() -> nn.Module:
    return plain_network()


def test_a_function_with_weights(tmp_path: Path) -> None:
    model = made(plain_network, seed=8)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    source = ModelSource(source="tests.tasks.test_models:make_network", weights=str(tmp_path / "w.safetensors"))
    loaded = CLASSIFIER.load(source, "model")
    assert same_bits(bits(model), bits(loaded.model))
    assert not loaded.model.training


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"8.bias": None}, "1 tensors missing, 0 unknown"),
        ({"9.bias": torch.zeros(3)}, "0 tensors missing, 1 unknown"),
        ({"8.bias": torch.zeros(3)}, "1 of another shape"),
        ({"8.bias": torch.full((10,), float("nan"))}, "1 weight tensors hold NaN"),
    ],
)
def test_weights_that_do_not_fit_are_refused(broken: dict[str, torch.Tensor | None], message: str, tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in (plain_network().state_dict() | broken).items() if tensor is not None}
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=message):
        CLASSIFIER.load(ModelSource(source="tests.tasks.test_models:make_network", weights=str(tmp_path / "w.safetensors")), "model")


def test_pickles_are_refused_unless_they_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(made(plain_network, seed=8).state_dict(), path)
    source = ModelSource(source="tests.tasks.test_models:make_network", weights=str(path))
    with pytest.raises(InputError, match="is a pickle"):
        CLASSIFIER.load(source, "model")
    assert same_bits(bits(CLASSIFIER.load(source.model_copy(update={"allow_pickle": True}), "model").model), bits(made(plain_network, seed=8)))


def test_code_in_an_allowed_pickle_does_not_run(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "w.pt").write_bytes(pickle.dumps(Evil()))
    source = ModelSource(source="tests.tasks.test_models:make_network", weights=str(tmp_path / "w.pt"), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read as tensors only"):
        CLASSIFIER.load(source, "model")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no.such.module:f", "cannot be imported"),
        ("tests.models:nothing", "has no function 'nothing'"),
        ("tests.models:bundle_of", "fails when it is called"),
        ("builtins:dict", "returned dict, not an nn.Module"),
        ("./nowhere", "there is no model at"),
    ],
)
def test_sources_that_are_no_models(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CLASSIFIER.load(ModelSource(source=source), "model")


def test_an_incomplete_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.json"):
        CLASSIFIER.load(ModelSource(source=str(tmp_path)), "model")
    CLASSIFIER.save(bundle_of("resnet"), tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="no model can be loaded"):
        CLASSIFIER.load(ModelSource(source=str(tmp_path)), "model")
    weights.unlink()
    with pytest.raises(InputError, match="holds no weights"):
        CLASSIFIER.load(ModelSource(source=str(tmp_path)), "model")
