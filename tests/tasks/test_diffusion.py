"""Diffusion models of every layout: noise schedule, prompts, sampling, judge, and what plain diffusers makes of what is saved."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.models import PROMPT_WORDS, bundle_of, digits, images, made, noise_schedule, pixel, problem_of, prompt_tokenizer, prompted_unet, text_encoder
from unlearned.api import forget, make_problem
from unlearned.engine.adapters import Lora, with_adapter
from unlearned.engine.engine import Engine
from unlearned.engine.settings import Compute
from unlearned.errors import InputError
from unlearned.problem import Problem
from unlearned.tasks._images import fitted
from unlearned.tasks._judges import digits_judge
from unlearned.tasks._task import Batch, ModelSource
from unlearned.tasks.image_generation import Denoiser, Embedded, ImageGeneration, assemble, ddim, denoiser_of, empty_condition, guided, seen

PROMPTED = ("pixel", "stable", "stable-xl")


def batch_of(problem: Problem, count: int = 3) -> Batch:
    return problem.task.collate([problem.retain[i] for i in range(count)])


def task_of(problem: Problem, **settings: Any) -> ImageGeneration:
    return ImageGeneration(**{"sampling_steps": 3, **settings})


def denoiser(problem: Problem) -> Denoiser:
    return denoiser_of(problem.original.model)


@pytest.mark.parametrize("kind", PROMPTED)
def test_prompts_are_made_of_the_class_and_read_by_the_text_encoder(kind: str) -> None:
    problem = problem_of(kind)
    batch, model = batch_of(problem), denoiser(problem)
    words = prompt_tokenizer().convert_ids_to_tokens(batch["prompt"][1, 0].tolist())
    assert words == ["a", "photo", "of", str(int(batch["labels"][1]))]
    embedded = model.embed(batch["prompt"])
    assert embedded.states.shape == (3, 4, 16 if kind == "stable-xl" else 8)
    assert (embedded.pooled is not None) == (kind == "stable-xl")
    assert empty_condition(model, 1).flatten().unique().tolist() == [PROMPT_WORDS.index("[pad]")]


@pytest.mark.parametrize("kind", PROMPTED)
def test_loss_in_eval_mode_by_hand(kind: str) -> None:
    """Latents, noise of each sample's own seed, four timesteps, and the UNet called as diffusers calls it."""
    problem = problem_of(kind)
    model, batch, task = denoiser(problem).double(), batch_of(problem), problem.task
    batch = batch | {"pixel_values": batch["pixel_values"].double()}
    bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 100), dim=0).double()
    for i, loss in enumerate(task.losses(model, batch).tolist()):
        x = batch["pixel_values"][i : i + 1]
        if kind != "pixel":
            vae: Any = model.vae
            x = vae.encode(x).latent_dist.mean * vae.config.scaling_factor
        noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(int(batch["noise_seed"][i]))).double()
        errors = []
        for t in (10, 35, 60, 85):
            noisy = bars[t].sqrt() * x + (1 - bars[t]).sqrt() * noise
            predicted = called_plainly(model, kind, noisy, t, batch["prompt"][i : i + 1])
            target = noise if kind != "pixel" else bars[t].sqrt() * noise - (1 - bars[t]).sqrt() * x
            errors.append(float(((predicted - target) ** 2).mean()))
        assert loss == pytest.approx(sum(errors) / 4, rel=1e-6)


def called_plainly(model: Denoiser, kind: str, noisy: Tensor, t: int, prompt: Tensor) -> Tensor:
    encoders: list[Any] = model.text_encoders
    more: dict[str, Any] = {}
    if kind == "stable-xl":
        outs = [encoder(prompt[:, i], output_hidden_states=True) for i, encoder in enumerate(encoders)]
        states = torch.cat([out.hidden_states[0] for out in outs], dim=-1)  # one layer: the last but one state is what goes into it
        more["added_cond_kwargs"] = {"text_embeds": outs[1].text_embeds, "time_ids": torch.tensor([[8, 8, 0, 0, 8, 8]])}
    else:
        states = encoders[0](prompt[:, 0]).last_hidden_state
    with torch.no_grad():
        predicted: Tensor = model.unet(noisy, torch.tensor([t]), states, **more).sample
    return predicted


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_noise_can_be_read_off_every_kind_of_prediction(prediction_type: str) -> None:
    model = Denoiser(nn.Identity(), noise_schedule(prediction_type)).double()
    x, noise = torch.randn(2, 5, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    timesteps = torch.tensor([0, 3, 20, 60, 99])
    noisy, target = model.noised(x, noise, timesteps), model.target(x, noise, timesteps)
    torch.testing.assert_close(model.noise_in(target, noisy, timesteps), noise, rtol=1e-6, atol=1e-6)


def test_ddim_by_hand() -> None:
    """x_{t'} = √ᾱ' x̂_0 + √(1−ᾱ') ε̂ over the timesteps 67, 34, 1 of 100; the last step goes to ᾱ = 1."""
    problem = problem_of("pixel")
    model, batch = denoiser(problem), batch_of(problem)
    start = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    bars = model.alphas_cumprod.double()
    with torch.no_grad():
        found = ddim(model, start, batch["prompt"], steps=3, guidance=2.0)
        x = start.double()
        for t, before in ((67, float(bars[34])), (34, float(bars[1])), (1, 1.0)):
            when = torch.full((3,), t)
            empty, given = (model(x.float(), when, c).double() for c in (empty_condition(model, 3), batch["prompt"]))
            v, bar = empty + 2.0 * (given - empty), float(bars[t])
            clean, noise = math.sqrt(bar) * x - math.sqrt(1 - bar) * v, math.sqrt(bar) * v + math.sqrt(1 - bar) * x
            x = math.sqrt(before) * clean + math.sqrt(1 - before) * noise
    torch.testing.assert_close(found.double(), x, rtol=1e-4, atol=1e-4)


def test_guidance_of_one_is_one_pass_and_embeddings_stand_for_prompts() -> None:
    problem = problem_of("stable-xl")
    model, batch = denoiser(problem), batch_of(problem)
    noisy, when = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 50, 99])
    with torch.no_grad():
        plain = model(noisy, when, batch["prompt"])
        assert torch.equal(guided(model, noisy, when, batch["prompt"], 1.0), plain)
        embedded = model.embed(batch["prompt"])
        torch.testing.assert_close(model(noisy, when, embedded), plain)
        torch.testing.assert_close(guided(model, noisy, when, embedded, 3.0), guided(model, noisy, when, batch["prompt"], 3.0))
        assert isinstance(embedded, Embedded)


@pytest.mark.parametrize("kind", ["unet", *PROMPTED])
def test_images_depend_on_the_sample_alone(kind: str) -> None:
    problem = problem_of(kind)
    task, model = task_of(problem), denoiser(problem)
    together = task.images(model, batch_of(problem))
    alone = task.images(model, problem.task.collate([problem.retain[2]]))
    assert together.shape == (3, 1, 8, 8)
    assert 0 <= float(together.min()) <= float(together.max()) <= 1
    torch.testing.assert_close(together[2:], alone, rtol=1e-4, atol=1e-5)
    assert float((together[0] - together[1]).abs().max()) > 1e-3


def test_knowledge_is_what_the_judge_says_of_generated_images() -> None:
    problem = problem_of("pixel")
    model, batch = problem.original.model, batch_of(problem, 5)
    rate, probability = (task_of(problem, judge="digits", score=score) for score in ("rate", "probability"))
    with torch.no_grad():
        p = digits_judge()(rate.images(model, batch)).softmax(dim=1)
    assert probability.knowledge(model, batch).tolist() == pytest.approx([float(p[i, label]) for i, label in enumerate(batch["labels"])], rel=1e-4)
    expected = [float(int(p[i].argmax()) == int(label)) for i, label in enumerate(batch["labels"])]
    assert rate.knowledge(model, batch).tolist() == expected
    assert probability.utility(model, batch).tolist() == expected
    assert (rate.utility_metric, ImageGeneration().utility_metric) == ("concept_rate", "explained_share")


def test_shipped_judge_knows_digits_of_other_writers() -> None:
    pixels, labels = digits()
    with torch.no_grad():
        right = digits_judge()(pixels[1297:, None]).argmax(dim=1) == labels[1297:]
    assert float(right.float().mean()) > 0.97


def test_images_that_are_not_finite_are_reported() -> None:
    problem = problem_of("pixel")
    task, model = task_of(problem, judge="digits"), problem.original.model
    batch = batch_of(problem)
    broken = torch.full((3, 1, 8, 8), 0.5)
    broken[1, 0, 0, 0] = torch.nan
    probabilities = task.judged(broken)
    assert probabilities.isnan().any(dim=1).tolist() == [False, True, False]
    assert seen(probabilities, batch["labels"]).isnan().tolist() == [False, True, False]
    with torch.no_grad():
        next(denoiser_of(model).unet.parameters()).fill_(torch.inf)
    with pytest.raises(InputError, match="a model answers with NaN"):
        Engine(task).evaluate(model, problem.retain.subset(range(2)), task.knowledge)


def test_training_from_scratch_leaves_some_prompts_empty() -> None:
    problem = problem_of("pixel")
    model, batch, task = problem.original.model, batch_of(problem, 12), ImageGeneration(condition_dropout=0.5)
    given: list[Tensor] = []
    handle = denoiser_of(model).register_forward_pre_hook(lambda _, args: given.append(args[2]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task.training_losses(model, batch)
        task.losses(model, batch)
        ImageGeneration(condition_dropout=0.0).training_losses(model, batch)
    handle.remove()
    empty = empty_condition(model, 12)
    dropped = [(prompt == empty).flatten(1).all(dim=1) for prompt in given]
    assert 0 < int(dropped[0].sum()) < 12
    assert not any(bool(d.any()) for d in dropped[4:])
    assert bool((given[0] == torch.where(dropped[0][:, None, None], empty, batch["prompt"])).all())


@pytest.mark.parametrize("kind", PROMPTED)
def test_only_what_belongs_to_the_diffusion_model_is_trained_and_made_anew(kind: str) -> None:
    bundle = bundle_of(kind)
    model, task = denoiser_of(bundle.model), ImageGeneration()
    frozen = {name.partition(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"pixel": set(), "stable": {"vae", "text_encoder"}, "stable-xl": {"vae", "text_encoder", "text_encoder_2"}}[kind]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        fresh = task.fresh(bundle).model
    same = {name for name, tensor in fresh.state_dict().items() if torch.equal(tensor, model.state_dict()[name])}
    assert {name.partition(".")[0] for name in same if name.endswith(("q_proj.weight", "conv_in.weight", "token_embedding.weight"))} == frozen - set() - (
        set() if kind != "pixel" else {"text_encoder"}
    )
    assert task.architecture(bundle) == task.architecture(bundle_of(kind, seed=SEEDS[kind]))
    assert task.architecture(bundle) != task.architecture(bundle_of("pixel" if kind != "pixel" else "stable"))


SEEDS = {"pixel": 77, "stable": 20, "stable-xl": 20}
"""Beside an autoencoder, what is kept belongs to the architecture: there, the same weights."""


def test_noise_schedule_belongs_to_the_architecture() -> None:
    task, bundle = ImageGeneration(), bundle_of("pixel")
    other = bundle.with_model(made(pixel, prediction_type="epsilon"))
    assert task.architecture(bundle) != task.architecture(other)


@pytest.mark.parametrize(("kind", "zeros"), [("unet", False), ("pixel", False), ("stable", False), ("stable-xl", True), ("stable-xl", False)])
def test_saved_it_is_read_by_plain_diffusers(kind: str, zeros: bool, tmp_path: Path) -> None:
    """The components, and the pipeline: its images are ours; of XL also where guidance leads away from the empty prompt in the place of zeros."""
    import diffusers

    problem = problem_of(kind)
    denoiser(problem).zeros = zeros
    task, model = task_of(problem, guidance=None if kind == "unet" else 2.0), denoiser(problem)
    task.save(problem.original, tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    pipeline = getattr(diffusers, index["_class_name"]).from_pretrained(tmp_path, **({"vae": None} if kind == "pixel" else {}))
    assert all(torch.equal(tensor, model.unet.state_dict()[name]) for name, tensor in pipeline.unet.state_dict().items())
    loaded = task.load(ModelSource(source=str(tmp_path)), "model")
    assert loaded.companions.keys() == problem.original.companions.keys()
    batch = batch_of(problem)
    assert torch.equal(task.images(loaded.model, batch), task.images(model, batch))
    if kind == "unet":  # its call has no classes
        return
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    noise = torch.stack([torch.randn(model.latent_shape, generator=torch.Generator().manual_seed(int(seed))) for seed in batch["noise_seed"]])
    prompts = [f"a photo of {int(label)}" for label in batch["labels"]]
    size = 64 if kind == "pixel" else 8  # without an autoencoder the pipeline supposes one of eight pixels per latent
    how = {"num_inference_steps": 3, "guidance_scale": 2.0, "latents": noise, "height": size, "width": size}
    theirs = pipeline(prompts, output_type="latent", **how).images
    torch.testing.assert_close((model.decode(theirs).detach() + 1) / 2, task.images(model, batch), rtol=1e-4, atol=1e-4)


def test_model_from_a_function_with_its_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    original = bundle_of("unet")
    save_file({name: tensor.clone() for name, tensor in original.model.state_dict().items()}, tmp_path / "weights.safetensors")
    source = ModelSource(source="tests.models:denoiser", weights=str(tmp_path / "weights.safetensors"))
    with torch.random.fork_rng():
        loaded = ImageGeneration().load(source, "model")
    assert loaded.origin == source
    assert not loaded.model.training
    assert all(torch.equal(tensor, original.model.state_dict()[name]) for name, tensor in loaded.model.state_dict().items())


def test_adapter_reaches_the_attention_of_the_unet() -> None:
    problem = problem_of("pixel")
    with torch.random.fork_rng():
        adapted = with_adapter(problem.original.model, Lora(rank=2), r"unet.*attn2\.to_[kv]\.weight")
    assert denoiser_of(adapted) is not problem.original.model
    batch = batch_of(problem)
    adapted.eval()
    torch.testing.assert_close(problem.task.losses(adapted, batch), problem.task.losses(problem.original.model, batch))
    names = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert names
    assert all("attn2.to_k.lora" in name or "attn2.to_v.lora" in name for name in names)


def test_gradient_checkpointing_changes_no_result() -> None:
    problem = problem_of("pixel")
    plain, sparing = (
        forget(problem, "gradient-ascent", Engine(problem.task, Compute(gradient_checkpointing=wanted)), epochs=1, batch_size=3).model
        for wanted in (False, True)
    )
    assert all(torch.equal(tensor, sparing.state_dict()[name]) for name, tensor in plain.state_dict().items())
    assert not any(getattr(layer, "gradient_checkpointing", False) for layer in sparing.modules())


def test_folder_with_captions(tmp_path: Path) -> None:
    pixels, labels = digits()
    lines = []
    for i in range(6):
        Image.fromarray((pixels[i] * 255).byte().numpy()).save(tmp_path / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"photo of {int(labels[i])}", "concept": int(labels[i])}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    problem = make_problem(bundle_of("pixel"), train=str(tmp_path), test=str(tmp_path), forget=["0.png"], task="image-generation")
    assert problem.forget.ids == ["0.png"]
    row = problem.retain[0]
    assert prompt_tokenizer().convert_ids_to_tokens(row["prompt"][0].tolist()) == ["photo", "of", "1", "[pad]"]
    torch.testing.assert_close(row["pixel_values"], (pixels[1:2] * 255).floor() / 255 * 2 - 1)


def test_images_are_fitted_to_the_model() -> None:
    wide = torch.linspace(0, 1, 32).repeat(16, 1)[None]
    assert fitted(wide, 3, (8, 8)).shape == (3, 8, 8)
    middle = fitted(wide, 1, (8, 8))
    assert float(middle.mean()) == pytest.approx(0.5, abs=1e-3)  # cropped at the centre
    assert 0.2 < float(middle.min()) < float(middle.max()) < 0.8
    colour = torch.stack([torch.full((4, 4), value) for value in (0.2, 0.4, 0.6, 0.0)])
    assert float(fitted(colour, 1, None)[0, 0, 0]) == pytest.approx(0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6)
    assert fitted(colour, 3, None).shape == (3, 4, 4)
    picture = np.asarray(Image.fromarray((wide[0] * 255).byte().numpy()).resize((16, 8), Image.Resampling.BICUBIC)) / 255
    torch.testing.assert_close(middle[0], torch.from_numpy(picture[:, 4:12]).float(), atol=0.01, rtol=0)


class TestWrongInputs:
    def said(self, kind: str, data: dict[str, Any], **settings: Any) -> str:
        with pytest.raises(InputError) as caught:
            make_problem(bundle_of(kind), train=data, test=images(100, 4), forget=["digit-0"], task=ImageGeneration(**settings))
        return str(caught.value)

    def test_prompt_with_unknown_words(self) -> None:
        assert "1 different prompts have words that the model's tokenizer does not know" in self.said(
            "pixel", images(0, 6) | {"caption": ["a photo of 1"] * 5 + ["a zebra"]}
        )

    def test_prompt_too_long(self) -> None:
        assert "1 different prompts are longer than the 4 tokens" in self.said("stable", images(0, 6) | {"text": ["a photo of a 1"] * 6})

    def test_prompt_missing(self) -> None:
        assert "2 captions are missing, empty or not text" in self.said("pixel", images(0, 6) | {"caption": ["a 1"] * 4 + ["", None]})

    def test_concept_that_the_judge_does_not_know(self) -> None:
        data = images(0, 6) | {"label": [0, 1, 2, 3, 4, 12], "caption": ["a 1"] * 6}
        said = self.said("pixel", data, judge="digits")
        assert "1 labels lie outside 0..9, for example 12; the judge has 10 classes. Name a judge that knows the concepts" in said

    def test_class_that_the_model_does_not_know(self) -> None:
        assert "for example 12; the model has 10 classes" in self.said("unet", images(0, 6) | {"label": [0, 1, 2, 3, 4, 12]})

    def test_judge_that_cannot_be_loaded(self) -> None:
        assert "task.judge: there is no model at './no/judge'" in self.said("pixel", images(0, 6), judge="./no/judge")

    def test_judge_for_images_of_another_size(self) -> None:
        assert "the judge cannot take generated images of 1x8x8" in self.said("pixel", images(0, 6), judge="tests.tasks.test_diffusion:wide_judge")

    def test_guidance_without_an_empty_prompt(self) -> None:
        assert "task.guidance: the model has no empty prompt" in self.said("unet", images(0, 6), guidance=2.0)

    def test_template_without_a_place_for_the_class(self) -> None:
        with pytest.raises(ValueError, match="template"):
            ImageGeneration(template="a photo")

    def test_model_that_is_no_diffusion_model(self) -> None:
        with pytest.raises(InputError, match="Sequential is no diffusion model"):
            make_problem(nn.Sequential(nn.Linear(1, 1)), train=images(0, 6), test=images(0, 6), forget=["digit-0"], task="image-generation")

    def test_sizes_that_differ(self) -> None:
        unet = prompted_unet(1)
        unet.register_to_config(sample_size=None)
        bundle = assemble(unet, noise_schedule(), text_encoders=[text_encoder(0)], tokenizers=[prompt_tokenizer()])
        data = {"image": [torch.zeros(8, 8), torch.zeros(8, 12)], "label": [0, 1]}
        with pytest.raises(InputError, match="the images have 2 different sizes"):
            make_problem(bundle, train=data, test=data, forget=["0"], task="image-generation")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda index: index.pop("unet"), "has no UNet"),
            (lambda index: index.pop("scheduler"), "its scheduler (NoneType) has no table of noise levels"),
            (lambda index: index.pop("tokenizer"), "it has 1 text encoders and 0 tokenizers"),
            (lambda index: (index.pop("text_encoder"), index.pop("tokenizer")), "its UNet attends to text, but it has no text encoder"),
            (lambda index: index.update(unet=["mymodule", "MyUNet"]), "unet of"),
            (lambda index: index.update(scheduler=["diffusers", "NoSuchScheduler"]), "cannot be read"),
        ],
    )
    def test_pipelines_of_another_layout(self, change: Any, said: str, saved: Path, tmp_path: Path) -> None:
        import shutil

        shutil.copytree(saved, tmp_path / "model")
        index = json.loads((saved / "model_index.json").read_text())
        change(index)
        (tmp_path / "model" / "model_index.json").write_text(json.dumps(index))
        with pytest.raises(InputError) as caught:
            ImageGeneration().load(ModelSource(source=str(tmp_path / "model")), "model")
        assert said in str(caught.value)

    def test_another_precision(self, saved: Path) -> None:
        with pytest.raises(InputError, match=r"model.dtype: only language models are held in bfloat16"):
            ImageGeneration().load(ModelSource(source=str(saved), dtype="bfloat16"), "model")

    def test_function_that_makes_something_else_and_weights_of_another_model(self, saved: Path) -> None:
        with pytest.raises(InputError, match="returned Sequential, no diffusion model"):
            ImageGeneration().load(ModelSource(source="tests.tasks.test_diffusion:wide_judge"), "model")
        weights = str(next((saved / "unet").glob("*.safetensors")))
        with pytest.raises(InputError, match=r"model.weights: the weights do not fit the model"):
            ImageGeneration().load(ModelSource(source="tests.models:pixel", weights=weights), "model")

    def test_index_and_weights_that_are_damaged(self, saved: Path, tmp_path: Path) -> None:
        import shutil

        shutil.copytree(saved, tmp_path / "model")
        weights = next((tmp_path / "model" / "unet").glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:100])
        with pytest.raises(InputError, match=r"unet of .* cannot be read"):
            ImageGeneration().load(ModelSource(source=str(tmp_path / "model")), "model")
        (tmp_path / "model" / "model_index.json").write_text("{")
        with pytest.raises(InputError, match=r"model_index.json of .* cannot be read"):
            ImageGeneration().load(ModelSource(source=str(tmp_path / "model")), "model")

    @pytest.mark.parametrize(
        ("part", "said"),
        [
            (lambda parts: parts | {"unet": learned_variance()}, "its UNet has 1 channels in and 2 out"),
            (lambda parts: parts | {"unet": prompted_unet(1).half()}, "weights are held in float16"),
            (lambda parts: parts | {"text_encoders": []}, "its UNet attends to text, but it has no text encoder"),
            (lambda parts: parts | {"scheduler": flow_matching()}, "FlowMatchEulerDiscreteScheduler) has no table of noise levels"),
        ],
    )
    def test_components_that_do_not_fit_together(self, part: Any, said: str) -> None:
        parts = {"unet": prompted_unet(1), "scheduler": noise_schedule(), "text_encoders": [text_encoder(0)], "tokenizers": [prompt_tokenizer()]}
        with pytest.raises(InputError) as caught:
            assemble(**part(parts))
        assert said in str(caught.value)

    def test_a_model_made_by_hand_whose_components_do_not_fit_together(self) -> None:
        with pytest.raises(InputError, match="its UNet has 1 channels in and 2 out"):
            make_problem(Denoiser(learned_variance(), noise_schedule()), train=images(0, 6), test=images(0, 6), forget=["digit-0"], task="image-generation")


def learned_variance() -> Any:
    from diffusers import UNet2DModel

    blocks: dict[str, Any] = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "block_out_channels": (4, 4)}
    return UNet2DModel(8, 1, 2, norm_num_groups=2, attention_head_dim=2, **blocks)


def flow_matching() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler()


SCHEDULERS = ("DDIM", "DDPM", "PNDM", "EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep")


@pytest.mark.parametrize("kind", ["pixel", "stable"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_images_are_the_same_before_and_after_saving_whatever_the_scheduler(kind: str, name: str, tmp_path: Path) -> None:
    """Also when it was made with values left out; latents of an autoencoder are not clipped where it does not say so."""
    import diffusers

    problem = problem_of(kind)
    task, model = task_of(problem, sampling_steps=5), denoiser(problem)
    scheduler = getattr(diffusers, f"{name}Scheduler")(num_train_timesteps=100)
    tokenizers = [prompt_tokenizer() for _ in model.text_encoders]
    bundle = assemble(model.unet, scheduler, text_encoders=model.text_encoders, tokenizers=tokenizers, vae=model.vae)
    task.save(bundle, tmp_path)
    loaded = task.load(ModelSource(source=str(tmp_path)), "model")
    batch = batch_of(problem)
    assert torch.equal(task.images(loaded.model, batch), task.images(bundle.model, batch))
    noise = 100 * torch.randn(2, *denoiser_of(bundle.model).latent_shape)
    with torch.no_grad():
        ended = ddim(bundle.model, noise, batch["prompt"][:2], steps=5)
    assert (float(ended.abs().max()) < 10) == scheduler.config.get("clip_sample", kind == "pixel")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pipeline")
    ImageGeneration().save(bundle_of("pixel"), directory)
    return directory


def wide_judge() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
