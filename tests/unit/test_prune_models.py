"""Which layers are pruned, Wanda, gradients over several batches, and `winnow.prune` on models as people have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import winnow.prune
from winnow import Ticket, WinnowError
from winnow.compat import torchvision
from winnow.config.parts import Model
from winnow.gems.scores import scorable
from winnow.prune import erk, grasp, magnitude, random_global, random_like, snip, synflow, wanda
from winnow.prune.counts import keep_largest
from winnow.prune.layers import Layers, coverage_warning, covered_percent
from winnow.prune.methods import METHODS
from winnow.text import compat
from winnow.text import models as text_models
from winnow.vision import models


def shapes(model):
    return {n: tuple(p.shape) for n, p in model.named_parameters()}


@pytest.fixture(scope="module")
def bert():
    transformers = compat.transformers()
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40,
        max_position_embeddings=16, initializer_range=0.2,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config).train()


def texts(seed=0, batches=3):
    rng = torch.Generator().manual_seed(seed)
    made = []
    for size in range(4, 4 + batches):
        lengths = torch.randint(3, 12, (size,), generator=rng)
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        ids = torch.randint(5, 60, mask.shape, generator=rng) * mask
        made.append({"input_ids": ids, "attention_mask": mask, "labels": torch.randint(0, 2, (size,), generator=rng)})
    return made


def images(count=2, seed=0, size=8):
    rng = torch.Generator().manual_seed(seed)
    sizes = range(6, 6 + count)
    return [(torch.rand(n, 3, size, size, generator=rng), torch.randint(0, 5, (n,), generator=rng)) for n in sizes]


def small_model(**keys):
    torch.manual_seed(0)
    return models.build(Model(arch="resnet8", width=4, **keys), 5)


def test_layers_of_a_vit_are_linear_ones_and_its_convolution_alone_is_little():
    with torch.device("meta"):
        vit = torchvision().models.vit_b_16(num_classes=10)
    conv, linear, both = (Layers(kinds=k).names(vit) for k in (("conv",), ("linear",), ("conv", "linear")))
    assert conv == ["conv_proj.weight"] and set(both) == {*conv, *linear} and "heads.head.weight" not in both
    assert sum(n.endswith("in_proj_weight") for n in linear) == 12 and len(linear) == 12 * 4
    assert covered_percent(conv, shapes(vit)) < 1 and covered_percent(linear, shapes(vit)) > 95
    assert coverage_warning(both, shapes(vit)) is None
    assert "1 weights to prune hold only 0.69 %" in coverage_warning(conv, shapes(vit))
    assert coverage_warning(["a"], {"a": (4, 5), "b": (80,)}) is None and coverage_warning(
        ["a"], {"a": (19,), "b": (81,)}
    )


def test_patterns_choose_among_the_kinds():
    model = small_model()
    assert Layers(kinds=("conv",)).names(model) == models.prunable(model)
    assert Layers(head=True).names(model) == scorable(model)
    some = Layers(include=["layer2.*", "*conv2*"], exclude=["layer3.*"]).names(model)
    assert some == ["layer1.0.conv2.weight", *(n for n in models.prunable(model) if n.startswith("layer2."))]
    with pytest.raises(WinnowError, match=r"include \['encoder"):
        Layers(include=["encoder.*"]).names(model)


def test_layers_of_bert_are_those_that_masks_sit_on(bert):
    assert Layers(kinds=("linear",)).names(bert) == text_models.prunable(bert)


def test_masked_and_tied_weights_are_told_or_counted_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].weight = model[0].weight
    assert Layers().names(model) == ["0.weight"]
    torch_prune.l1_unstructured(model[0], "weight", 0.5)
    with pytest.raises(WinnowError, match=r"0\.weight is parametrized"):
        Layers().names(model)


def wanda_reference(model, names, count, batches):
    """Sun et al.: block by block, every input of every layer collected token by token, each row sorted by itself."""
    total = sum(model.get_parameter(n).numel() for n in names)
    model.eval()
    found, start = {}, {n: model.get_parameter(n).detach().clone() for n in names}
    blocks = [[n for n in names if f".layer.{i}." in n] for i in range(3)] + [[n for n in names if "pooler" in n]]
    for block in blocks:
        inputs = {n: [] for n in block}
        for batch in batches:
            for row in range(len(batch["labels"])):  # one text at a time, without padding
                length = int(batch["attention_mask"][row].sum())
                hooks = [
                    model.get_submodule(n.removesuffix(".weight")).register_forward_hook(
                        lambda _, x, __, seen=inputs[n]: seen.extend(x[0].reshape(-1, x[0].shape[-1]).double().unbind())
                    )
                    for n in block
                ]
                with torch.no_grad():
                    model(input_ids=batch["input_ids"][row : row + 1, :length])
                for hook in hooks:
                    hook.remove()
        for name in block:
            weight = model.get_parameter(name).detach()
            norm = torch.stack(inputs[name]).norm(dim=0)
            mask = np.zeros(weight.shape, dtype=bool)
            for i in range(weight.shape[0]):
                order = sorted(range(weight.shape[1]), key=lambda j: -abs(float(weight[i, j])) * float(norm[j]))
                mask[i, order[: round(weight.shape[1] * count / total)]] = True
            found[name] = mask
            with torch.no_grad():
                weight.mul_(torch.from_numpy(mask))
    with torch.no_grad():
        for name, values in start.items():
            model.get_parameter(name).copy_(values)
    return found


def test_wanda_prunes_bert_as_the_paper_says(bert):
    names, before = text_models.prunable(bert), {k: v.clone() for k, v in bert.state_dict().items()}
    count = sum(bert.get_parameter(n).numel() for n in names) // 4  # whole numbers in every row
    bert.train()
    found = wanda.masks(bert, names, count, texts())
    assert bert.training and all(torch.equal(v, before[k]) for k, v in bert.state_dict().items())
    expected = wanda_reference(bert, names, count, texts())
    assert list(found) == names and Ticket(found).kept == count
    for name in names:
        assert np.array_equal(found[name], expected[name]), name
    dense_inputs = wanda.masks(bert, [n for n in names if ".layer.2." in n], count // 4, texts())
    assert any(not np.array_equal(found[n], m) for n, m in dense_inputs.items())  # the pruned blocks before it matter


def test_wanda_counts_rows_exactly_and_refuses_what_it_cannot_see(bert):
    names = text_models.prunable(bert)
    total = sum(bert.get_parameter(n).numel() for n in names)
    for count in (0, 1, 777, total):
        found = wanda.masks(bert, names, count, texts())
        assert Ticket(found).kept == count
        for mask in found.values():
            rows = mask.sum(1)
            assert (np.abs(rows - mask.shape[1] * count / total) < 1).all()
    with pytest.raises(WinnowError, match=r"conv1\.weight is of none"):
        wanda.masks(small_model(), ["conv1.weight"], 3, images())
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    with pytest.raises(WinnowError, match=r"out_proj\.weight is not called"):
        wanda.masks(attention.train(), ["self_attn.out_proj.weight", "linear1.weight"], 9, [(torch.rand(2, 3, 8),)])


def test_ties_in_a_row_go_to_earlier_positions():
    assert wanda.keep_in_rows(np.array([[1.0, 2, 2, 2], [0, 0, 0, 0]]), np.array([2, 3])).tolist() == [
        [False, True, True, False],
        [True, True, True, False],
    ]


@pytest.mark.parametrize("method", [snip, grasp])
def test_scores_of_batches_are_those_of_all_their_examples(method):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 5)).double()
    batches = [(x.double(), y) for x, y in images(3)]
    whole = [(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))]
    names = scorable(model)
    parts, one = method.scores(model, names, batches), method.scores(model, names, whole)
    for name in names:
        torch.testing.assert_close(parts[name], one[name])


def test_scoring_leaves_a_model_alone_in_whatever_mode_it_was():
    model = small_model().eval()
    model.bn1.train()
    model.conv1.weight.requires_grad_(False)
    before = {k: v.clone() for k, v in [*model.state_dict().items(), *model.named_buffers()]}
    for name in ("snip", "grasp", "synflow"):
        winnow.prune.prune(model, name, 30, batches=images())
    after = dict([*model.state_dict().items(), *model.named_buffers()])
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert [m for m in model.modules() if m.training] == [model.bn1]
    assert not model.conv1.weight.requires_grad and model.conv1.weight.grad is None


def test_synflow_takes_a_model_that_normalises_nothing():
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3))
    masks = synflow.masks(model, scorable(model), 60, [(torch.rand(2, 6), None)])
    assert Ticket(masks).kept == 60 and all(m.any() for m in masks.values())
    with pytest.raises(WinnowError, match="real inputs"):
        synflow.masks(model, scorable(model), 60, [(torch.ones(2, 6, dtype=torch.long), None)])


def test_prune_is_called_as_the_package_and_gives_what_the_method_gives(bert):
    model = small_model()
    ticket = winnow.prune(model, "magnitude", 20)
    names = Layers().names(model)
    arrays = {n: model.get_parameter(n).detach().numpy() for n in names}
    expected = magnitude.masks(arrays, round(sum(a.size for a in arrays.values()) * 0.2))
    assert all(np.array_equal(m, expected[n]) for n, m in ticket.arrays.items()) and list(ticket.arrays) == names
    assert ticket.metadata["method"] == "magnitude"
    control = winnow.prune(model, "random_like", like=ticket, seed=4)
    assert all(np.array_equal(m, random_like.masks(ticket, 4)[n]) for n, m in control.arrays.items())
    with torch.random.fork_rng():  # dropout is seeded: the state of the generator plays no part
        one = winnow.prune(bert, "snip", 20, batches=iter(texts()), seed=3)
        torch.manual_seed(99)
        state = torch.get_rng_state()
        same = winnow.prune(bert, "snip", 20, batches=texts(), seed=3)
        assert torch.equal(torch.get_rng_state(), state)
    assert all(np.array_equal(m, same.arrays[n]) for n, m in one.arrays.items())
    assert list(winnow.prune(bert, "wanda", 20, batches=texts()).arrays) == text_models.prunable(bert)


def test_seeds_are_0_unless_given_and_a_ticket_of_another_model_is_refused():
    model = small_model()
    for method in ("erk", "random_global", "smart_ratio"):
        found = [winnow.prune(model, method, 20, **keys).arrays for keys in ({}, {"seed": 0}, {"seed": 1})]
        same = [all(np.array_equal(found[0][n], other[n]) for n in other) for other in found]
        assert same == [True, True, False], method
    weights = {n: model.get_parameter(n).detach().numpy() for n in Layers().names(model)}
    for module in (random_global, erk):
        given = module.masks(weights, 50, seed=0)
        assert all(np.array_equal(m, given[n]) for n, m in module.masks(weights, 50).items())
    like = Ticket(random_like.masks(Ticket(given), 0))
    found = winnow.prune(model, "random_like", like=like).arrays
    assert all(np.array_equal(m, random_like.masks(like, 0)[n]) for n, m in found.items())
    with pytest.raises(WinnowError, match="ticket does not fit"):
        winnow.prune(model, "random_like", like=Ticket({"elsewhere": np.ones((2, 2), dtype=bool)}))


class Scaled(nn.Module):
    """A model with an argument that is no tensor."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x, scale):
        return self.b(torch.relu(self.a(scale * x)))


def test_arguments_that_are_no_tensors_reach_the_model_as_they_are():
    torch.manual_seed(0)
    model, x, y = Scaled(), torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    found = winnow.prune(model, "snip", 50, batches=[{"x": x, "scale": 3.0, "labels": y}])
    same = winnow.prune(model, "snip", 50, batches=[{"x": 3 * x, "scale": 1.0, "labels": y}])
    assert all(np.array_equal(m, same.arrays[n]) for n, m in found.arrays.items())


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.takes == "model" and n != "wanda"])
def test_model_methods_keep_the_exact_percentage(name):
    ticket = winnow.prune(small_model(), name, 12.5, batches=images())
    assert ticket.kept == round(ticket.total * 0.125)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "snip", "remaining_percent": 10}, "batches: snip needs a few batches"),
        ({"method": "snip", "remaining_percent": 10, "batches": [(torch.ones(2, 3, 8, 8),)]}, "examples with labels"),
        ({"method": "lamp", "remaining_percent": 10, "batches": images()}, "batches: lamp takes none"),
        ({"method": "random_like"}, "like: random_like needs the ticket"),
        ({"method": "lamp"}, "remaining_percent: None is no percentage"),
        ({"method": "lamp", "remaining_percent": 0}, "remaining_percent: 0 is no percentage"),
        ({"method": "rigl", "remaining_percent": 10}, "use the class in winnow.prune.rigl"),
        ({"method": "wanda", "remaining_percent": 10, "batches": images()}, "choose none of 0 weights"),
    ],
)
def test_what_does_not_go_together_is_one_line(arguments, message):
    with pytest.raises(WinnowError, match=message):
        winnow.prune.prune(small_model(), **arguments)


def test_a_choice_of_little_says_so(caplog):
    with caplog.at_level("WARNING", "winnow"):
        winnow.prune(small_model(), "lamp", 50, layers=Layers(include=["conv1.*"]))
    assert "1 weights to prune hold only" in caplog.text


def test_keep_largest_compares_in_the_precision_asked_for():
    scores = {"a": np.array([1.0, 1.0 + 1e-12])}
    assert keep_largest(scores, 1)["a"].tolist() == [True, False]
    assert keep_largest(scores, 1, np.float64)["a"].tolist() == [False, True]


@pytest.fixture
def gpt2():
    """A tiny GPT-2 that classifies; its layers hold their weights as (in, out)."""
    transformers = compat.transformers()
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 32, "vocab_size": 60, "n_positions": 16}
    return transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**sizes, pad_token_id=0)).eval()


def words(seed=0):
    """Two batches of texts of different lengths, padded on the right."""
    rng = torch.Generator().manual_seed(seed)
    made = []
    for lengths in ((12, 7, 9, 4), (5, 11, 12, 8)):
        ids, shown = torch.randint(1, 60, (4, 12), generator=rng), torch.arange(12) < torch.tensor(lengths)[:, None]
        made.append({"input_ids": ids * shown, "attention_mask": shown.long(), "labels": torch.tensor([0, 1, 1, 0])})
    return made


@pytest.mark.parametrize("method", ["magnitude", "wanda", "snip"])
def test_a_decoder_s_transposed_layers_are_pruned(gpt2, method):
    names = text_models.prunable(gpt2)
    assert len(names) == 8 and names[0] == "transformer.h.0.attn.c_attn.weight"
    total = sum(gpt2.get_parameter(n).numel() for n in names)
    ticket = winnow.prune(gpt2, method, 25, **({} if method == "magnitude" else {"batches": words()}))
    assert set(ticket.arrays) == set(names) and ticket.kept == total // 4
    if method == "wanda":  # the same share of what each output reads: columns, of weights that lie as (in, out)
        for mask in ticket.arrays.values():
            assert np.abs(mask.sum(0) - mask.shape[0] / 4).max() < 1 and np.ptp(mask.sum(1)) > 2


def test_wanda_of_a_transposed_layer_is_that_of_the_layer_turned_round():
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    turned, plain = (
        nn.Sequential(Conv1D(8, 6), nn.GELU(), Conv1D(4, 8)),
        nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4)),
    )
    for i in (0, 2):
        plain[i].weight.data, plain[i].bias.data = turned[i].weight.data.T.clone(), turned[i].bias.data.clone()
    batches, names = [(torch.randn(5, 6),)], ["0.weight", "2.weight"]
    found = {k: wanda.masks(m, names, 20, batches) for k, m in (("turned", turned), ("plain", plain))}
    for name in names:
        assert np.array_equal(found["turned"][name], found["plain"][name].T)


def test_a_robust_ticket_of_a_decoder(gpt2):
    """Its scores lie like the weights; the model stays as it was, and the ticket leaves what is asked for."""
    before = {k: v.clone() for k, v in gpt2.state_dict().items()}
    ticket = winnow.robust_ticket(gpt2, words(), 30, epochs=2, adversarial_steps=2)
    assert all(torch.equal(v, before[k]) for k, v in gpt2.state_dict().items())
    assert ticket.remaining_percent == pytest.approx(70, abs=0.1) and set(ticket.arrays) == set(
        text_models.prunable(gpt2)
    )
    assert ticket.arrays["transformer.h.0.attn.c_attn.weight"].shape == (16, 48)


def test_the_last_word_is_seen_when_embeddings_are_perturbed(gpt2):
    """GPT-2 classifies by the last word that is no padding, which embeddings alone do not show."""
    batch = words()[0]
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    embedded, others = gpt2.get_input_embeddings()(batch["input_ids"]), {"attention_mask": batch["attention_mask"]}
    expected = gpt2(**inputs).logits
    assert torch.allclose(text_models.logits_of(gpt2, embedded, batch["input_ids"], others), expected, atol=1e-6)
    assert not torch.allclose(gpt2(inputs_embeds=embedded, **others).logits, expected, atol=1e-4)
