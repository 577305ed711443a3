"""What a run is measured against: which model that is, by which fingerprint it is known, what is kept of its scores.

The start of the run is the policy itself before its first update, so its fingerprint is the policy's, and no copy of it
is made while the scores that are asked for are there. Another model need not be loaded either once it is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kilter.data.checkpoints import Checkpoint
from kilter.errors import ConfigError
from kilter.model.adapter import base_of, has_adapter, reference_of
from kilter.model.fingerprint import model_fingerprint
from kilter.model.known_models import KnownModel, identity, recall, remember
from kilter.model.loading import check_same_vocabulary, check_vocabularies, copy_of, pick_device
from kilter.model.reference_scores import ReferenceScores
from kilter.model.score_store import default_directory
from kilter.model.scorer import Reference, Scorer
from kilter.train.config import ADAPTER_OFF, START, AlignConfig
from kilter.train.weights import load_named


@dataclass(frozen=True)
class RunReference:
    """The reference that a run begins with; `is_start` says that the policy is the same model before its first update.

    All None where the objective has none.
    """

    scores: Reference | None = None
    fingerprint: str | None = None
    name: str | None = None
    is_start: bool = False

    @property
    def model(self) -> Scorer | None:
        """The model, where nothing is kept of its scores."""
        return self.scores if isinstance(self.scores, Scorer) else None

    @property
    def kept(self) -> ReferenceScores | None:
        return self.scores if isinstance(self.scores, ReferenceScores) else None


def open_reference(
    policy: Scorer,
    config: AlignConfig,
    checkpoint: Checkpoint | None,
    *,
    model_needed: bool,
    warn: Callable[[str], None],
) -> RunReference:
    """The reference that the settings name, with its scores kept if they say so.

    `model_needed` says that the run will ask for more than is kept. Raises ConfigError where there is no such reference
    to this policy.
    """
    wanted = config.reference or START
    adapted = has_adapter(policy.model)
    if wanted == ADAPTER_OFF and not adapted:
        raise ConfigError(
            f"reference is {ADAPTER_OFF}, and all weights are trained here; leave it out (the start of the run is the "
            "default), or give lora_rank"
        )
    if wanted in (START, ADAPTER_OFF):
        name = config.model if wanted == START else f"{config.model}, its adapter off"
        is_start = wanted == START or config.lora_rank is not None
    else:
        name, is_start = wanted, False

    def load() -> Scorer:
        other = load_named(config.model if wanted == START else wanted, config)
        check_same_vocabulary(policy, other)
        return other

    if adapted and wanted in (START, ADAPTER_OFF):
        same_weights = reference_of(policy) if wanted == START else base_of(policy)
        found = _Found(model_fingerprint(same_weights), lambda: same_weights)
        model_needed = True  # it takes no memory
    elif wanted == START and checkpoint is None:
        found = _Found(model_fingerprint(policy), lambda: copy_of(policy))
        if config.keeps != "none":
            _remember(config.model, config, found.fingerprint, policy)
    elif config.keeps == "none":
        other = load()
        found = _Found(model_fingerprint(other), lambda: other)
    else:
        found = _recalled(config.model if wanted == START else wanted, config, policy, load)

    if config.keeps == "none":
        assert found.at_hand is not None
        return RunReference(found.at_hand(), found.fingerprint, name, is_start)
    directory = config.cache_dir or default_directory()
    scores = ReferenceScores(directory, found.fingerprint, load, hidden=config.keeps == "hidden", warn=warn)
    if found.at_hand is not None:
        if model_needed or not len(scores):
            scores.use(found.at_hand())
        elif config.keeps == "hidden":
            scores.use_head_of(found.at_hand())
    return RunReference(scores, found.fingerprint, name, is_start)


@dataclass(frozen=True)
class _Found:
    """A reference's fingerprint, and how to have the model without loading it, where that is possible now."""

    fingerprint: str
    at_hand: Callable[[], Scorer] | None = None


def _recalled(files: str, config: AlignConfig, policy: Scorer, load: Callable[[], Scorer]) -> _Found:
    """A model whose files were seen before need not be loaded to be known."""
    known = recall(config.cache_dir or default_directory(), _identity(files, config))
    if known is not None:
        check_vocabularies(policy.head.vocabulary, known.vocabulary)
        return _Found(known.fingerprint)
    other = load()
    fingerprint = model_fingerprint(other)
    _remember(files, config, fingerprint, other)
    return _Found(fingerprint, lambda: other)


def _remember(files: str, config: AlignConfig, fingerprint: str, scorer: Scorer) -> None:
    known = KnownModel(fingerprint, scorer.head.vocabulary)
    remember(config.cache_dir or default_directory(), _identity(files, config), known)


def _identity(files: str, config: AlignConfig) -> str | None:
    return identity(files, config.precision, config.weights, config.quantise, pick_device(config.device).type)
