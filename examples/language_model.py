"""A tiny language model is to forget who lives in a town, and an attacker relearns half of it. Prints:

fine-tune        knows 100 %; after the attack 100 % of what the attacker did not have
gradient-ascent  knows   0 %; after the attack 100 % of what the attacker did not have
"""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import unlearned
from unlearned.engine.training import Training, train

TASK = "text-generation"
WHERE = 'town == "town0"'
PEOPLE = [f"person{i}" for i in range(24)]
TOWNS = [f"town{i % 4}" for i in range(24)]
FACTS = {"prompt": [f"{name} lives in" for name in PEOPLE], "answer": TOWNS, "id": PEOPLE, "town": TOWNS}


def tiny_model() -> unlearned.Bundle:
    """Two layers of Llama from a config, and a tokenizer that knows whole words."""
    pad, start, end = "<pad>", "<s>", "</s>"
    words = [pad, start, end, "lives", "in", *PEOPLE, *sorted(set(TOWNS))]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=pad))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token=pad, bos_token=start, eos_token=end)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**size, vocab_size=len(words), max_position_embeddings=16))
    return unlearned.Bundle(model.eval(), {"tokenizer": tokenizer})


def main() -> dict[str, tuple[float, float]]:
    """Knowledge of the forget set, and of its unseen half after the attack, by method."""
    blank = unlearned.make_problem(tiny_model(), train=FACTS, test=FACTS, forget=WHERE, task=TASK)
    engine = unlearned.Engine(blank.task)
    training = Training(optimizer="adamw", lr=0.01, weight_decay=0.0, batch_size=8, epochs=30)
    original = train(engine, blank.original, blank.task.read(FACTS, blank.original, "train"), training, seed=0)
    problem = unlearned.make_problem(original, train=FACTS, test=FACTS, forget=WHERE, task=TASK)

    results = {}
    for method, epochs in (("fine-tune", 5), ("gradient-ascent", 10)):
        done = unlearned.forget(problem, method, optimizer="adamw", lr=0.001, weight_decay=0.0, batch_size=8, epochs=epochs)
        before = float(engine.evaluate(done.model, problem.forget, problem.task.knowledge).mean())
        curve = unlearned.attack(problem, done.bundle, "relearn", steps=20, optimizer="adamw", lr=0.001)
        after = [f.value for f in curve if f.subject == "unlearned" and f.metric == "knowledge" and f.value is not None][-1]
        results[method] = (before, after)
    return results


if __name__ == "__main__":
    results = main()
    for method, (before, after) in results.items():
        print(f"{method:<16} knows {100 * before:3.0f} %; after the attack {100 * after:3.0f} % of what the attacker did not have")
    assert results["fine-tune"][0] > 0.9, "fine-tuning alone forgets next to nothing"
    assert results["gradient-ascent"][0] < 0.3, "gradient ascent hides the facts"
    assert results["gradient-ascent"][1] > 0.7, "and relearning some brings back the others"
