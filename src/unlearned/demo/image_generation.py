"""Handwritten digits, drawn: a small diffusion model with cross-attention to a prompt forgets how to draw the digit 3.

The model works in pixel space, 8 x 8, and is asked as Stable Diffusion is: "a photo of 3". A small classifier that comes with the package judges what an
image shows. Two references are retrained without the digit; the report shows what all of them draw, before and after relearning and while the model regrows
the digit from its own images (MemoRa), and says whether the digit is asleep or gone.
"""

from __future__ import annotations

from typing import Any, ClassVar

from unlearned.demo import demos
from unlearned.demo._demo import Demo
from unlearned.demo.image_classification import FORGOTTEN_DIGIT
from unlearned.tasks._task import Bundle

_WORDS = ("[unknown]", "[end]", "a", "photo", "of", *map(str, range(10)))


@demos.register("image-generation")
class DrawnDigits(Demo):
    """One of ten digits, drawn from a prompt."""

    name: ClassVar[str] = "image-generation"
    original: ClassVar[str] = "a small diffusion model, on handwritten digits"

    def blank(self) -> Bundle:
        """A UNet with 0.25 million parameters, a table of 15 words as its text encoder, and 100 noise levels."""
        from diffusers import DDPMScheduler, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        from unlearned.tasks.image_generation import assemble

        width = 32
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=width,
            attention_head_dim=8,
            norm_num_groups=8,
        )
        sizes = {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": 0, "num_attention_heads": 1, "max_position_embeddings": 4}
        texts = CLIPTextModel(CLIPTextConfig(vocab_size=len(_WORDS), bos_token_id=1, eos_token_id=1, pad_token_id=1, **sizes))
        schedule = DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False, steps_offset=1)
        return assemble(unet, schedule, text_encoders=[texts], tokenizers=[_tokenizer()])

    def recipe(self) -> dict[str, Any]:
        return {
            "task": {"name": "image-generation", "judge": "digits", "sampling_steps": 5},
            "data": {"train": "unlearned.demo:digits_train", "test": "unlearned.demo:digits_test"},
            "forget": {"where": f"label == {FORGOTTEN_DIGIT}", "description": f"all images of the digit {FORGOTTEN_DIGIT}"},
            "method": {
                "name": "salun",
                "optimizer": "adam",
                "lr": 1e-3,
                "weight_decay": 0.0,
                "batch_size": 32,
                "epochs": 12,
                "alpha": 1.0,
                "parameters": "^unet",
            },
            "training": {"optimizer": "adamw", "lr": 0.006, "weight_decay": 0.0, "batch_size": 128, "epochs": 26, "schedule": "cosine"},
            "references": {"count": 2},
            "audits": ["utility", {"name": "generation", "samples": 200, "pictures": 10}, "cost"],
            "attacks": [
                {"name": "relearn", "steps": 20, "optimizer": "adam", "lr": 1e-3, "batch_size": 32, "pictures": 10},
                {"name": "memora", "steps": 100, "inversion_steps": 25, "start_step": 8, "pictures": 10},
            ],
        }


def _tokenizer() -> Any:
    """One word, one token; prompts of four words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token=_WORDS[0]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token=_WORDS[0], eos_token=_WORDS[1], pad_token=_WORDS[1], model_max_length=4)
