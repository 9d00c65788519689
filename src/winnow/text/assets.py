"""Files that attacks need beside the model: what each setting asks for, whether it is there, and how to get it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from winnow.config.text import TextAttack
from winnow.errors import WinnowError

FETCH = "python -m winnow.stages.fetch_attack_assets --download"
USE_FOLDER = "42480c3c7f42bf87d36d4c58fc4374b08dae2909"  # TF-Hub's name for universal-sentence-encoder/3
NLTK_FILES = {
    "stopwords": "corpora/stopwords",
    "averaged_perceptron_tagger_eng": "taggers/averaged_perceptron_tagger_eng",
    "universal_tagset": "taggers/universal_tagset",
    "wordnet": "corpora/wordnet",
}
_FILES = {
    "counter_fitted": ("paragram.npy", "wordlist.pickle", "nn.npy"),
    "encoder": ("config.json",),
    "masked_lm": ("config.json",),
    "use": (f"{USE_FOLDER}/saved_model.pb",),
}
_INSTEAD = {
    "counter_fitted": "candidates: neighbours with --neighbours LIST",
    "use": "encoder: huggingface with --encoder FOLDER",
    "masked_lm": "candidates: neighbours with --neighbours LIST",
    "encoder": "encoder: none",
    "neighbours": "candidates: embedded (embedded task only)",
    "nltk": "stopwords: builtin and same_part_of_speech: false",
}


def nltk_packages(config: TextAttack) -> list[str]:
    """NLTK packages that an attacker needs."""
    needed = ["stopwords"] if config.stopwords == "nltk" else []
    if config.same_part_of_speech:
        needed += ["averaged_perceptron_tagger_eng", "universal_tagset"]
    return needed + (["wordnet"] if config.candidates == "wordnet" else [])


def needed_roles(config: TextAttack) -> list[str]:
    """Roles of the files that an attacker needs: names of attack_text's inputs."""
    roles: list[str] = [config.candidates] if config.candidates in ("neighbours", "counter_fitted", "masked_lm") else []
    roles += {"huggingface": ["encoder"], "use": ["use"], "none": []}[config.encoder]
    return roles + (["nltk"] if nltk_packages(config) else [])


def check_assets(config: TextAttack, assets: Mapping[str, Path | None]) -> dict[str, Path]:
    """The files of every needed role, complete; NLTK and TF-Hub are pointed at theirs. WinnowError for the first
    gap.
    """
    found = {}
    for role in needed_roles(config):
        path = assets.get(role)
        option = f"--{role.replace('_', '-')}"
        help_text = f"give it with {option} PATH (`{FETCH}` fetches it), or set {_INSTEAD[role]}"
        if path is None:
            raise WinnowError(f"{config.recipe}: needs {role}; {help_text}")
        for name in _FILES.get(role, ()):
            if not (path / name).exists():
                raise WinnowError(f"{path / name}: missing, {config.recipe} needs it; {help_text}")
        if role == "nltk":
            for package in nltk_packages(config):
                base = path / NLTK_FILES[package]
                if not base.exists() and not base.with_name(base.name + ".zip").exists():
                    raise WinnowError(
                        f"{base}: missing (nor is {base.name}.zip there), {config.recipe} needs it; {help_text}"
                    )
            import nltk

            nltk.data.path.insert(0, str(path))
        if role == "use":
            os.environ["TFHUB_CACHE_DIR"] = str(path)
        found[role] = path
    return found
