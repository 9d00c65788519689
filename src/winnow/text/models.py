"""Hugging Face classifiers as artifacts: a folder that `AutoModelForSequenceClassification.from_pretrained` loads."""

from __future__ import annotations

import collections
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from winnow import places
from winnow.artifacts import MODEL_FILE, SIDECAR, sha256_file, write_json, write_record
from winnow.config.text import TextModel
from winnow.errors import WinnowError
from winnow.prune.layers import is_linear
from winnow.rng import seed_of
from winnow.text import compat
from winnow.weights import check_replaceable, model_folder, replace_folder

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def prunable(model: Any) -> list[str]:
    """Weights that masks sit on: every linear layer of the encoder and the pooler (robust tickets, section 3.1).

    For BERT that is query, key, value, attention output, intermediate and output of each layer, and the pooler: 6 L + 1
    matrices. The classification head and the embeddings are never masked.
    """
    base = getattr(model, model.base_model_prefix)
    names = [f"{model.base_model_prefix}.{name}.weight" for name, layer in base.named_modules() if is_linear(layer)]
    if not names:
        raise WinnowError(
            f"model: {type(model).__name__} has no linear layers to mask; use one of the BERT or GPT kind"
        )
    return names


def vocabulary(texts: Iterable[str], extra: Iterable[str], size: int) -> list[str]:
    """A WordPiece vocabulary: special tokens, single characters and their continuations, `extra`, then the commonest
    words.

    Any lower-case ASCII word can be spelt, so character edits give pieces and never only [UNK]. Equal counts are
    ordered alphabetically: the result is a function of the texts (training WordPiece with `tokenizers` is not).
    """
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalise, split = BertNormalizer(lowercase=True), BertPreTokenizer()
    counts = collections.Counter(
        word for text in texts for word, _ in split.pre_tokenize_str(normalise.normalize_str(text))
    )
    characters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    ordered = sorted(counts, key=lambda w: (-counts[w], w))
    entries = [*SPECIAL, *characters, *(f"##{c}" for c in characters if c.isalnum()), *sorted(extra), *ordered]
    return list(dict.fromkeys(entries))[:size]


def tiny_bert(config: TextModel, classes: int, vocab: list[str], max_length: int, seed: int) -> tuple[nn.Module, Any]:
    """A small BERT classifier with seeded random weights, and its tokenizer."""
    transformers = compat.transformers()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.txt"
        file.write_text("\n".join(vocab) + "\n")
        # transformers 5 renamed the argument and ignores the old name without a word, hence the check below
        key = "vocab" if int(transformers.__version__.split(".")[0]) >= 5 else "vocab_file"
        tokenizer = transformers.BertTokenizerFast(**{key: str(file)}, do_lower_case=True, model_max_length=max_length)
    if len(tokenizer) != len(vocab):
        raise WinnowError(f"transformers {transformers.__version__} did not take the vocabulary; use 4.57")
    bert = transformers.BertConfig(
        vocab_size=len(vocab), hidden_size=config.hidden, num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate, max_position_embeddings=max_length, hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout, num_labels=classes, initializer_range=0.05,
    )  # fmt: skip
    torch.manual_seed(seed_of(seed, "tiny bert"))
    return transformers.BertForSequenceClassification(bert), tokenizer


def class_for(config: Any, folder: Path) -> Any:
    """The sequence classifier class for a Hugging Face `config`; WinnowError when there is none that masks can be put
    on.
    """
    compat.transformers()
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as KNOWN

    if type(config) not in KNOWN or config.is_encoder_decoder or getattr(config, "is_decoder", False):
        raise WinnowError(
            f"{folder}: model_type {config.model_type!r} is no encoder that classifies; give one of the BERT family"
        )
    found = KNOWN[type(config)]
    return found[0] if isinstance(found, tuple) else found


def from_folder_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`, without running code that lies there; WinnowError when it does not load."""
    try:
        kind = compat.transformers().AutoTokenizer
        return kind.from_pretrained(folder, use_fast=True, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # json's, tokenizers' and transformers' own kinds
        reason = " ".join(str(error).split())[:160]
        raise WinnowError(
            f"{folder}: its tokenizer does not load ({reason}); put tokenizer.json or vocab.txt there"
        ) from None


def reads_left_to_right(model: Any) -> bool:
    """Whether `model` is a decoder that classifies by its last token, as GPT-2 does: a causal language model that is no
    masked one.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    kind = getattr(getattr(model, "config", None), "model_type", None)
    return kind in CAUSAL and kind not in MASKED


def logits_of(model: Any, embedded: torch.Tensor, words: torch.Tensor, others: Mapping[str, torch.Tensor]) -> Any:
    """The logits (B, classes) for these word embeddings (B, L, D) in place of those of `words` (B, L).

    A decoder must see the words too, to know which of them is the last.
    """
    if not reads_left_to_right(model):
        return model(inputs_embeds=embedded, **others).logits
    hook = model.get_input_embeddings().register_forward_hook(lambda *_: embedded)
    try:
        return model(input_ids=words, **others).logits
    finally:
        hook.remove()


def give_padding(model: Any, tokenizer: Any) -> None:
    """Let a decoder that was trained without padding, as GPT-2 was, be padded with its end of text."""
    if reads_left_to_right(model):
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id


def token_types(model: Any) -> bool:
    """Whether `model` tells the two texts of a pair apart by token types (BERT, ALBERT and ELECTRA do)."""
    return getattr(model.config, "type_vocab_size", 0) > 1


def load_classifier(path: Path) -> tuple[nn.Module, Any]:
    """The model and tokenizer of a folder (or its model.safetensors) that `save_classifier` wrote."""
    folder = model_folder(path)
    try:
        config = compat.transformers().AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        kind = class_for(config, folder)
        model, about = kind.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, attn_implementation=compat.attention(kind),
            trust_remote_code=False, output_loading_info=True,
        )  # fmt: skip
        if lacking := sorted(about["missing_keys"]):
            raise ValueError(f"its weights lack {', '.join(lacking[:4])}")
    except WinnowError:
        raise
    except Exception as error:  # safetensors, json and transformers all have kinds of their own for a broken folder
        reason = " ".join(str(error).split())[:160]
        raise WinnowError(
            f"{folder}: not a complete model folder ({reason}); rerun the stage that writes it, or import_text_model"
        ) from None
    tokenizer = from_folder_tokenizer(folder)
    give_padding(model, tokenizer)
    return model, tokenizer


def check_classes(model: Any, classes: int, what: str) -> None:
    """Raise WinnowError when the head and the task disagree."""
    if model.config.num_labels != classes:
        raise WinnowError(f"{what}: has {model.config.num_labels} classes, the task {classes} (data.classes)")


def reset_head(model: Any, seed: int) -> None:
    """Draw the classification head anew from `seed`, as loading a bare encoder does.

    The head is what stands outside the encoder, but for ModernBERT's `head`, which is pre-trained.
    """
    draw(
        model,
        [n for n, _ in model.named_parameters() if not n.startswith((f"{model.base_model_prefix}.", "head."))],
        seed,
    )


def draw(model: Any, names: Iterable[str], seed: int) -> None:
    """Draw the named parameters from `seed`: weights N(0, initializer_range), biases 0, scales of layer norms 1."""
    generator = torch.Generator().manual_seed(seed_of(seed, "head"))
    with torch.no_grad():
        for name in names:
            parameter = model.get_parameter(name)
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * model.config.initializer_range)


def save_classifier(file: Path, model: Any, tokenizer: Any, record: Mapping[str, Any]) -> None:
    """Write the folder around `file` (.../model.safetensors): under a temporary name, then renamed.

    `record` (provenance) goes into winnow.json, with the sha256 of every other file.
    """
    if file.name != MODEL_FILE:
        raise WinnowError(f"{file}: a model folder is named by its {MODEL_FILE}; write to .../{MODEL_FILE}")
    folder = file.parent.absolute()
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    try:
        with places.marked(made):
            model.config._name_or_path = ""  # where it was loaded from must not be in the bytes
            model.save_pretrained(made)
            tokenizer.save_pretrained(made)
            _strip_paths(made / "tokenizer_config.json")
            about = {"format": 1, "kind": "text_model", "prunable": prunable(model), **record}
            files = {p.name: sha256_file(p) for p in sorted(made.iterdir())}
            write_record(made / SIDECAR, {**about, "files": files})
            for file in made.iterdir():
                with file.open("rb") as f:
                    os.fsync(f.fileno())
            made.chmod(0o755)
            replace_folder(made, folder)
    except Exception as error:
        if not isinstance(error, OSError | SafetensorError) and "(os error" not in str(
            error
        ):  # tokenizers raises Exception itself
            raise
        reason = getattr(error, "strerror", None) or error
        raise WinnowError(f"{folder}: cannot be written ({reason}); free space or change the folder") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _strip_paths(file: Path) -> None:
    """Drop the keys in which a tokenizer remembers the folder it came from."""
    if file.exists():
        settings = json.loads(file.read_text())
        for name in ("name_or_path", "vocab_file", "tokenizer_file", "special_tokens_map_file"):
            settings.pop(name, None)
        write_json(file, settings)
