"""TextAttack attacks from configuration: six recipes, their word sources, constraints and search orders.

Recipes: textfooler (Jin 2020), textbugger (Li 2019), bertattack (Li 2020 with masked_lm; with a synonym list the
variant that the robust-ticket paper runs under this name: BAE's constraints, 50 embedding neighbours, similarity 0.2),
bae (Garg 2020, replacement), pwws (Ren 2019), deepwordbug (Gao 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from winnow.config.text import TextAttack
from winnow.text import compat, grammar
from winnow.text.assets import check_assets
from winnow.text.attacks import words


def build(
    config: TextAttack,
    victim: Any,
    assets: Mapping[str, Path | None],
    device: torch.device,
    columns: Sequence[str] = (),
    fixed: str | None = None,
) -> Any:
    """A `textattack.Attack` on `victim` (parts.Victim). `assets`: role -> file or folder, see `winnow.text.assets`.
    `columns`: the names of a pair's texts, `fixed`: the one that no edit touches.

    Raises WinnowError naming the missing asset and how to get it.
    """
    found = check_assets(config, assets)
    compat.textattack()
    from textattack.attack import Attack
    from textattack.constraints.pre_transformation import InputColumnModification
    from textattack.goal_functions import UntargetedClassification
    from textattack.search_methods import GreedyWordSwapWIR

    budget = float("inf") if config.query_budget is None else config.query_budget
    goal = UntargetedClassification(victim, query_budget=budget, model_batch_size=config.batch_size)
    return Attack(
        goal,
        [*_constraints(config, found, device), *([InputColumnModification(list(columns), {fixed})] if fixed else [])],
        _transformation(config, found, victim),
        GreedyWordSwapWIR(_ranking(config)),
    )


def _ranking(config: TextAttack) -> str:
    if config.recipe == "pwws":
        return "weighted-saliency"
    by_unknown = config.recipe == "deepwordbug" or (config.recipe == "bertattack" and config.candidates == "masked_lm")
    return "unk" if by_unknown else "delete"


def _word_swap(config: TextAttack, found: dict[str, Path], victim: Any) -> Any:
    from winnow.text.attacks.parts import ListSwap, WordNetSwap

    if config.candidates == "embedded":
        return ListSwap(grammar.lexicon(), config.max_candidates)
    if config.candidates == "neighbours":
        return ListSwap(words.read_neighbours(found["neighbours"]), config.max_candidates)
    if config.candidates == "wordnet":
        return WordNetSwap()
    if config.candidates == "counter_fitted":
        from textattack.transformations import WordSwapEmbedding

        return WordSwapEmbedding(config.max_candidates, words.read_counter_fitted(found["counter_fitted"]))
    from textattack.transformations import WordSwapMaskedLM

    model, tokenizer = compat.local_model("AutoModelForMaskedLM", found["masked_lm"])
    method = "bert-attack" if config.recipe == "bertattack" else "bae"
    return WordSwapMaskedLM(
        method, model, tokenizer, max_length=victim.max_length, max_candidates=config.max_candidates, min_confidence=0.0
    )


def _transformation(config: TextAttack, found: dict[str, Path], victim: Any) -> Any:
    from textattack.transformations import (
        CompositeTransformation,
        WordSwapNeighboringCharacterSwap,
        WordSwapRandomCharacterDeletion,
        WordSwapRandomCharacterInsertion,
        WordSwapRandomCharacterSubstitution,
    )

    from winnow.text.attacks.parts import LookalikeSwap

    synonyms = [] if config.candidates == "none" else [_word_swap(config, found, victim)]
    inner = {"random_one": True, "skip_first_char": True, "skip_last_char": True}
    if config.recipe == "textbugger":
        return CompositeTransformation([
            WordSwapRandomCharacterInsertion(letters_to_insert=" ", **inner), WordSwapRandomCharacterDeletion(**inner),
            WordSwapNeighboringCharacterSwap(**inner), LookalikeSwap(), *synonyms,
        ])  # fmt: skip
    if config.recipe == "deepwordbug":
        return CompositeTransformation([
            WordSwapNeighboringCharacterSwap(), WordSwapRandomCharacterSubstitution(),
            WordSwapRandomCharacterDeletion(),
            WordSwapRandomCharacterInsertion(), *synonyms,
        ])  # fmt: skip
    return synonyms[0]


def _constraints(config: TextAttack, found: dict[str, Path], device: torch.device) -> list[Any]:
    from textattack.constraints.grammaticality import PartOfSpeech
    from textattack.constraints.overlap import LevenshteinEditDistance, MaxWordsPerturbed
    from textattack.constraints.pre_transformation import RepeatModification, StopwordModification
    from textattack.constraints.semantics import WordEmbeddingDistance

    from winnow.text.attacks import parts

    kept = words.STOPWORDS if config.stopwords == "builtin" else None
    if config.stopwords == "recipe":
        kept = parts.textfooler_stopwords()
    constraints = [RepeatModification(), StopwordModification(stopwords=kept)]
    if config.max_modified_fraction is not None:
        constraints.append(MaxWordsPerturbed(max_percent=config.max_modified_fraction))
    if config.max_edit_distance is not None:
        constraints.append(LevenshteinEditDistance(config.max_edit_distance))
    if config.min_word_cosine is not None:
        embedding = words.read_counter_fitted(found["counter_fitted"])
        constraints.append(WordEmbeddingDistance(embedding=embedding, min_cos_sim=config.min_word_cosine))
    if config.same_part_of_speech:
        constraints.append(PartOfSpeech(allow_verb_noun_swap=True))
    similarity = {
        "threshold": config.min_similarity, "metric": config.metric, "window_size": config.window,
        "compare_against_original": config.recipe != "textfooler",
        "skip_text_shorter_than_window": config.window is not None and config.skip_short_texts,
    }  # fmt: skip
    if config.encoder == "huggingface":
        model, tokenizer = compat.local_model("AutoModel", found["encoder"])
        constraints.append(parts.LocalEncoder(model, tokenizer, config.batch_size, device, **similarity))
    elif config.encoder == "use":
        from textattack.constraints.semantics.sentence_encoders import UniversalSentenceEncoder

        constraints.append(UniversalSentenceEncoder(**similarity))
    return constraints
