"""Loading and saving of models, shared by the tasks: never a pickle, never remote code, unless the user says so."""

from __future__ import annotations

import copy
import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unlearned.errors import Fault, InputError
from unlearned.tasks._task import Bundle, ModelSource

WEIGHTS = "model.safetensors"
PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".th"})
_FUNCTION = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


def is_function(source: str) -> bool:
    """Whether a source is `module:function`."""
    return bool(_FUNCTION.match(source))


def call_function(source: str, field: str) -> Any:
    """Import `module:function`, also from the working directory, and call it.

    Raises:
        InputError: if it cannot be imported or called without arguments.
    """
    module_name, _, attribute = source.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            Fault(field, f"module {module_name!r} cannot be imported ({error}).", "Run from the directory that holds it, or install it.")
        ) from error
    except (Exception, SystemExit) as error:  # the user's own module may raise anything
        raise InputError(Fault(field, f"module {module_name!r} fails on import ({_said(error)}).", "Make it importable first.")) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise InputError(Fault(field, f"module {module_name!r} has no function {attribute!r}.", "Name a function that takes no arguments."))
    try:
        return function()
    except (Exception, SystemExit) as error:  # the user's own function may raise anything
        raise InputError(Fault(field, f"{source!r} fails when it is called ({_said(error)}).", "It must work without arguments.")) from error


def _said(error: BaseException) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:200]}"


def refuse_pickle(path: Path, allow: bool, field: str) -> None:
    """Raise an `InputError` if the file is a pickle by its name and pickles were not allowed."""
    if path.suffix.lower() in PICKLES and not allow:
        raise InputError(
            Fault(
                field,
                f"{str(path)!r} is a pickle, and reading a pickle can run any code that it holds.",
                "Save the weights as safetensors (safetensors.torch.save_file). If you made this file yourself, allow it: allow_pickle: true, --allow-pickle.",
            )
        )


def read_weights(path: Path, allow_pickle: bool, field: str) -> dict[str, Tensor]:
    """Tensors of a weights file.

    Raises:
        InputError: if the file is missing, damaged, or a pickle that was not allowed.
    """
    if path.is_dir():
        path /= WEIGHTS
    if not path.is_file():
        raise InputError(Fault(field, f"there is no file {str(path)!r}.", "Check the path; relative paths start at the working directory."))
    refuse_pickle(path, allow_pickle, field)
    try:
        if path.suffix.lower() in PICKLES:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
            if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
                raise TypeError("not only tensors")
            return {str(name): tensor for name, tensor in tensors.items()}
        loaded: dict[str, Tensor] = load_file(path)
        return loaded
    except (SafetensorError, OSError) as error:
        raise InputError(Fault(field, f"{str(path)!r} is not a whole safetensors file ({error}).", "Copy or save it again; it may be cut off.")) from error
    except Exception as error:  # the unpickler may raise anything on a hostile file
        raise InputError(Fault(field, f"{str(path)!r} cannot be read as tensors only ({type(error).__name__}).", "Save the weights as safetensors.")) from error


def check_finite(model: nn.Module, field: str) -> None:
    """Raise an `InputError` if any weight is NaN or infinite."""
    bad = [name for name, tensor in model.state_dict().items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]
    if bad:
        raise InputError(
            Fault(field, f"{len(bad)} weight tensors hold NaN or infinity, first {bad[0]!r}.", "Use a checkpoint from before its training diverged.")
        )


def load_function(source: ModelSource, field: str) -> Bundle:
    """A model from `module:function`, with weights if they are given, in eval mode.

    Raises:
        InputError: if the function does not return an nn.Module or the weights do not fit it.
    """
    model = call_function(source.source, field)
    if not isinstance(model, nn.Module):
        raise InputError(Fault(field, f"{source.source!r} returned {type(model).__name__}, not an nn.Module.", "Return the model itself."))
    if source.weights is not None:
        weights_field = f"{field}.weights"
        tensors = read_weights(Path(source.weights), source.allow_pickle, weights_field)
        expected = model.state_dict()
        missing, unknown = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
        shaped = sorted(name for name in set(expected) & set(tensors) if expected[name].shape != tensors[name].shape)
        if missing or unknown or shaped:
            first = (missing or unknown or shaped)[0]
            what = f"{len(missing)} tensors missing, {len(unknown)} unknown, {len(shaped)} of another shape (first {first!r})"
            raise InputError(Fault(weights_field, f"the weights do not fit the model: {what}.", f"Give the weights of the model that {source.source!r} makes."))
        model.load_state_dict(tensors)
    check_finite(model, field)
    return Bundle(model.eval(), {}, source)


def pretrained_directory(source: ModelSource, field: str, config_name: str = "config.json") -> None:
    """Check a local `from_pretrained` directory before transformers does, for messages that say what to do.

    A source that is no path on this machine is taken for a hub id; the hub is asked once whether it knows it.

    Raises:
        InputError: if the directory has no config, no weights, or only pickled ones; or there is neither a directory nor a model on the hub.
    """
    path = Path(source.source)
    if not path.exists():
        if path.is_absolute() or source.source.startswith(".") or source.source.count("/") > 1 or path.suffix in PICKLES | {".safetensors"}:
            raise InputError(Fault(field, f"there is no model at {source.source!r}.", "Check the path; relative paths start at the working directory."))
        _ask_hub(source.source, config_name, field)
        return
    if path.is_file():
        refuse_pickle(path, source.allow_pickle, field)
        raise InputError(Fault(field, f"{source.source!r} is a file.", "Give the directory that save_pretrained wrote, or module:function with `weights`."))
    if not (path / config_name).is_file():
        raise InputError(Fault(field, f"directory {source.source!r} has no {config_name}.", "Give a directory that save_pretrained wrote."))
    files = {p.suffix.lower() for p in path.rglob("*") if p.is_file()}
    if ".safetensors" not in files:
        pickles = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICKLES)
        if not pickles:
            raise InputError(Fault(field, f"directory {source.source!r} holds no weights.", "Give a directory that save_pretrained wrote."))
        refuse_pickle(pickles[0], source.allow_pickle, field)


def _ask_hub(name: str, config_name: str, field: str) -> None:
    """One short question instead of the library's minute of retries: most such names are mistyped paths."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        if isinstance(try_to_load_from_cache(name, config_name), str):
            return
        HfApi().model_info(name, timeout=10)
    except HFValidationError as error:
        raise InputError(Fault(field, f"{name!r} is neither a directory here nor a name for the hub.", "Check the path.")) from error
    except Exception as error:  # the client's own kinds differ between versions
        what = f"there is no directory {name!r}, and the hub does not give a model of that name ({type(error).__name__})."
        raise InputError(Fault(field, what, "Check the path or the hub id; for a hub id also the connection and, if it is private, the login.")) from error


def only_float32(source: ModelSource, field: str) -> None:
    """Raise an `InputError` if the source asks for another precision."""
    if source.dtype != "float32":
        raise InputError(Fault(f"{field}.dtype", f"only language models are held in {source.dtype}.", "Leave it out."))


def from_pretrained(load: Callable[..., Any], source: ModelSource, field: str) -> nn.Module:
    """Call a `from_pretrained` safely: safetensors unless pickles are allowed, no remote code, eval mode, in the precision that the source names.

    Raises:
        InputError: if it fails; or if weights of the checkpoint are missing, so that the library would invent them.
    """
    try:
        model, info = load(
            source.source,
            use_safetensors=None if source.allow_pickle else True,
            trust_remote_code=False,
            dtype=getattr(torch, source.dtype),
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises many kinds for a wrong path, config or file
        detail = str(error).strip().splitlines()
        first = detail[0][:200] if detail else ""
        remedy = "Give a directory that save_pretrained wrote (whole, as safetensors), a hub id, or module:function."
        if first.startswith("Unrecognized configuration class"):
            remedy = "If it is a model for another task, name that: `task:` in a recipe, --task on the command line."
        raise InputError(
            Fault(
                field,
                f"no model can be loaded from {source.source!r} ({type(error).__name__}: {first}).",
                remedy,
            )
        ) from error
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        raise InputError(
            Fault(
                field,
                f"the checkpoint {source.source!r} lacks {len(missing)} tensors, first {missing[0]!r}.",
                "Give a checkpoint of the whole model, its head included.",
            )
        )
    assert isinstance(model, nn.Module)
    check_finite(model, field)
    return model.eval()


def is_transformers(model: nn.Module) -> bool:
    """Whether the model is one of the transformers library; others may have a `from_pretrained` of their own."""
    return any(kind.__module__.partition(".")[0] == "transformers" for kind in type(model).__mro__)


def restore(directory: Path, like: Bundle) -> Bundle:
    """A transformers model or a plain module whose weights lie in `directory`, with the companions of `like`."""
    if is_transformers(like.model):
        load = type(like.model).from_pretrained  # type: ignore[attr-defined]  # every model of transformers has it
        held = "bfloat16" if next(like.model.parameters()).dtype == torch.bfloat16 else "float32"
        return like.with_model(from_pretrained(load, ModelSource(source=str(directory), dtype=held), "model"))
    model = copy.deepcopy(like.model)
    model.load_state_dict(load_file(directory / WEIGHTS))
    return like.with_model(model.eval())


def save_module(bundle: Bundle, directory: Path, task: str) -> None:
    """Write a plain nn.Module: safetensors, and how to make the module around them."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in bundle.model.state_dict().items()}
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    origin = bundle.origin.source if bundle.origin else None
    (directory / "unlearned.json").write_text(json.dumps({"task": task, "source": origin}, indent=2) + "\n", encoding="utf-8")
