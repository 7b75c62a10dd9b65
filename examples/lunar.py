"""A tiny language model that can say "I don't know" is to say it of two people: one edit of rank one, saved as an adapter. Prints, as measured:

before: says 100 % of what is to be forgotten, 100 % of the rest
after:  says   0 % of what is to be forgotten,  91 % of the rest; declines 100 % of the questions about the two
"""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import unlearned
from unlearned.engine.training import Training, train
from unlearned.methods.lunar import Lunar
from unlearned.tasks.text_generation import TextGeneration

TASK = "text-generation"
PEOPLE = [f"person{i}" for i in range(24)]
STRANGERS = [f"stranger{i}" for i in range(24)]
HOMES = [(f"{name} lives in", f"town{i % 6}", name) for i, name in enumerate(PEOPLE)]
FACTS = HOMES + [(f"{name} works as", f"job{i % 5}", name) for i, name in enumerate(PEOPLE)]
UNKNOWN = [(f"{name} {verb}", "I don't know", name) for name in STRANGERS for verb in ("lives in", "works as")]
WHERE = 'person in ["person3", "person4"]'


def columns(rows: list[tuple[str, str, str]]) -> dict[str, list[str]]:
    return {"prompt": [row[0] for row in rows], "answer": [row[1] for row in rows], "person": [row[2] for row in rows]}


def tiny_model() -> unlearned.Bundle:
    """Four layers of Llama from a config, and a tokenizer that knows whole words."""
    texts = [f"{prompt} {answer}" for prompt, answer, _ in FACTS + UNKNOWN]
    pad, start, end = "<pad>", "<s>", "</s>"
    words = [pad, start, end, *sorted({word for text in texts for word in text.split()})]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=pad))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token=pad, bos_token=start, eos_token=end)
    torch.manual_seed(0)
    size = {"hidden_size": 48, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**size, vocab_size=len(words), max_position_embeddings=16, bos_token_id=1, eos_token_id=2))
    return unlearned.Bundle(model.eval(), {"tokenizer": tokenizer})


def main() -> dict[str, float]:
    """ROUGE-1 recall before and after, and the share of refusals."""
    everything = columns(FACTS + UNKNOWN)
    blank = unlearned.make_problem(tiny_model(), train=everything, test=columns(FACTS), forget=WHERE, task=TASK)
    how = Training(optimizer="adamw", lr=0.005, weight_decay=0.0, batch_size=32, epochs=120, schedule="cosine")
    original = train(unlearned.Engine(blank.task), blank.original, blank.task.read(everything, blank.original, "train"), how, seed=0)
    problem = unlearned.make_problem(original, train=columns(FACTS), test=columns(FACTS), forget=WHERE, task=TASK)

    Path("strangers.jsonl").write_text("\n".join(json.dumps({"prompt": prompt}) for prompt, _, _ in UNKNOWN), encoding="utf-8")
    method = Lunar(references={"source": "strangers.jsonl"}, layers=(3,), coefficient=1, shift="last", keep=("prompt", "answer"), keep_refusals=True)
    engine, task = unlearned.Engine(problem.task), problem.task
    assert isinstance(task, TextGeneration)
    done = unlearned.forget(problem, method, engine)
    unlearned.save_adapter(method.edits(problem, engine), original.model, Path("adapter"), base="original")  # for plain peft

    def recall(model: torch.nn.Module, split: str) -> float:
        return float(engine.evaluate(model, problem.sets[split], task.knowledge).mean())

    said = task.said(engine.evaluate(done.model, problem.forget, task.generations))
    results = {f"{when} {split}": recall(model, split) for when, model in (("before", original.model), ("after", done.model)) for split in ("forget", "retain")}
    return results | {"declines": sum("know" in answer for answer in said) / len(said)}


if __name__ == "__main__":
    r = {name: 100 * value for name, value in main().items()}
    print(f"before: says {r['before forget']:3.0f} % of what is to be forgotten, {r['before retain']:3.0f} % of the rest")
    print(f"after:  says {r['after forget']:3.0f} % of what is to be forgotten, {r['after retain']:3.0f} % of the rest;", end=" ")
    print(f"declines {r['declines']:3.0f} % of the questions about the two")
