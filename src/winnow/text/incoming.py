"""Other people's text models brought in strictly: what the file lacks is named, and only the pooler and the head may be
drawn.

The tensors are matched to the architecture by name here, not by transformers, which fills what it does not find with
random numbers and goes on. Whatever could not work in a later stage is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from winnow import outside
from winnow.errors import WinnowError
from winnow.interchange import read_checkpoint, stands_beside
from winnow.text import compat
from winnow.text.batches import encode
from winnow.text.data import Examples
from winnow.text.models import class_for, draw, from_folder_tokenizer, give_padding, logits_of, prunable, token_types
from winnow.weights import pretrained_files, pretrained_folder

log = logging.getLogger("winnow")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
MOST_LAYERS = 1000
_OTHER_FRAMEWORKS = (
    "tf_model.h5",
    "flax_model.msgpack",
    "model.onnx",
    "adapter_model.safetensors",
    "adapter_config.json",
)


def load_pretrained(
    path: str, classes: int, max_length: int, data_root: Path, download: bool, seed: int, prefix: str | None = None
) -> tuple[nn.Module, Any]:
    """A sequence classifier on a pre-trained encoder: a folder (as given, or below `data_root`) or a hub name.

    Weights in float32. A pooler that the file lacks is drawn from `seed`, which the log says; the caller draws the
    head. Raises WinnowError, naming the tensors, when the encoder is incomplete, and for whatever later stages could
    not use.
    """
    folder = pretrained_folder(path, data_root) or _from_hub(path, data_root, download)
    check_files(folder)
    transformers = compat.transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # json's, transformers' and Python's own kinds
        raise _unusable(folder, "config.json", error) from None
    kind = class_for(config, folder)
    state = read_state(folder)
    check_sizes(config, state, folder)
    config.num_labels = classes
    try:
        model = kind._from_config(config, attn_implementation=compat.attention(kind), dtype=torch.float32)
    except Exception as error:  # sizes that do not fit each other, each architecture in its own words
        raise _unusable(folder, "config.json", error) from None
    drawn = fill(model, state, folder, classes, prefix)
    draw(model, drawn, seed)
    if drawn:
        log.warning("%s holds no %s: drawn from seed %d", folder, ", ".join(drawn), seed)
    tokenizer = from_folder_tokenizer(folder)
    check_use(model, tokenizer, max_length, folder)
    return model, tokenizer


def _from_hub(name: str, data_root: Path, download: bool) -> Path:
    from huggingface_hub import snapshot_download

    name, _, revision = name.partition("@")
    which: dict[str, Any] = {"revision": revision or None, "ignore_patterns": ["*/*"], "local_files_only": not download}
    wanted = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted, **which))
        if not any((folder / w).exists() for w in WEIGHTS[:2]):  # older models have pickled weights alone
            wanted.append("pytorch_model*.bin")
            snapshot_download(name, allow_patterns=wanted, **which)
    except Exception as error:  # HTTP, cache and name errors, of several packages
        reason = " ".join(str(error).split())[:160]
        raise WinnowError(
            f"model.path: {name!r} is neither a folder with config.json (here or below {data_root}) nor in the hub "
            f"cache "
            f"({reason}); put the model's folder in place, or run once with --download on a machine with a network"
        ) from None
    log.info("%s: revision %s; to keep it, set model.path to %s@%s", name, folder.name, name, folder.name)
    return folder


def _unusable(folder: Path, what: str, error: Exception) -> WinnowError:
    reason = " ".join(str(error).split())[:160]
    return WinnowError(
        f"{folder}: {what} describes no model that can be used ({reason}); give a model of the BERT family"
    )


def check_files(folder: Path) -> None:
    """Raise WinnowError for files that only stand for a model's: empty ones, Git LFS pointers and web pages."""
    for file in pretrained_files(folder):
        with outside.opened(file) as f:
            head = f.read(512)
        if not head.strip():
            raise WinnowError(f"{file}: is empty; copy or download it again")
        if head.startswith(b"version https://git-lfs"):
            raise WinnowError(
                f"{file}: is a Git LFS pointer, not the file itself; run `git lfs pull` where it was cloned"
            )
        if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
            raise WinnowError(f"{file}: is a web page, not a model's file; download the file itself")


def read_state(folder: Path) -> dict[str, Tensor]:
    """The tensors of a model folder, from one file or several, safetensors before pickled ones."""
    name = next((w for w in WEIGHTS if (folder / w).exists()), None)
    if name is None:
        others = [o for o in _OTHER_FRAMEWORKS if (folder / o).exists()]
        found = f"only {', '.join(others)}" if others else "none of them"
        raise WinnowError(
            f"{folder}: holds no PyTorch weights ({WEIGHTS[0]} or {WEIGHTS[2]}), {found}; save the model with PyTorch"
        )
    if not name.endswith(".index.json"):
        return read_checkpoint(folder / name)
    try:
        shards = sorted(set(outside.read_json(folder / name)["weight_map"].values()))
        missing = [s for s in shards if "/" in s or not (folder / s).is_file()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WinnowError(f"{folder / name}: not an index of weights ({error!r}); copy it again") from None
    if missing:
        raise WinnowError(
            f"{folder / missing[0]}: missing ({len(missing)} of {len(shards)} parts of the weights); copy it here"
        )
    return {k: v for shard in shards for k, v in read_checkpoint(folder / shard).items()}


def check_sizes(config: Any, state: Mapping[str, Tensor], folder: Path) -> None:
    """Raise WinnowError for a config.json whose network would be larger than its weights, before it is built."""
    layers, hidden = getattr(config, "num_hidden_layers", 0), getattr(config, "hidden_size", 0)
    stored = sum(v.numel() for v in state.values())
    wide = max((getattr(config, name, 0) for name in ("vocab_size", "intermediate_size")), key=_number)
    narrow = getattr(config, "embedding_size", hidden)
    if _number(layers) > MOST_LAYERS or _number(wide) * min(_number(narrow), _number(hidden)) > max(stored, 1):
        raise WinnowError(
            f"{folder}: config.json describes {layers} layers, {wide} x {hidden} the largest matrix, and the weights "
            f"hold {stored:,} "
            "values; they belong to different models"
        )


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _modern(name: str) -> str:
    """The name that a parameter of the first BERT releases has today."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def fill(model: Any, state: Mapping[str, Tensor], folder: Path, classes: int, said: str | None = None) -> list[str]:
    """Copy `state` into `model`; returns the parameters that it lacks (pooler and head). Names may stand behind the
    prefix `said`.

    WinnowError when a tensor of the encoder is missing, left over, of another shape or not finite, and when the head in
    the file was trained for another number of classes.
    """
    state = {_modern(k): v for k, v in state.items()}
    base = f"{model.base_model_prefix}."
    parameters = dict(model.named_parameters())
    encoder = [n.removeprefix(base) for n in parameters if n.startswith(base)]
    needed = [n for n in encoder if not n.startswith("pooler.")]
    prefix = _prefix(state, needed, folder, base)
    outer = prefix.removesuffix(base)
    if prefix not in (base, "", said):
        raise WinnowError(
            f"{folder}: names in the weights start with {prefix!r} instead of {base!r} (saved from a wrapper?); if "
            f"this is the "
            f"encoder, set model.prefix: {prefix!r}"
        )
    named = {base + n: state[prefix + n] for n in encoder if prefix + n in state}
    left = {k.removeprefix(prefix) for k in state if k.startswith(prefix)} - set(encoder) if prefix else set()
    buffers = {n.removeprefix(base) for n, _ in model.named_buffers()}
    unknown = (n for n in left - buffers if n.startswith(_inner(needed)) and "pooler" not in n)
    surplus = sorted(n for n in unknown if not stands_beside(n))  # import_ticket reads the masks
    if surplus:
        raise WinnowError(
            f"{folder}: the weights hold {_some(surplus)}, which config.json does not know; they belong to another "
            f"model"
        )
    named |= {n: state[outer + n] for n in parameters if not n.startswith(base) and outer + n in state}
    for name, value in named.items():
        if value.shape != parameters[name].shape:
            if not name.startswith(base) and value.shape[1:] == parameters[name].shape[1:]:
                raise WinnowError(f"{folder}: has a head of {len(value)} classes, the task {classes} (data.classes)")
            raise WinnowError(
                f"{folder}: {name} is {list(value.shape)} in the weights and {list(parameters[name].shape)} by "
                f"config.json; "
                "they belong to different models"
            )
        if not torch.isfinite(value).all():
            raise WinnowError(
                f"{folder}: {name} holds values that are not finite; the training that made them diverged"
            )
    with torch.no_grad():
        for name, value in named.items():
            parameters[name].copy_(value)
    return [n for n in parameters if n not in named and not _is_classifier(n, base)]


def _is_classifier(name: str, base: str) -> bool:
    return not name.startswith((base, "head."))


def _inner(needed: list[str]) -> tuple[str, ...]:
    """The modules of the encoder that hold parameters: `embeddings.`, `encoder.`, `layers.`, ..."""
    return tuple({n.partition(".")[0] + "." for n in needed if "." in n})


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more tensors" if len(names) > 4 else "")


def _prefix(state: Mapping[str, Tensor], needed: list[str], folder: Path, base: str) -> str:
    """What stands before the encoder's names in the file (`bert.`, `module.bert.`, nothing, ...): the one that finds
    them all.
    """
    candidates = {k.removesuffix(n) for n in needed[:1] + needed[-1:] for k in state if k == n or k.endswith("." + n)}
    missing = {p: [n for n in needed if p + n not in state] for p in sorted(candidates)}
    whole = [p for p, names in missing.items() if not names]
    if len(whole) > 1 and base in whole:
        return base
    if len(whole) == 1:
        return whole[0]
    if whole:
        raise WinnowError(
            f"{folder}: the weights hold {len(whole)} encoders ({', '.join(map(repr, whole))}); save the one that is "
            f"wanted by itself"
        )
    if not missing:
        some = _some(sorted(state)) if state else "no tensors"
        raise WinnowError(
            f"{folder}: the weights hold nothing of the encoder that config.json describes ({base}...), but {some}"
        )
    best = min(missing, key=lambda p: len(missing[p]))
    absent = missing[best]
    raise WinnowError(
        f"{folder}: the weights lack {len(absent)} of {len(needed)} encoder tensors of config.json: "
        f"{_some([base + n for n in absent])}; save the whole encoder, or correct config.json"
    )


def positions(model: Any) -> tuple[int | None, int | None]:
    """The longest input that `model` has positions for, and the token that it passes over when it counts them; None: no
    such.
    """
    for name, module in getattr(model, model.base_model_prefix).named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            padding = module.padding_idx
            return module.num_embeddings - (0 if padding is None else padding + 1), padding
    return getattr(model.config, "max_position_embeddings", None), None


def check_use(model: Any, tokenizer: Any, max_length: int, folder: Path) -> None:
    """Raise WinnowError unless the later stages can train, mask and attack `model` on texts of `max_length` tokens."""
    give_padding(model, tokenizer)
    longest, padding = positions(model)
    if longest is not None and max_length > longest:
        raise WinnowError(f"data.max_length: {max_length} tokens, but {folder} has positions for {longest}; lower it")
    if tokenizer.pad_token_id is None:
        raise WinnowError(f"{folder}: its tokenizer has no padding token; give a model of the BERT or GPT kind")
    if padding is not None and padding != tokenizer.pad_token_id:
        raise WinnowError(
            f"{folder}: its tokenizer pads with token {tokenizer.pad_token_id}, the model with {padding}; they belong "
            f"to different "
            "models"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest < len(tokenizer.all_special_ids) or highest >= rows:
        raise WinnowError(
            f"{folder}: its tokenizer has ids up to {highest}, the model {rows} word embeddings; they belong to "
            f"different models"
        )
    prunable(model)
    text = Examples(["the film was good " * max_length, "fine"], None, torch.zeros(2, dtype=torch.int64).numpy())
    data = encode(tokenizer, text, max_length, token_types(model))
    batch = data.batch(torch.arange(2).numpy(), torch.device("cpu"))
    batch.pop("labels")
    try:
        with torch.no_grad():
            shown = model.eval()(**batch).logits
            words = batch.pop("input_ids")
            embedded = logits_of(model, model.get_input_embeddings()(words), words, batch)  # as FreeLB does
    except Exception as error:  # each architecture has its own
        raise _unusable(folder, type(model).__name__, error) from None
    if not torch.allclose(shown, embedded, atol=1e-4, rtol=1e-3):
        raise WinnowError(
            f"{folder}: {type(model).__name__} gives other outputs for word embeddings than for words; FreeLB needs "
            f"both"
        )
