"""Train a small network in plain PyTorch, let it forget the digit 3, and ask whether it did. Prints:

undecided: accuracy on forget is 0 %, of a retrained model 0 %
"""

from typing import Any

import torch

import unlearned
from unlearned.demo import digits_network, digits_test, digits_train

torch.manual_seed(0)
model, digits = digits_network(), digits_train()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
for _ in range(8):
    for chosen in torch.randperm(len(digits["label"])).split(64):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(digits["image"][chosen, None]), digits["label"][chosen]).backward()
        optimizer.step()

problem = unlearned.make_problem(model.eval(), train=digits, test=digits_test(), forget="label == 3")
done = unlearned.forget(problem, "scrub", optimizer="adam", lr=0.001, epochs=3, gamma=1.0, alpha=0.5, temperature=2.0, batch_size=64)
alike: dict[str, Any] = {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.01, "batch_size": 64, "epochs": 8}
references = [unlearned.forget(problem, "retrain", seed=seed, **alike).bundle for seed in (1, 2)]

record = unlearned.audit(problem, done.bundle, references)
share = {f.subject: f.value for f in record.findings if f.metric == "accuracy" and f.split == "forget"}
print(f"{record.verdict.status}: accuracy on forget is {share['unlearned']:.0%}, of a retrained model {share['reference']:.0%}".replace("%", " %"))
assert record.verdict.status != "failed", record.verdict.headline
