"""The conformance table: one row per method, audit and attack on each kind of model that it is defined for.

A new part gets every behaviour in this directory by adding its rows here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.harness import put_in_place
from tests.models import TASK_OF

IMAGES = ("plain", "resnet", "vit")
TEXTS = ("gpt2", "llama")
ALL = (*IMAGES, *TEXTS, "unet")

HEAD = {
    "plain": r"^8\.",
    "resnet": r"^classifier\.",
    "vit": r"^classifier\.",
    "gpt2": r"ln_f",
    "llama": r"norm\.weight",
    "unet": r"conv_out",
    "pixel": r"^unet\.conv_out",
}
"""A regular expression for a few parameters of each model, near its output."""


class Row(NamedTuple):
    """A part with settings, on a kind of model from `tests.models`."""

    name: str
    kind: str
    settings: dict[str, Any]
    note: str = ""
    random: bool = True
    """Methods: whether another seed gives another result, beyond rounding."""
    chosen: str | None = None
    """Methods: a regular expression for the parameters that may change, where those of HEAD do not fit."""
    settles: str | None = None
    """Methods that choose themselves what changes: a regular expression for it. They have no setting `parameters`."""
    partial: bool = False
    """Methods: whether some of the parameters that may change can stay as they are."""
    inside: str | None = None
    """Methods that are wrapped around another: the setting that holds the other one, and with it `parameters`."""
    where: str | None = None
    """Which samples are to be forgotten, as a filter; None: the first few."""
    subjects: tuple[str, ...] = ("original", "unlearned", "reference")
    """Audits and attacks: which rows its findings have."""
    fewest: int = 1
    """Audits and attacks: how many references, and how many shadow models where it uses them, it takes to measure all of it."""

    stand_in: Callable[[pytest.MonkeyPatch], None] | None = None
    """Audits and attacks: puts something in the place of a package that is not part of the tests' environment."""
    skipped: tuple[int, ...] = ()
    """Audits: positions in the forget set of points that were left out of the unlearning."""

    @property
    def task(self) -> str:
        return TASK_OF[self.kind]

    @property
    def title(self) -> str:
        return "-".join(filter(None, (self.name, self.kind, self.note)))


def _on(kinds: tuple[str, ...], name: str, settings: dict[str, Any], **more: Any) -> list[Row]:
    return [Row(name, kind, settings, **more) for kind in kinds]


# The sets of `problem_of` are 6 and 18 samples: with these settings each pass takes three steps.
_SHORT = {"epochs": 2, "batch_size": 8, "lr": 0.01}
_ADAM = _SHORT | {"optimizer": "adam", "schedule": "cosine", "max_grad_norm": 1.0}

_PROJECTED = _SHORT | {"batch_size": 2, "descent_epochs": 1, "projection_samples": 4, "strength": 0.5}
"""Paced by the forget set."""

_CLASSES = "label in [3, 4, 5]"
"""Whole classes: seven samples, so that 17 are left."""

# Made-up names are one and the same unknown word to these tokenizers: seeds change the order of the questions alone.
_TEXT: dict[str, Any] = {"epochs": 2, "batch_size": 2, "lr": 0.01}
_LUNAR: dict[str, Any] = {"refused_only": False, "reference_count": 6, "layers": (0,), "batch_size": 4}

_DRAWN = {"steps": None, "epochs": 2, "batch_size": 2, "lr": 0.001}
"""Diffusion: three steps in each of two epochs."""
# Passes over the forget set take three steps, each with a rehearsal that counts too.
_TRIES: dict[str, Any] = {"rehearsals": 1, "iterations": 2, "gamma": 0.01}
_POOL: list[dict[str, Any]] = [
    {"id": "a", "kind": "lora", "rank": 2, "optimizer": "adam", "lr": 0.01, "steps": 1, "batch_size": 2, "share": 0.5},
    {"id": "b", "lr": 0.01, "steps": 1, "batch_size": 2, "forget_share": 0.5, "few": 4, "prior_weight": 0.5},
]
_REHEARSED = _TRIES | {"steps": None, "epochs": 1, "forget_batch_size": 2, "batch_size": 2, "lr": 0.01, "norm_limit": None, "pool": _POOL}
_ONCE: dict[str, Any] = {"epochs": 1, "batch_size": 2, "lr": 0.01}

METHODS = [
    *_on(ALL, "retrain", _SHORT),
    *_on(ALL, "fine-tune", _SHORT),
    *_on(ALL, "gradient-ascent", _SHORT | {"batch_size": 2, "lr": 0.001}),
    *_on(ALL, "neg-grad-plus", _SHORT),
    *_on((*IMAGES, *TEXTS), "minnorm-og", _PROJECTED),
    Row(
        "minnorm-og",
        "plain",
        _PROJECTED | {"epochs": 3, "projection_period": 2, "statistics": "batch", "graph": "stale", "forget_statistics": True, "retain_fraction": 0.5},
        "as-the-code",
    ),
    *_on(IMAGES, "scrub", _SHORT | {"max_epochs": 1, "forget_batch_size": 2, "lr_decay_epochs": (1,)}),
    # The order of the data matters to SSD alone through which samples share a batch.
    *_on(ALL, "ssd", {"batch_size": 4, "alpha": 0.5, "dampening": 0.5}, partial=True),
    *_on(IMAGES, "trw", _SHORT | {"batch_size": 6}, where=_CLASSES),
    *_on(IMAGES, "delete", _SHORT | {"batch_size": 2}),
    *_on(TEXTS, "lunar", _LUNAR, settles=r"mlp\.(down|c)_proj\.weight", random=False),
    Row("margin-redirect", "llama", {"refused_only": False, "reference_count": 6}, settles="down_proj", random=False),
    Row("lunar", "llama", _LUNAR | {"solver": "sgd", "epochs": 2, "keep_refusals": True, "retain_sampling": "equal"}, "sgd", settles="down_proj"),
    *_on(IMAGES, "random-label", _SHORT),
    *_on(IMAGES, "salun", _SHORT | {"batch_size": 4}),
    *(row for name in ("grad-diff", "simnpo", "wga", "undial", "idk", "dpo", "llmu") for row in _on(TEXTS, name, _TEXT)),
    *_on(TEXTS, "rmu", _TEXT | {"layer": 0}, chosen="mlp"),
    Row("eru", "gpt2", _TEXT | {"refresh": 2}),
    Row("eru", "llama", _TEXT | {"inner": "sampled", "zscore": True, "positions": "last", "keep_retain_mean": True}, "sampled"),
    Row("adv-npo", "gpt2", _TEXT | {"inner": "expected", "ascent_steps": 1, "lora": {"rank": 2}, "lr": 0.1}, "lora", chosen="mlp.c_proj.weight"),
    Row("rmu", "gpt2", _TEXT | {"layer": 0, "lora": {"rank": 2}, "lr": 0.1}, "lora", chosen="mlp.c_proj.weight"),
    Row("rmu", "llama", _TEXT | {"layer": 0, "coefficient": 3.0}, "chosen", settles="down_proj"),
    Row("grad-diff", "llama", _TEXT | {"retain_loss": "kl", "lora": {"rank": 2}, "lr": 0.1}, "kl-lora", chosen="down_proj"),
    Row("undial", "gpt2", _TEXT | {"alpha": 1.0, "retain_loss": "kl"}, "kl"),
    *_on(ALL, "task-vector", _SHORT | {"batch_size": 2}),
    *_on(ALL, "l1-sparse", _SHORT),
    *_on(ALL, "ridge", _SHORT | {"batch_size": 2}),
    *_on(ALL, "noisy-gd", _SHORT | {"batch_size": 2}),
    *_on((*IMAGES, *TEXTS), "npo", _SHORT | {"batch_size": 2}),
    *_on(IMAGES, "bad-teacher", _SHORT | {"batch_size": 4}),
    *_on(IMAGES, "boundary-shrink", _SHORT | {"batch_size": 2}),
    *_on(IMAGES, "svd", {"batch_size": 2, "forget_samples": 3, "retain_samples": 12}, partial=True),
    Row("resilient", "plain", _TRIES | {"alpha": 1.0, "inner": {"name": "npo"} | _SHORT | {"batch_size": 2}, "pool": _POOL}, inside="inner"),
    Row(
        "resilient",
        "gpt2",
        _TRIES | {"inner": {"name": "npo", "alpha": 1.0, "retain_loss": "kl", "lora": {"rank": 2}} | _ONCE, "pool": _POOL},
        "lora",
        inside="inner",
        chosen="c_proj.weight",
    ),
    Row("resilient", "unet", _TRIES | {"iterations": 1, "inner": {"name": "gradient-ascent"} | _ONCE, "pool": _POOL[1:]}, inside="inner"),
    Row("retrain", "plain", _ADAM | {"optimizer": "adamw"}, "adamw-cosine"),
    Row("fine-tune", "gpt2", _ADAM, "adam-cosine"),
    Row("fine-tune", "plain", _SHORT | {"batch_size": 2, "paced_by": "forget"}, "paced"),
    Row("neg-grad-plus", "plain", _SHORT | {"batch_size": 2, "paced_by": "forget"}, "paced"),
    Row("neg-grad-plus", "unet", _ADAM, "adam-cosine"),
    Row("fine-tune", "llama", _SHORT | {"lora": {"rank": 2, "dropout": 0.1}}, "lora", chosen="down_proj"),
    Row("neg-grad-plus", "gpt2", _ADAM | {"lora": {"rank": 2}}, "lora", chosen="c_proj.weight"),
    Row("scrub", "vit", _SHORT | {"lora": {}, "lr": 0.1, "forget_batch_size": 2}, "lora", chosen="classifier.weight"),
    Row("gradient-ascent", "unet", _SHORT | {"lora": {}, "batch_size": 2}, "lora", chosen="conv_in.weight"),
    Row("scrub", "plain", _SHORT | {"optimizer": "adam", "max_epochs": 2, "forget_batch_size": 2, "alpha": 0.5, "gamma": 1.0, "temperature": 2.0}, "adam"),
    Row("trw", "plain", _ADAM | {"batch_size": 2, "similarity": "features", "paced_by": "forget", "expected_similarity": 0.5}, "features", where=_CLASSES),
    Row("ssd", "plain", {"batch_size": 1, "alpha": 0.5}, "fisher", random=False, partial=True),
    Row("random-label", "plain", _ADAM | {"order": "union", "labels": "other", "drawn": "once"}, "relabel"),
    Row("salun", "plain", _ADAM | {"order": "union"}, "union"),
    Row("ridge", "plain", _ADAM | {"paced_by": "retain"}, "paced"),
    Row("noisy-gd", "plain", _ADAM | {"paced_by": "retain"}, "paced"),
    Row("svd", "plain", {"batch_size": 4}, "all", random=False, partial=True),
    Row("bad-teacher", "vit", _ADAM | {"batch_size": 4, "lora": {}, "lr": 0.1, "temperature": 2.0}, "lora", chosen="classifier.weight"),
    Row("l1-sparse", "plain", _ADAM | {"batch_size": 2, "paced_by": "forget", "no_l1_epochs": 1}, "paced"),
    Row("resalign", "pixel", _REHEARSED, chosen=r"^unet.*attn2\.to_k"),
    Row("esd", "pixel", _DRAWN | {"trajectory_steps": 3, "variant": "all"}),
    Row("uce", "pixel", {}, settles=r"attn2\.to_[kv]\.weight", random=False),
    Row("concept-ablation", "pixel", _DRAWN | {"prior_weight": 0.5, "lora": {"rank": 2}, "lr": 0.1}, "lora", chosen=r"^unet.*attn2\.to_k"),
    Row("salun", "pixel", _SHORT | {"batch_size": 2, "lr": 0.001}),
    Row("erasediff", "pixel", _DRAWN | {"eta": 1.0}),
    Row("selective-amnesia", "pixel", _DRAWN | {"fisher_timesteps": 2, "replay": 4}),
    Row("meta-unlearning", "pixel", _DRAWN | {"trajectory_steps": 3, "variant": "all", "related": "label < 4", "inner_lr": 0.001}),
    Row("npo", "gpt2", _ADAM | {"batch_size": 2, "alpha": 1.0, "retain_loss": "kl", "lora": {"rank": 2}}, "retain-lora", chosen="c_proj.weight"),
]

# Untrained networks answer all with one class, 2 or 8: of these there is an accuracy to be reached.
_AGAIN: dict[str, Any] = {"lr": 0.1, "batch_size": 4, "cap": 60, "alpha": 0.1}

_HOLES: dict[str, Any] = {"language": {"searcher": "evolution", "budget": 12, "round_size": 6}}

AUDITS = [
    *_on(ALL, "utility", {}),
    *_on(ALL, "membership", {}),
    *_on(ALL, "svc-mia", {}),
    Row("svc-mia", "plain", {}, "classes", where=_CLASSES),
    *_on(ALL, "u-lira", {}, fewest=6),
    Row("u-lira", "plain", {"own_variance_from": 3}, "own-variance", fewest=6),
    *_on(ALL, "rmia", {}, fewest=2),
    Row("rmia", "plain", {"a": 1.0}, "a-1", fewest=2),
    *_on(ALL, "klom", {}, fewest=4, subjects=("unlearned", "reference")),
    *_on(ALL, "neurips-score", {}, fewest=6, subjects=("unlearned", "reference")),
    *_on(IMAGES, "zrf", {}),
    *_on(TEXTS, "answers", {"questions": 2}, subjects=("unlearned", "reference")),
    *_on(IMAGES, "output-distance", {}),
    *_on(IMAGES, "mia-nn", {"data": "train"}, where=_CLASSES, fewest=4),
    Row("mia-nn", "plain", {"kernel": "linear", "penalty": 1.0, "variants": ("1d",)}, "linear", where="label == 3", fewest=4),
    *(row for name in ("deviation-score", "answer-ranks", "refusal-quality", "fluency", "memorization") for row in _on(TEXTS, name, {})),
    *_on(TEXTS, "text-membership", {}, fewest=2),
    Row("memorization", "gpt2", {"compat": True}, "compat"),
    Row("text-membership", "gpt2", {"compat": True}, "compat", fewest=2),
    *_on(TEXTS, "tofu", {}, fewest=2),
    Row("lm-eval", "gpt2", {"limit": 7}, stand_in=put_in_place),
    *_on(IMAGES, "relearn-time", _AGAIN, where="label in [2, 8]"),
    *_on((*TEXTS, "unet"), "relearn-time", _AGAIN | {"score": "likelihood", "alpha": 0.0}),
    Row("relearn-time", "plain", {"optimizer": "adam", "cap": 60, "every": 3, "score": "knowledge", "alpha": 0.0}, "knowledge"),
    *_on(TEXTS, "knowledge-holes", _HOLES),
    *_on(("plain", "vit"), "knowledge-holes", {"images": {"neighbours": 6}}),
    *_on(ALL, "skipped-points", {}, skipped=(1, 4)),
    Row("skipped-points", "plain", {}, "all", skipped=(0, 1, 2, 3, 4, 5)),
    *_on(ALL, "cost", {}, subjects=("unlearned", "reference")),
    Row("generation", "pixel", {"samples": 5}),
    Row("image-scores", "pixel", {"samples": 3, "detector": "tests.audits.test_generation:brightness"}),
]

_REGROWN: dict[str, Any] = {"pairs": 1, "points": 3, "steps": 1, "inversion_steps": 4, "start_step": 1, "lr": 0.01}

ATTACKS = [
    *_on(ALL, "relearn", {"steps": 3, "batch_size": 2}),
    Row("relearn", "plain", {"steps": 2, "batch_size": 8, "optimizer": "adam", "share": 0.8}, "adam"),
    Row("relearn", "plain", {"steps": 3, "batch_size": 8, "data": "retain"}, "retain"),
    Row("relearn", "resnet", {"steps": 2, "batch_size": 4, "data": "other"}, "other"),
    Row("relearn", "gpt2", {"steps": 2, "batch_size": 4, "data": "other"}, "other"),
    Row("relearn", "pixel", {"steps": 1, "batch_size": 3, "data": "contaminated", "lora": {"rank": 2}, "prior_weight": 1.0, "prompt": "a photo of 0"}, "lora"),
    Row("memora", "plain", _REGROWN, where=_CLASSES),
    Row("memora", "plain", _REGROWN | {"lora": None, "iterations": 0, "optimizer": "sgd"}, "full", where=_CLASSES),
    Row("memora", "gpt2", _REGROWN | {"parameters": "c_proj"}),
    Row("memora", "unet", _REGROWN),
    Row("memora", "pixel", _REGROWN | {"references": "forget", "aligned": True, "guidance": 2.0, "inversion_guidance": 1.0}, "forget", where=_CLASSES),
    Row("memora", "stable-xl", _REGROWN | {"blend": 0.5, "drawn": False, "prompt": "a photo of 0", "flip": True}, "blend"),
    Row("textual-inversion", "pixel", {"pairs": 1, "steps": 1, "sampling_steps": 2}, where=_CLASSES),
    Row("prompt-search", "pixel", {"steps": 1, "sampling_steps": 2, "target": "original"}, where=_CLASSES),
    *_on(ALL, "prune", {"shares": (0.3, 0.9)}),
    *_on(("plain", "gpt2", "unet"), "prune", {"shares": (0.5,), "structure": "channels"}, note="channels"),
    *_on(ALL, "quantize", {"bits": (8, 3)}),
    Row("layer-skip", "gpt2", {"widths": (1,)}),
    Row("reverse-direction", "llama", {"strengths": (-1, 1)}),
    Row("refusal-ablation", "llama", {"shares": (1.0,), "declined": "unverifiable", "level": "answered", "prompts": 4}),
    Row("paraphrase", "gpt2", {"templates": ("what is {}",)}),
    Row("prefix", "llama", {"gold": (0.5,), "scenes": ("where {}",), "openings": ()}),
    Row("hidden-probe", "gpt2", {}),
    Row("model-diff", "llama", {"tokens": (1, 3)}, subjects=("unlearned", "reference")),
    Row("relearn", "llama", {"steps": 1, "batch_size": 4, "data": ("related", "benign", "random"), "count": 8}, "texts"),
    *_on(IMAGES, "linear-probe", {}, where=_CLASSES),
    Row("linear-probe", "plain", {"retained": "all", "samples": 2, "penalty": 0.1}, "all", where=_CLASSES),
]
