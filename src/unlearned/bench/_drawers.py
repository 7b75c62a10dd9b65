"""A small diffusion model that draws one of ten things: what the suite `resilience` trains in minutes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from unlearned.engine.randomness import seeded
from unlearned.tasks._task import Bundle
from unlearned.tasks.image_generation import assemble

_WORDS = ("[unk]", "[pad]", "a", "photo", "of", *map(str, range(10)))
_SPECIAL = {"unk_token": "[unk]", "eos_token": "[pad]", "pad_token": "[pad]"}
_WIDTH = 16


@lru_cache(maxsize=2)
def drawer(side: int) -> Bundle:
    """Grey images from prompts such as `a photo of 3`: a UNet with attention to a learned table of tokens, in pixel space; 0.2 million weights.

    It gives architecture and companions; its weights are not used.

    Args:
        side: of the images, in pixels.
    """
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"hidden_size": _WIDTH, "intermediate_size": _WIDTH, "num_attention_heads": 2, "num_hidden_layers": 0}
    ids = {"vocab_size": len(_WORDS), "max_position_embeddings": 4, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}
    with seeded(0):
        unet = UNet2DConditionModel(
            sample_size=side,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            mid_block_type=None,
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=_WIDTH,
            attention_head_dim=8,
            norm_num_groups=4,
        )
        encoder = CLIPTextModel(CLIPTextConfig(**sizes, **ids))
    schedule = DDPMScheduler(num_train_timesteps=100, clip_sample=False, steps_offset=1, prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2")
    return assemble(unet, schedule, text_encoders=[encoder], tokenizers=[_tokenizer()])


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token=_WORDS[0]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, **_SPECIAL, model_max_length=4)
