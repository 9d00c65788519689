"""Options under which winnow does what the papers' released code does, on inputs whose answer is known."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import DIGITS, ROOT

torch = pytest.importorskip("torch")

from winnow import Ticket, WinnowError  # noqa: E402
from winnow.artifacts import read_arrays, write_tensors  # noqa: E402
from winnow.config.gems import Search  # noqa: E402
from winnow.config.parts import Attack, Compute, Model, Train  # noqa: E402
from winnow.config.text import HardConcrete, TextAttack, TextData  # noqa: E402
from winnow.config.vision import Normalisation  # noqa: E402
from winnow.gems import inits, regularizers  # noqa: E402
from winnow.gems.search import GemSearch, start_scores  # noqa: E402
from winnow.pipelines.double_win import grid as double_win_grid  # noqa: E402
from winnow.pipelines.double_win.config import DoubleWin  # noqa: E402
from winnow.run import Run  # noqa: E402
from winnow.schema import parse, plain  # noqa: E402
from winnow.text import hard_concrete  # noqa: E402
from winnow.text.data import load_text  # noqa: E402
from winnow.text.search import Accumulated  # noqa: E402
from winnow.train.optim import lr_factor  # noqa: E402
from winnow.vision import models, training  # noqa: E402


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    return models.build(Model(arch="resnet8", width=4, classifier="conv1x1", bn="non_affine"), 10)


@pytest.mark.parametrize(
    ("algo", "start"),
    [
        ("hc_iter", "unif"),
        ("hc", "unif"),
        ("ep", "kaiming_uniform"),
        ("global_ep", "kaiming_uniform"),
        ("global_ep_iter", "kaiming_uniform"),
    ],
)
def test_scores_start_as_their_algorithm_wants(algo, start):
    assert Search(algo=algo, target_sparsity=5).start == start
    assert Search(algo=algo, target_sparsity=5, score_init="half").start == "half"


def test_kaiming_uniform_scores_are_torch_s_own():
    """torch's kaiming_uniform_ with a = sqrt(5) is U(-1, 1) / sqrt(fan_in): the same range, the same spread, no
    other.
    """
    shape = (32, 16, 3, 3)
    drawn = inits.draw_scores(shape, "kaiming_uniform", inits.generator(1))
    reference = torch.nn.init.kaiming_uniform_(torch.empty(shape), a=5**0.5)
    assert drawn.abs().max() <= 1 / 12 and drawn.abs().max() == pytest.approx(1 / 12, rel=1e-3)
    assert float(drawn.std()) == pytest.approx(float(reference.std()), rel=0.03) and abs(float(drawn.mean())) < 0.003


def test_fixed_thresholding_is_at_a_half_whatever_rounds():
    model = small()
    scores = {n: torch.full_like(s, 0.6) for n, s in start_scores(model, "unif", 0).items()}
    first = next(iter(scores))
    scores[first] = torch.full_like(scores[first], 0.4)
    scores[list(scores)[1]].fill_(0.9)
    config = Search(
        algo="hc_iter", target_sparsity=50, iter_period=1, prune_type="FixThresholding", quantize_threshold=0.75
    )
    gem = GemSearch(model, scores, config, 3)
    assert gem.end_of_epoch(1)["prune_threshold"] == 0.5
    alive = gem.scored.views(gem.scored.alive)
    assert {n for n, v in alive.items() if not v.any()} == {first} and all(
        v.all() for n, v in alive.items() if n != first
    )


def test_entropy_pulls_nothing_at_its_ends():
    p = torch.tensor([0.0, 0.25, 0.5, 1.0])
    gradient = torch.zeros(4)
    regularizers.add_gradient("bin_entropy", p, torch.ones(4), 2.0, gradient)
    torch.testing.assert_close(gradient, torch.tensor([0.0, 2 * float(np.log(3)), 0.0, 0.0]))
    assert float(regularizers.penalty("bin_entropy", p, torch.ones(4))) == pytest.approx(np.log(2) + 0.5623351446)


def test_cosine_over_other_epochs():
    own, long = (Train(epochs=6, batch_size=1, lr=1, schedule="cosine", schedule_epochs=n) for n in (None, 150))
    assert lr_factor(own, 3, 1) == pytest.approx(0.5)
    assert lr_factor(long, 3, 1) == pytest.approx(0.5 * (1 + np.cos(np.pi * 3 / 150)))


def test_attack_on_batch_statistics_moves_them_and_not_the_mode():
    model, x, y = small(), torch.rand(8, 3, 16, 16), torch.arange(8)
    for statistics, moved in ((True, 4), (False, 1)):
        model.train()
        counts = [int(m.num_batches_tracked) for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        attack = Attack(eps=0.1, step_size=0.05, steps=3, batch_statistics=statistics)
        train = Train(epochs=1, batch_size=8, lr=0.1)
        training.make_step(model, train, Compute(), torch.device("cpu"), attack)((x, y))
        after = [int(m.num_batches_tracked) for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert [a - b for a, b in zip(after, counts, strict=True)] == [moved] * len(counts) and model.training
    model.eval()  # a model that is measured is attacked as it is measured
    before = {k: v.clone() for k, v in model.state_dict().items()}
    training.perturb(model, x, y, Attack(eps=0.1, step_size=0.05, steps=3, batch_statistics=True))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_transfer_normalises_by_the_target_s_statistics(tmp_path):
    config = Model(arch="resnet8", width=4, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    model = models.build(config, 10)
    path = tmp_path / "w.safetensors"
    write_tensors(path, model.state_dict(), {"model": models.spec(config, 10)})
    svhn = Normalisation(mean=[0.4377, 0.4438, 0.4728], std=[0.1201, 0.1231, 0.1052])
    moved, spec = models.load_pretrained(path, 4, svhn)
    assert (spec["mean"], spec["std"]) == (svhn.mean, svhn.std)
    torch.testing.assert_close(moved.input_std.flatten(), torch.tensor(svhn.std))
    torch.testing.assert_close(models.from_spec(spec).input_mean.flatten(), torch.tensor(svhn.mean))
    assert models.load_pretrained(path, 4)[1]["std"] == [0.4, 0.5, 0.6]


def test_validation_ra_by_its_own_attack(monkeypatch):
    class One:
        device, steps_per_epoch = torch.device("cpu"), 1

        def sizes(self, epoch):
            return [4]

        def epoch(self, epoch, first=0, share=slice):
            yield torch.rand(4, 3, 16, 16), torch.arange(4)

    seen = []
    monkeypatch.setattr(training, "accuracy", lambda *a: 1.0)
    monkeypatch.setattr(training, "robust_accuracy", lambda model, loader, attack, *a: seen.append(attack.steps) or 1.0)
    few, many = (Attack(eps=0.1, step_size=0.05, steps=n) for n in (1, 20))
    for selection in (many, None):
        training.train_classifier(
            small(), One(), One(), train=Train(epochs=1, batch_size=4, lr=0.01), compute=Compute(), seed=0, attack=few,
            selection_attack=selection, run=Run("cpu"),
        )  # fmt: skip
    assert seen == [20, 1]


def test_all_of_train_is_trained_on_and_the_curves_are_of_the_test_split():
    part, whole = (load_text(TextData(dataset="embedded", val_fraction=f), Path(), wanted=("train",)) for f in (0.1, 0))
    assert len(whole["train"]) == len(part["train"]) + len(part["val"])
    assert whole["val"].texts == whole["test"].texts and whole["val"].texts != part["val"].texts


@pytest.mark.parametrize("granularity", ["weight", "row", "matrix"])
def test_gradient_of_weights_that_are_not_frozen(granularity):
    """Masks are drawn as in training; the reference is autograd through the formula with the same noise."""
    torch.manual_seed(0)
    layer, config = torch.nn.Linear(6, 4), HardConcrete(granularity=granularity)
    weight = layer.weight.detach().clone().requires_grad_()
    model = torch.nn.Sequential(layer)
    score = hard_concrete.attach(model, ["0.weight"], config, frozen=False)["0.weight"]
    x, noise = torch.rand(3, 6), torch.rand(score.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hard_concrete, "uniform_noise", lambda shape, device: noise.clone())
        model.train()
        model(x).pow(2).sum().backward()
    reference = score.detach().clone().requires_grad_()
    masked = weight * hard_concrete.train_mask(reference, noise, config)
    torch.nn.functional.linear(x, masked, layer.bias.detach()).pow(2).sum().backward()
    torch.testing.assert_close(layer.parametrizations.weight.original.grad, weight.grad)
    torch.testing.assert_close(score.grad, reference.grad, rtol=1e-4, atol=1e-6)
    assert layer.bias.grad is not None


def test_added_up_gradients_live_in_the_checkpoint():
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    one(torch.ones(1, 2)).sum().backward()
    Accumulated(dict(other.named_parameters())).load_state_dict(Accumulated(dict(one.named_parameters())).state_dict())
    assert torch.equal(other.weight.grad, one.weight.grad) and torch.equal(other.bias.grad, one.bias.grad)


needs_textattack = pytest.mark.skipif(
    importlib.util.find_spec("textattack") is None, reason="textattack is not installed"
)


@needs_textattack
def test_textfooler_s_own_stopwords():
    from winnow.text import compat

    compat.textattack()
    from winnow.text.attacks.parts import textfooler_stopwords

    found = textfooler_stopwords()
    assert {"a", "about", "yourselves"} <= found and "film" not in found and len(found) > 200
    with pytest.raises(ValueError, match="stopwords recipe is a list of textfooler's"):
        TextAttack(recipe="pwws", candidates="wordnet", stopwords="recipe")


@needs_textattack
def test_short_texts_are_compared_where_asked():
    from winnow.text import compat

    compat.textattack()
    from textattack.shared import AttackedText

    from winnow.text.attacks.parts import LocalEncoder

    class Never(LocalEncoder):
        def encode(self, sentences):
            return torch.eye(len(sentences))  # nothing is like anything else

    original = AttackedText("a fine film")
    texts = [original, original.replace_word_at_index(1, "poor")]
    encoder = torch.nn.Linear(1, 1)
    for skip, passing in ((True, 1), (False, 0)):
        bound = Never(
            encoder, None, 8, torch.device("cpu"), threshold=0.5, window_size=15, skip_text_shorter_than_window=skip
        )
        assert len(bound._check_constraint_many(texts[1:], texts[0])) == passing


def test_a_native_transfer_replaces_the_stem_and_leaves_it_dense(run_stage, tmp_path):
    """The released native-32 variant: 3x3 in place of 7x7 and pooling; what was located elsewhere holds."""
    data = {"dataset": "digits", "classes": [0, 1, 2], "val_images": 30, "train_images": 60}
    weights, ticket, out = (tmp_path / n for n in ("w.safetensors", "t.mask.safetensors", "o.safetensors"))
    drawn = {"data": data, "model": {"arch": "resnet18"}, "init": {"init": "kaiming_normal"}, "seed": 0}
    assert run_stage("gem_init", drawn, out=weights)[0] == 0
    cut = {"method": "magnitude", "remaining_percent": 50}
    assert run_stage("prune", cut, weights=weights, out=ticket)[0] == 0
    config = {"data": data, "train": {"epochs": 1, "batch_size": 60, "lr": 1e-7}, "compute": {}, "seed": 0}
    files = {"init": weights, "mask": ticket, "best_sa": out, "metrics": tmp_path / "m.json"}
    assert run_stage("transfer", {**config, "imagenet_stem": False}, **files)[0] == 0
    start, masks, moved = read_arrays(weights), Ticket.load(ticket).arrays, read_arrays(out)
    assert start["conv1.weight"].shape == (64, 3, 7, 7) and moved["conv1.weight"].shape == (64, 3, 3, 3)
    assert "conv1.weight" in masks and np.count_nonzero(moved["conv1.weight"]) == moved["conv1.weight"].size
    held = [n for n in masks if n in moved and n not in ("conv1.weight", "fc.weight")]
    assert len(held) == 19 and all(np.allclose(moved[n], np.where(masks[n], start[n], 0), atol=1e-5) for n in held)
    model, _ = models.load_pretrained(out)  # what evaluations load
    assert isinstance(model.maxpool, torch.nn.Identity) and model.conv1.stride == (1, 1)
    code, error = run_stage("transfer", config, **files)  # with its own stem the located mask holds there too
    assert code == 0, error
    assert np.count_nonzero(read_arrays(out)["conv1.weight"] == 0) == np.count_nonzero(~masks["conv1.weight"])


def test_only_an_imagenet_stem_is_replaced():
    section = yaml.safe_load((ROOT / "config/config.yaml").read_text())["double_win"]
    section["downstreams"][0]["imagenet_stem"] = False
    with pytest.raises(WinnowError, match=r"digits59\.imagenet_stem: resnet8 has no such stem here to replace"):
        parse(DoubleWin, section)


@pytest.mark.parametrize(("statistics", "passes"), [(True, 3 + 1), (False, 1)])
def test_the_attack_of_adversarial_imp_on_batch_statistics(run_stage, tmp_path, dense, statistics, passes):
    """As in adversarial training: each step of the attack moves the running statistics, in a round under its mask."""
    ticket, out = tmp_path / "t.mask.safetensors", tmp_path / "o.safetensors"
    cut = {"method": "magnitude", "remaining_percent": 50}
    assert run_stage("prune", cut, weights=dense, out=ticket)[0] == 0
    section = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())["double_win"]
    section["imp"]["attack"] = {"eps": 0.1, "step_size": 0.05, "steps": 3, "batch_statistics": statistics}
    job = plain(double_win_grid.imp_train(parse(DoubleWin, section), "adv", "0"))
    config = {**job, "data": DIGITS, "train": {"epochs": 1, "batch_size": 30, "lr": 0.01}}
    files = {"init": dense, "mask": ticket, "out": out, "metrics": tmp_path / "m.json"}
    assert run_stage("train", config, **files)[0] == 0
    moved = read_arrays(out)["bn1.num_batches_tracked"] - read_arrays(dense)["bn1.num_batches_tracked"]
    assert int(moved) == 2 * passes
