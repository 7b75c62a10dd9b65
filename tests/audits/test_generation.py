"""What is measured on generated images, against the same numbers by hand; relearning of diffusion models; pictures in record and page."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg
from torch import Tensor, nn

from tests.conformance.test_measurements import subject_of
from tests.models import problem_of, prompt_tokenizer
from unlearned.api import conclude
from unlearned.attacks.relearn import Relearn
from unlearned.audits.generation import Generation
from unlearned.audits.image_scores import ImageScores
from unlearned.engine.adapters import Lora
from unlearned.engine.engine import Engine
from unlearned.engine.settings import Optimisation
from unlearned.engine.training import Fashion, relearnt
from unlearned.errors import InputError
from unlearned.evidence.distances import frechet
from unlearned.evidence.pictures import first_of_each, show, strip
from unlearned.evidence.subject import Subject
from unlearned.evidence.verdict import Limits
from unlearned.records import AuditRecord, Finding, pick
from unlearned.report.html import page
from unlearned.tasks._judges import digits_judge
from unlearned.tasks.image_generation import ImageGeneration


@pytest.fixture(scope="module")
def subject() -> Subject:
    return subject_of("pixel", references=1)


def value(findings: list[Finding], metric: str, split: str, who: Any = "unlearned") -> float:
    [finding] = pick(findings, metric=metric, split=split, subject=who)
    assert finding.value is not None
    return finding.value


def test_frechet_is_that_of_the_matrix_square_root() -> None:
    """Against scipy's `sqrtm` of Σ_1 Σ_2; of one feature it is (μ_1 − μ_2)² + (σ_1 − σ_2)²."""
    random = np.random.default_rng(0)
    left, right = random.normal(size=(40, 5)) @ random.normal(size=(5, 5)), random.normal(size=(30, 5)) + 1
    a, b = np.cov(left, rowvar=False), np.cov(right, rowvar=False)
    expected = ((left.mean(0) - right.mean(0)) ** 2).sum() + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert frechet(left, right) == pytest.approx(expected, rel=1e-9)
    assert frechet(left, left) == pytest.approx(0, abs=1e-9)
    x, y = np.array([[0.0], [2.0]]), np.array([[5.0], [11.0]])
    assert frechet(x, y) == pytest.approx((1 - 8) ** 2 + (2**0.5 - 18**0.5) ** 2)


def test_generation_by_hand(subject: Subject) -> None:
    findings = Generation(samples=4).measure(subject)
    task = subject.engine.task
    assert isinstance(task, ImageGeneration)
    for split in ("forget", "retain"):
        samples = subject.problem.sets[split].subset(range(4))
        batch = task.collate([samples[i] for i in range(4)])
        images = task.images(subject.unlearned.model, batch)
        with torch.no_grad():
            p = digits_judge()(images).softmax(dim=1).double()
        seen = [float(int(row.argmax()) == label) for row, label in zip(p, samples.fact("label"), strict=True)]
        if split == "retain":
            assert value(findings, "retain_accuracy", split) == np.mean(seen)
            features = [nn.Sequential(*list(digits_judge())[:-1])(x).detach().double().numpy() for x in (images, (batch["pixel_values"] + 1) / 2)]  # type: ignore[call-overload]
            assert value(findings, "frechet", split) == pytest.approx(frechet(*features), rel=1e-4)
            continue
        assert value(findings, "concept_rate", split) == np.mean(seen)
        assert value(findings, "unlearning_accuracy", split) == 1 - np.mean(seen)
        own = [float(row[label]) for row, label in zip(p, samples.fact("label"), strict=True)]
        assert value(findings, "concept_probability", split) == pytest.approx(np.mean(own), rel=1e-5)
        assert value(findings, "judge_entropy", split) == pytest.approx(float(-(p * p.log()).sum(dim=1).mean()), rel=1e-5)


def test_without_a_judge_it_says_so(subject: Subject) -> None:
    engine = Engine(ImageGeneration(sampling_steps=2))
    findings = Generation().measure(replace(subject, engine=engine))
    assert {finding.reason for finding in findings} == {"no judge says what an image shows (task.judge)"}


def test_second_judge_looks_at_the_other_kind_of_concept() -> None:
    made = subject_of("pixel", references=1)
    for samples in made.problem.sets.values():
        samples.facts["cross"] = [i % 10 for i in range(len(samples.all_ids))]
    audit = Generation(samples=4, cross_judge="digits")
    assert not audit.faults(made.problem)
    findings = audit.measure(made)
    task = made.engine.task
    assert isinstance(task, ImageGeneration)
    images = made.engine.evaluate(made.unlearned.model, made.problem.retain.subset(range(4)), task.images).float()
    seen = digits_judge()(images).argmax(dim=1).tolist()
    assert value(findings, "cross_accuracy", "retain") == np.mean([a == b for a, b in zip(seen, made.problem.retain.fact("cross")[:4], strict=True)])
    assert [fault.field for fault in Generation(cross_judge="digits", cross_column="style").faults(made.problem)] == ["cross_column"]
    assert [fault.field for fault in Generation(cross_judge="./no/judge").faults(made.problem)] == ["cross_judge"]


def brightness() -> nn.Module:
    class Mean(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1).mean(dim=1)

    return Mean()


def halves() -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten())


def test_detector_and_features_that_the_user_names(subject: Subject) -> None:
    audit = ImageScores(detector="tests.audits.test_generation:brightness", inception="tests.audits.test_generation:halves", threshold=0.5, samples=6)
    assert not audit.faults(subject.problem)
    findings = audit.measure(subject)
    task = subject.engine.task
    assert isinstance(task, ImageGeneration)
    forget, retain = (subject.engine.evaluate(subject.unlearned.model, subject.problem.sets[s].subset(range(6)), task.images) for s in ("forget", "retain"))
    assert value(findings, "detector_rate", "forget") == np.mean([float(image.mean()) > 0.5 for image in forget])
    true = torch.stack([subject.problem.retain[i]["pixel_values"] for i in range(6)]).double()
    pooled = [halves()(images).numpy() for images in (retain, (true + 1) / 2)]
    assert value(findings, "fid", "retain") == pytest.approx(frechet(*pooled), rel=1e-4)
    assert not pick(findings, metric="clip_score")
    assert next(f.reason for f in ImageScores().measure(subject)) == "no network is named for it (clip)"
    assert [fault.field for fault in ImageScores(detector="no.such:thing").faults(subject.problem)] == ["detector"]


def test_clip_score_by_hand(subject: Subject, tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    text = {"vocab_size": 15, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 4}
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    ids = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = CLIPModel(CLIPConfig(text_config=text | ids, vision_config=vision, projection_dim=6)).eval()
    clip.save_pretrained(tmp_path)
    prompt_tokenizer().save_pretrained(tmp_path)
    findings = ImageScores(clip=str(tmp_path), samples=3).measure(subject)
    task = subject.engine.task
    assert isinstance(task, ImageGeneration)
    samples = subject.problem.retain.subset(range(3))
    images = subject.engine.evaluate(subject.unlearned.model, samples, task.images).float().expand(-1, 3, -1, -1)
    pixels = (images - torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]) / torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    ids_of = torch.stack([samples[i]["prompt"][0] for i in range(3)])
    with torch.no_grad():
        out = clip(input_ids=ids_of, pixel_values=pixels)
    cosines = [max(0.0, float(a @ b / (a.norm() * b.norm()))) for a, b in zip(out.image_embeds, out.text_embeds, strict=True)]
    assert value(findings, "clip_score", "retain") == pytest.approx(100 * np.mean(cosines), rel=1e-4)
    with pytest.raises(InputError, match="no CLIP model can be loaded"):
        ImageScores(clip="./no/clip").measure(subject)


def test_rows_of_pictures() -> None:
    images = torch.zeros(2, 1, 4, 4)
    images[1] = 1.0
    row = Image.open(io.BytesIO(base64.b64decode(strip(images))))
    assert row.size == (9, 4)
    assert np.asarray(row)[0].tolist() == [0, 0, 0, 0, 255, 255, 255, 255, 255]
    assert Image.open(io.BytesIO(base64.b64decode(strip(torch.full((3, 3, 2, 2), torch.nan))))).mode == "RGB"
    retain = problem_of("pixel").retain
    firsts = first_of_each(retain, 64)
    assert firsts.fact("label") == sorted(set(retain.fact("label")))
    assert len(first_of_each(retain, 3)) == 3


def test_pictures_are_in_the_record_and_on_the_page_where_they_were_asked_for() -> None:
    subject = subject_of("pixel", references=2)
    plain = Generation(samples=2).measure(subject)
    assert not subject.pictures
    findings = Generation(samples=2, pictures=3).measure(subject)
    assert findings == plain
    attack = Relearn(steps=1, batch_size=3, pictures=2)
    findings += attack.measure(subject)
    rows = [(row.split, row.subject, row.after, row.count) for row in subject.pictures]
    assert rows == [
        *[(split, who, None, 3) for split in ("forget", "retain") for who in ("original", "unlearned", "reference")],
        *[("forget-rest", who, "relearn, 1 steps", 2) for who in ("unlearned", "reference")],
    ]
    record = conclude(subject, findings, Limits(), {})
    again = AuditRecord.model_validate_json(record.to_json())
    assert again.pictures == tuple(subject.pictures)
    text = page(record)
    assert text.count('<img src="data:image/png;base64,') == 8
    assert "What it draws" in text
    assert 'alt="2 generated images: unlearned, after relearn, 1 steps."' in text
    assert "What it draws" not in page(conclude(subject_of("pixel", references=1), findings, Limits(), {}))
    show(subject_of("plain"), [], problem_of("plain").forget, "forget")  # a task without images has none to show


class TestRelearning:
    def test_contaminated_data_have_the_share_that_was_asked_for(self) -> None:
        subject = subject_of("pixel", references=1)
        for share, forgotten, count in ((0.5, 3, 6), (0.2, 3, 15), (1.0, 3, 3), (0.01, 1, 18)):
            attack = Relearn(data="contaminated", contamination=share)
            material = attack._material(subject, "contaminated")
            assert not isinstance(material, str)
            ids = material.known.ids
            assert len(set(ids)) == len(ids) == count
            assert sum(name in subject.problem.forget.ids for name in ids) == forgotten
            assert not set(ids) & set(material.measured.ids)

    def test_adapters_leave_everything_but_attention_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        subject = subject_of("pixel", references=0)
        seen: list[set[str]] = []
        measure = type(subject.engine).evaluate

        def evaluate(self: Engine, model: nn.Module, samples: Any, function: Any) -> Tensor:
            seen.append({name for name, p in model.named_parameters() if p.requires_grad})
            return measure(self, model, samples, function)

        monkeypatch.setattr(type(subject.engine), "evaluate", evaluate)
        findings = Relearn(steps=2, lora=Lora(rank=2), optimizer="adamw", lr=0.1).measure(subject)
        assert all("lora" in name and ("attn1.to_" in name or "attn2.to_" in name) for name in seen[-1])
        curve = [f.value for f in pick(findings, metric="knowledge", subject="unlearned")]
        assert len(curve) == 3

    def test_prior_preservation_adds_its_gradient(self) -> None:
        """One step of plain SGD on a linear model, all samples in it: θ − lr (∇ mean ℓ(known) + w ∇ mean ℓ(prior))."""
        problem = problem_of("linear")
        model, task = problem.original.model, problem.task
        terms = [task.losses(model, task.collate([samples[i] for i in range(len(samples))])).mean() for samples in (problem.forget, problem.retain)]
        weights = list(model.parameters())
        expected = [p - 0.1 * g for p, g in zip(weights, torch.autograd.grad(terms[0] + 3 * terms[1], weights), strict=True)]
        how = Optimisation(lr=0.1, momentum=0.0, weight_decay=0.0, batch_size=64)
        fashion = Fashion(prior=problem.retain, prior_weight=3.0)
        found = relearnt(Engine(task), model, problem.forget, how, 1, title="x", watch=lambda *_: None, fashion=fashion)
        for ours, theirs in zip(found.parameters(), expected, strict=True):
            torch.testing.assert_close(ours, theirs)

    def test_one_prompt_for_all(self) -> None:
        problem = problem_of("pixel")
        prompted = Relearn(prompt="a photo of 0")._prompted(problem, problem.retain)
        assert prompt_tokenizer().convert_ids_to_tokens(prompted[5]["prompt"][0].tolist()) == ["a", "photo", "of", "0"]
        assert prompted.ids == problem.retain.ids
        assert [fault.field for fault in Relearn(prompt="a zebra").faults(problem)] == ["prompt"]
        assert [fault.field for fault in Relearn(prompt="a photo").faults(problem_of("unet"))] == ["prompt"]

    def test_source_goes_with_other_and_contaminated_data(self) -> None:
        with pytest.raises(ValueError, match="goes with it alone"):
            Relearn(data="retain", source="x.parquet")
