"""Knowledge holes: what each method breaks by accident, and whether a search finds more of it than drawing at random.

Paper: Ko et al. 2025, "Probing Knowledge Holes in Unlearned LLMs" (NeurIPS), arXiv 2511.00030: after unlearning, benchmarks of models of 7 billion parameters
move by a few points, while answers to latent probes collapse: 82 to 99 % have score 1.
Data: made-up islands (see `_islands`). All that is said of some towns is forgotten. Methods are shown islands that are far away to retain, as the retain set
of the paper is far from its forget set; the other towns and the things of the same islands are not shown, and are what may break. Half of the general knowledge
is shown, the other half is the benchmark. Models: a Llama trained from nothing; `smollm2-135m`, SmolLM2-135M-Instruct, fine-tuned, where it is asked for.
Judge: the backend `plain`, the original's own answers and certainty.
Rows: setting `before` (the original's answers to the probes that were found for a method) and `after` (the unlearned model's); of another model than
`llama-small` with its name before them. `adjacent_score`, `latent_score`: means, 1 to 10; `..._share_1`: share with score 1; `..._holes`: share of probes that
are holes. `utility`: ROUGE-1 recall of the benchmark (split `test`), and of all that was to be retained, shown or not (`retain`). `retrain` never knew the
forgotten towns: what it lacks is the noise of training. Setting `search, METHOD`: ways to search that method's model for holes, with equal seeds and budget:
holes for 1,000 questions that were put to it, `distinct` by wording, `different` when near duplicates are dropped, `unseen` those that were not taught word
for word. `ppo without ...` leaves out one term of the reward.
Choice of settings: equally many for each method, on towns of the second island, with the first seed: the one that keeps most of the benchmark among those
after which at most a tenth of the forget set is known, as the paper takes the first checkpoint at which nothing harmful is left.
What differs from the paper: size and kind of model, invented facts, the judge, the search is paid only for questions that the original answers well, the policy
is a small model that was taught to list questions, and latent probes of the comparison of methods are searched for by evolution, unless told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from unlearned.bench import suites
from unlearned.bench._grids import Contender, product
from unlearned.bench._holes_cells import Broken, HolesChoice, Searches, Setting
from unlearned.bench._islands import Islands, town
from unlearned.bench._small_llama import LlamaSize
from unlearned.bench._suite import Cell, Place, Suite
from unlearned.bench._text_cells import Taught
from unlearned.bench._text_grids import first
from unlearned.bench._text_scene import SMOLLM2, ModelName, Pupil, fine_tuned
from unlearned.bench.pistol import SMALL_TRAINING
from unlearned.records import Quoted

NAMES = ("ga-kl", "npo-gd", "rmu", "llmu", "lunar", "eru")
SEARCHES: Mapping[str, Mapping[str, Any]] = {
    "random": {"searcher": "random"},
    "evolution": {"searcher": "evolution"},
    "ppo": {"searcher": "ppo"},
    "ppo without BLEU": {"searcher": "ppo", "bleu": 0.0},
    "ppo without cosine": {"searcher": "ppo", "cosine": 0.0},
    "ppo without novelty": {"searcher": "ppo", "bleu": 0.0, "cosine": 0.0},
    "ppo without gibberish": {"searcher": "ppo", "gibberish_penalty": 0.0},
}
"""By name in tables: settings of the audit."""
_PAPER: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "llmu": {"adjacent_score": (7.261, 3.453), "adjacent_share_1": (0.0, 0.385), "latent_score": (5.883, 1.129), "latent_share_1": (0.003, 0.894)},
    "ga-kl": {"adjacent_score": (7.261, 2.255), "adjacent_share_1": (0.0, 0.752), "latent_score": (6.103, 1.126), "latent_share_1": (0.006, 0.894)},
    "npo-gd": {"adjacent_score": (7.261, 3.658), "adjacent_share_1": (0.0, 0.317), "latent_score": (6.217, 1.187), "latent_share_1": (0.01, 0.823)},
    "rmu": {"adjacent_score": (7.848, 4.495), "adjacent_share_1": (0.0, 0.457), "latent_score": (7.747, 1.040), "latent_share_1": (0.0, 0.987)},
}


_LRS: Mapping[ModelName, tuple[float, float]] = {"llama-small": (1e-4, 3e-4), "smollm2-135m": (1e-5, 3e-5)}


def contender(model: ModelName, name: str, blocks: int) -> Contender:
    """A method as it takes part: two learning rates, and how long it goes on, since the paper takes the first checkpoint that has forgotten.

    What is to be retained weighs 5, so that there are settings which forget and keep the benchmark. RMU, which by default trains some down-projections alone,
    has ten times the learning rates, and steers behind the middle block. LUNAR does not descend: it chooses how far to go, as in the other suites.
    """
    shared: dict[str, Any] = {"batch_size": 10, "alpha": 5.0}
    lrs = _LRS[model]
    if name == "lunar":
        return Contender(name, name, {}, product(coefficient=(0.5, 1.0, 2.0), retain_sampling=("all", "equal")))
    if name == "rmu":
        shared |= {"layer": blocks // 2, "coefficient": 20.0, "alpha": 1.0}
        lrs = (round(10 * lrs[0], 6), round(10 * lrs[1], 6))
    known: Mapping[str, tuple[str, dict[str, Any]]] = {"ga-kl": ("grad-diff", {"retain_loss": "kl"}), "npo-gd": ("npo", {"retain_loss": "nll"})}
    method, more = known.get(name, (name, {}))
    return Contender(name, method, shared | more, product(lr=lrs, epochs=(30, 60, 120)))


@suites.register("holes")
class Holes(Suite):
    """What methods break by accident, beside what a benchmark sees of it."""

    name: ClassVar[str] = "holes"
    paper: ClassVar[Mapping[Quoted, float]] = {
        Quoted(method, when, "probes", metric): values[i]
        for method, numbers in _PAPER.items()
        for metric, values in numbers.items()
        for i, when in enumerate(("before", "after"))
    }
    models: tuple[ModelName, ...] = Field(("llama-small",), min_length=1, description="Models that learn about the islands.")
    methods: tuple[str, ...] = Field(NAMES, min_length=1, description="Methods that are compared.")
    attempts: int = Field(6, ge=1, le=6, description="Settings of each method that are tried.")
    most_known: float = Field(0.1, ge=0, le=1, description="Knowledge of the forget set up to which it counts as forgotten, for the choice of settings.")
    islands: int = Field(6, ge=3, description="Islands; the forgotten towns lie on the first.")
    towns: int = Field(4, ge=3, description="Towns of each island.")
    forgotten: int = Field(2, ge=1, description="Towns that are forgotten.")
    searcher: Literal["ppo", "evolution", "random"] = Field("evolution", description="How latent probes are searched for.")
    budget: int = Field(512, ge=1, description="Questions that a search may put to an unlearned model.")
    searches: tuple[str, ...] = Field(tuple(SEARCHES), description="Ways to search that are compared; none: left out.")
    searched: str = Field("ga-kl", description="The method whose model they search.")
    search_budget: int = Field(1000, ge=1, description="Questions that each of them may put to it.")
    round_size: int = Field(64, ge=1, description="Questions after which a search learns.")
    policy_lr: float = Field(3e-4, gt=0, description="Learning rate of PPO: the paper's 3e-5 is for a model of 7 billion parameters.")
    policy_epochs: int = Field(15, ge=1, description="Passes over the lists of questions from which a policy for llama-small learns to ask.")
    refusals: int = Field(30, ge=10, description="Questions that models are taught to decline.")
    epochs: int = Field(80, ge=1, description="Passes over the data in the training of llama-small.")
    lr: float = Field(4e-3, gt=0, description="Learning rate of that training.")
    vocabulary: int = Field(700, ge=300, description="Of llama-small.")
    width: int = Field(64, ge=8, description="Of llama-small.")
    inner: int = Field(256, ge=8, description="Width of its MLPs.")
    blocks: int = Field(2, ge=1, description="Of llama-small.")
    smollm2: str = Field(SMOLLM2, description="Hub id, directory or GGUF file; a directory of that name among the data is taken first.")
    smollm2_epochs: int = Field(6, ge=1, description="Passes over the data in the fine-tuning of smollm2-135m.")
    smollm2_lr: float = Field(3e-4, gt=0, description="Learning rate of that fine-tuning.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for given, known in (({*self.methods, self.searched}, NAMES), (set(self.searches), tuple(SEARCHES))):
            unknown = sorted(given - set(known))
            if unknown:
                raise ValueError(f"{unknown[0]!r} does not take part; those that do are {', '.join(known)}")
        if self.forgotten >= self.towns:
            raise ValueError(f"{self.forgotten} of {self.towns} towns are forgotten; leave one, so that there is a neighbourhood")
        return self

    @classmethod
    def quick(cls) -> Self:
        few = {"islands": 3, "towns": 3, "forgotten": 1, "budget": 96, "search_budget": 96, "round_size": 32, "epochs": 12, "refusals": 10}
        return cls.model_validate({**few, "seeds": 1, "attempts": 1, "methods": ("ga-kl", "npo-gd"), "searches": ("random", "evolution")})

    def pupil(self, name: ModelName) -> Pupil:
        """The model and its training."""
        if name == "llama-small":
            size = LlamaSize(self.vocabulary, self.width, self.inner, self.blocks, 4)
            return Pupil(name, SMALL_TRAINING.model_copy(update={"epochs": self.epochs, "lr": self.lr}), size, max_new_tokens=12)
        return fine_tuned(self.smollm2, self.smollm2_epochs, self.smollm2_lr)

    def cells(self) -> Sequence[Cell]:
        lesson = Islands(self.islands, self.towns, self.refusals)
        language = {"searcher": self.searcher, "budget": self.budget, "round_size": self.round_size}
        policy = {"lr": self.policy_lr, "rank": 8, "alpha": 16.0}
        asking = SMALL_TRAINING.model_copy(update={"epochs": self.policy_epochs, "lr": self.lr})
        found: list[Cell] = []
        for name in self.models:
            pupil = self.pupil(name)
            reported, elsewhere = (Setting(pupil, lesson, tuple(town(island, i) for i in range(self.forgotten))) for island in (0, 1))
            blocks = self.blocks if name == "llama-small" else 30
            tried = {each: first(contender(name, each, blocks), self.attempts) for each in dict.fromkeys((*self.methods, self.searched))}
            choices = {each: HolesChoice(elsewhere, contender, self.most_known) for each, contender in tried.items()}
            found += [Taught(pupil, lesson, seed) for seed in range(self.seeds)]
            found += [each for each in choices.values() if each.contender.undecided]
            for seed in range(self.seeds):
                found.append(Broken(reported, seed, language))
                found += [Broken(reported, seed, language, choices[each]) for each in self.methods]
                for called in self.searches:
                    how = {**language, "budget": self.search_budget, "training": policy, **SEARCHES[called]}
                    found.append(Searches(reported, seed, choices[self.searched], called, how, asking))
        return found

    def require(self, place: Place) -> None:
        for name in self.models:
            if name != "llama-small":
                self.pupil(name).bundle(place, [])
