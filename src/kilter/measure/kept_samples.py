"""Samples in a file, one a line: their tokens, to the last bit, and beside them the texts, to be read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from kilter.data.staging import staged_file
from kilter.errors import RunError
from kilter.measure.samples import answer_text, text_of
from kilter.model.sampler import Sample, SamplingSettings
from kilter.tokens.sequence import Ids


def write_samples(
    samples: Sequence[Sample], settings: SamplingSettings, file: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Samples drawn with these settings, in a file that is there whole, or not at all."""
    with staged_file(file) as path, path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(row | asdict(settings)) + "\n" for row in _rows(samples, tokenizer))


def read_samples(file: Path, prompts: Sequence[Ids], settings: SamplingSettings) -> list[Sample] | None:
    """What `write_samples` was given; None where that was drawn for other prompts, or with other settings.

    Raises RunError where the file holds anything else.
    """
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        samples = [_sample(row) for row in rows]
        alike = all({name: row[name] for name in asdict(settings)} == asdict(settings) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} does not hold samples as kilter writes them ({error}); delete it, and they are drawn "
                       "again") from None  # fmt: skip
    asked = [np.asarray(prompt).tolist() for prompt in prompts]
    return samples if alike and asked == [sample.prompt.tolist() for sample in samples] else None


def _rows(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerFast) -> Iterator[dict[str, Any]]:
    for sample in samples:
        yield {
            "prompt": text_of(sample.prompt, tokenizer),
            "answer": answer_text(sample, tokenizer),
            "finished": sample.finished,
            "prompt_ids": sample.prompt.tolist(),
            "answer_ids": sample.answer.tolist(),
            "log_prob": sample.log_prob.tolist(),
        }


def _sample(row: dict[str, Any]) -> Sample:
    prompt, answer = (np.array(row[name], np.int32) for name in ("prompt_ids", "answer_ids"))
    log_prob = np.array(row["log_prob"], np.float64)
    if prompt.ndim != 1 or answer.shape != log_prob.shape or not len(answer):
        raise ValueError("an answer and its log-probs differ in length")
    return Sample(prompt, answer, log_prob, bool(row["finished"]))
