"""Tiny real models of each task with tiny real data: everything that a test needs to run a method in milliseconds."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from unlearned.api import make_problem
from unlearned.problem import Problem
from unlearned.tasks._task import Bundle, Task

SEED = 20


def plain_network() -> nn.Module:
    """A module that no library knows, with everything that makes train and eval mode differ."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(32, 10),
    )


def linear_network() -> nn.Module:
    """Logits that are linear in the pixels: gradients can be written down."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


class Elsewhere(nn.Module):
    """Rests on a device that is not the engine's: it takes batches that are there alone, as a model on a GPU does. Its last layer can be read."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.empty(1, device="meta"))
        self.head = nn.Linear(64, 10)

    def forward(self, pixel_values: Tensor) -> Tensor:
        if pixel_values.device != self.place.device:
            raise RuntimeError("Expected all tensors to be on the same device")
        logits: Tensor = self.head(torch.zeros(len(pixel_values), 64))
        return logits


def resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=10)
    return ResNetForImageClassification(config)  # type: ignore[no-any-return]


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=10,
        hidden_dropout_prob=0.1,
    )
    return ViTForImageClassification(config)  # type: ignore[no-any-return]


_WORDS = "[unk] [eos] [pad] where does live what is the name of in a far red old town river ada bo cy di eva finn gus hana york lima oslo cairo rome quito"
WORDS = _WORDS.split()


def tokenizer() -> Any:
    """One word, one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[unk]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[unk]", eos_token="[eos]", pad_token="[pad]")


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=len(WORDS), n_positions=24, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1)
    return GPT2LMHeadModel(config)  # type: ignore[no-any-return]


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=24,
        bos_token_id=1,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)  # type: ignore[no-any-return]


def denoiser(prediction_type: str = "epsilon") -> nn.Module:
    from diffusers import DDPMScheduler, UNet2DModel

    from unlearned.tasks.image_generation import Denoiser

    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(4, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=2,
        add_attention=False,
        num_class_embeds=10,
        dropout=0.1,
    )
    return Denoiser(unet, DDPMScheduler(num_train_timesteps=100, prediction_type=prediction_type))


PROMPT_WORDS = ["[unk]", "[pad]", "a", "photo", "of", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]


def prompt_tokenizer(length: int = 4) -> Any:
    """Words of prompts, padded to `length` tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(PROMPT_WORDS)}, unk_token="[unk]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[unk]", eos_token="[pad]", pad_token="[pad]", model_max_length=length)


def text_encoder(layers: int, *, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    size = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "projection_dim": 6}
    ids = {"vocab_size": len(PROMPT_WORDS), "max_position_embeddings": 4, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(CLIPTextConfig(num_hidden_layers=layers, **size, **ids))


def prompted_unet(channels: int, width: int = 8, **more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8 if channels == 1 else 4,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=(4, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=2,
        dropout=0.1,
        **more,
    )


def noise_schedule(prediction_type: str = "epsilon") -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(num_train_timesteps=100, clip_sample=False, steps_offset=1, prediction_type=prediction_type)


def autoencoder() -> Any:
    from diffusers import AutoencoderKL

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2, "block_out_channels": (4, 4)}
    return AutoencoderKL(in_channels=1, out_channels=1, latent_channels=2, layers_per_block=1, norm_num_groups=2, sample_size=8, **blocks)


def pixel(prediction_type: str = "v_prediction") -> nn.Module:
    """In pixel space, with cross-attention to a learned table of tokens."""
    return assembled(prompted_unet(1), noise_schedule(prediction_type), text_encoders=[text_encoder(0)], tokenizers=[prompt_tokenizer()])


def stable() -> nn.Module:
    """The layout of Stable Diffusion, with few weights."""
    return assembled(prompted_unet(2), noise_schedule(), text_encoders=[text_encoder(1)], tokenizers=[prompt_tokenizer()], vae=autoencoder())


def stable_xl() -> nn.Module:
    """The layout of Stable Diffusion XL: two text encoders, and the size beside the prompt."""
    sizes = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 6 + 6 * 4}
    encoders = [text_encoder(1), text_encoder(1, projected=True)]
    return assembled(prompted_unet(2, 16, **sizes), noise_schedule(), text_encoders=encoders, tokenizers=[prompt_tokenizer()] * 2, vae=autoencoder())


def assembled(*parts: Any, **more: Any) -> nn.Module:
    from unlearned.tasks.image_generation import assemble

    return assemble(*parts, **more).model


def made(make: Callable[..., nn.Module], seed: int = SEED, **options: Any) -> nn.Module:
    """A model whose weights depend on the seed alone, in eval mode; the caller's generator stays as it was."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = make(**options).eval()
        for parameter in model.parameters():  # biases that are 0 could not be seen to shrink
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """Pixels (N, 8, 8) in [0, 1] and labels (N,)."""
    found = load_digits()
    return torch.from_numpy((found.images / 16).astype(np.float32)), torch.from_numpy(found.target)


def images(start: int, count: int) -> dict[str, Any]:
    pixels, labels = digits()
    chosen = slice(start, start + count)
    return {"image": pixels[chosen], "label": labels[chosen], "id": [f"digit-{i}" for i in range(start, start + count)]}


def facts(start: int, count: int) -> dict[str, Any]:
    """Prompts with answers of different lengths; some are said otherwise, too, and each has a few wrong answers."""
    people = ["ada", "bo", "cy", "di", "eva", "finn", "gus", "hana"]
    towns = ["york", "lima", "oslo", "cairo", "rome", "quito"]
    prompts, answers, paraphrased, perturbed = [], [], [], []
    for i in range(start, start + count):
        prompts.append(f"where does {people[i % 8]} live" if i % 3 else f"what is the name of the town of {people[i % 8]}")
        answers.append(f"in {'the far ' if i % 2 else ''}{towns[i % 6]}{' river town' if i % 5 == 0 else ''}")
        paraphrased.append(f"the town is {towns[i % 6]}" if i % 4 else None)
        perturbed.append([f"the town is {towns[(i + shift) % 6]}" for shift in range(1, 3 + i % 2)])
    ids = [f"fact-{i}" for i in range(start, start + count)]
    return {"prompt": prompts, "answer": answers, "paraphrased_answer": paraphrased, "perturbed_answer": perturbed, "id": ids}


def bundle_of(kind: str, seed: int = SEED) -> Bundle:
    """A model of this kind with what goes with it."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "plain": plain_network,
        "linear": linear_network,
        "resnet": resnet,
        "vit": vit,
        "gpt2": gpt2,
        "llama": llama,
        "unet": denoiser,
        "pixel": pixel,
        "stable": stable,
        "stable-xl": stable_xl,
    }
    model = made(makers[kind], seed)
    companions: dict[str, Any] = {"tokenizer": tokenizer()} if kind in {"gpt2", "llama"} else {}
    if TASK_OF[kind] == "image-generation":
        companions = {"scheduler": model.scheduler}
        names = {"pixel": ["tokenizer"], "stable": ["tokenizer"], "stable-xl": ["tokenizer", "tokenizer_2"]}.get(kind, [])
        companions |= {name: prompt_tokenizer() for name in names}
    return Bundle(model, companions)


TASK_OF = {
    "plain": "image-classification",
    "linear": "image-classification",
    "resnet": "image-classification",
    "vit": "image-classification",
    "gpt2": "text-generation",
    "llama": "text-generation",
    "unet": "image-generation",
    "pixel": "image-generation",
    "stable": "image-generation",
    "stable-xl": "image-generation",
}


SETTINGS: dict[str, dict[str, Any]] = {kind: {"judge": "digits", "sampling_steps": 2} for kind in ("pixel", "stable", "stable-xl")}
"""Of the task, by kind of model."""


def problem_of(kind: str, *, forget: int = 6, retain: int = 18, test: int = 16, where: str | None = None, model: nn.Module | None = None) -> Problem:
    """A small problem: the first samples are to be forgotten, or those that the filter `where` chooses among all."""
    bundle = bundle_of(kind)
    if model is not None:
        bundle = bundle.with_model(model)
    task = TASK_OF[kind]
    how = task_of(task, **SETTINGS.get(kind, {}))
    read = facts if task == "text-generation" else images
    train = read(0, forget + retain)
    return make_problem(bundle, train=train, test=read(100, test), forget=where or train["id"][:forget], task=how)


def layer_of(model: nn.Module, index: int) -> Any:
    """A layer of a sequential model."""
    assert isinstance(model, nn.Sequential)
    return model[index]


def task_of(name: str, **settings: Any) -> Task:
    from unlearned.tasks import tasks

    return tasks.get(name)(**settings)


def bits(model: nn.Module) -> dict[str, Tensor]:
    """A copy of everything that a model's state dict holds, non-persistent buffers too."""
    return {name: tensor.detach().clone() for name, tensor in {**model.state_dict(), **dict(model.named_buffers())}.items()}


def same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def modes(model: nn.Module) -> dict[str, bool]:
    return {name: layer.training for name, layer in model.named_modules()}


def flags(model: nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def generators() -> tuple[Any, ...]:
    """The state of every global random generator, comparable with ==."""
    import random

    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), kind, np.asarray(keys).tolist(), rest, random.getstate()


def scramble(seed: int) -> None:
    """Put every global generator somewhere else."""
    import random

    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
