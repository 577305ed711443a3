"""From rendered text to token ids, with an exact boundary between prompt and completion.

Prompt and completion are tokenised apart, so that no token straddles the boundary and the answers to one
prompt share its ids. One BOS begins a sequence where the tokenizer wants one, and one EOS ends it. Nothing is
ever cut from an answer, and whatever else is cut or left out is counted in an `EncodingReport`.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from tokenizers import Tokenizer

from kilter.data.records import Content, Demonstration, Labelled, Origin, Pair, Prompt, Ranking
from kilter.errors import ConfigError, DataError, ModelError
from kilter.tokens.rendering import Piece, Renderer, Style, any_of, shorter_prompts, trailing_turns
from kilter.tokens.sequence import Ids, TokenSequence, Weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH = 4096  # texts given to the tokenizer at once: enough for its threads, little enough for memory
LISTED = 20  # rows that an error names


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a row may be, in tokens, BOS and EOS included (None: any length).

    A prompt over `max_prompt` loses whole turns from its start, all but BOS, a leading system message and the
    last turn; where these do not fit, it loses tokens behind BOS. A row with a sequence over `max_length` is
    refused, or dropped and counted.
    """

    max_prompt: int | None = None
    max_length: int | None = None
    on_overflow: Literal["refuse", "drop"] = "refuse"

    def __post_init__(self) -> None:
        for name, limit in (("max_prompt", self.max_prompt), ("max_length", self.max_length)):
            if limit is not None and limit < 1:
                raise ConfigError(f"{name} is {limit}; use 1 or more, or None for no limit")
        if self.on_overflow not in ("refuse", "drop"):
            raise ConfigError(f"on_overflow is {self.on_overflow!r}; use 'refuse' or 'drop'")
        if self.on_overflow == "drop" and self.max_length is None:
            raise ConfigError("on_overflow 'drop' has nothing to drop without max_length; set both or neither")


@dataclass(frozen=True, slots=True)
class EncodingReport:
    """What became of the rows; counts only, for the run's manifest."""

    rows: int  # given
    encoded: int  # returned
    bad: int  # left out as unusable
    overlong: int  # left out as longer than max_length
    tokens: int  # in the encoded rows, a shared prompt counted once for each answer
    longest: int  # sequence, in tokens
    prompts_cut: int
    prompt_tokens_cut: int
    empty_answers: int  # rows with a sequence that scores nothing but whitespace and EOS
    special_in_text: int  # rows of text out of which special tokens were read
    trailing_turns: int  # turns after a conversation's last answer, left out

    def describe(self) -> str:
        """One line: rows and tokens, then whatever was cut, left out or odd."""
        remarks = {
            "unusable rows left out": self.bad,
            "over-long rows left out": self.overlong,
            f"prompts cut by {self.prompt_tokens_cut:,} tokens": self.prompts_cut,
            "rows with an empty answer": self.empty_answers,
            "rows of text with special tokens in it": self.special_in_text,
            "turns after the last answer left out": self.trailing_turns,
        }
        rows = f"{self.encoded:,} of {self.rows:,} rows encoded"
        tokens = f"{self.tokens:,} tokens, longest {self.longest:,}"
        return "; ".join([rows, tokens, *(f"{count:,} {remark}" for remark, count in remarks.items() if count)])


class TextTokenizer:
    """A fast tokenizer that reads a text in pieces as it would read the whole.

    `bos` is None where the tokenizer does not begin its own encodings with it. The user's tokenizer is copied,
    for truncation or padding that an earlier call left on it would cut answers here.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise ModelError(f"{type(tokenizer).__name__} is not a fast tokenizer; load one that has a tokenizer.json")
        if tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no EOS token to end an answer with; set tokenizer.eos_token")
        config = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
        bare = config | {part: _without_dummy_space(config[part]) for part in ("normalizer", "pre_tokenizer")}
        self._own = Tokenizer.from_str(json.dumps(config))
        self._bare = Tokenizer.from_str(json.dumps(bare)) if bare != config else None
        self._added = any_of(token.content for token in self._own.get_added_tokens_decoder().values())
        self._closes = lru_cache(maxsize=None)(self._is_closing)
        self._bos_id: int | None = tokenizer.bos_token_id
        self.bos = self._bos_id if self._own.encode("x").ids[:1] == [self._bos_id] else None
        self.eos: int = tokenizer.eos_token_id

    def starts(self, texts: Iterable[str]) -> dict[str, Ids]:
        """The ids of texts that begin a sequence, without BOS; each text is tokenised once."""
        return _encode_batch(self._own, texts)

    def continuations(self, texts: Iterable[str]) -> dict[str, Ids]:
        """The ids of texts that go on from earlier ones, so that no space is put before their first word.

        From its first special token on, a text is read as ever: what a tokenizer writes after those stays.
        """
        if self._bare is None:
            return self.starts(texts)
        cuts = {text: _first_match(self._added, text) for text in texts}
        heads = _encode_batch(self._bare, (text[:cut] for text, cut in cuts.items()))
        tails = _encode_batch(self._own, (text[cut:] for text, cut in cuts.items()))
        return {text: np.concatenate([heads[text[:cut]], tails[text[cut:]]]) for text, cut in cuts.items()}

    def prompt(self, ids: Ids, limit: int | None = None) -> Ids:
        """A prompt's ids behind the one BOS that belongs there; beyond `limit`, the last of them."""
        if self.bos is not None and not self.begins_with_bos(ids):
            ids = np.concatenate([np.array([self.bos], np.int32), ids])
        if limit is None or len(ids) <= limit:
            return ids
        head = int(self.begins_with_bos(ids))
        return np.concatenate([ids[:head], ids[len(ids) - limit + head :]])

    def begins_with_bos(self, ids: Ids) -> bool:
        """Whether the first id is BOS, be it wanted or written by a template."""
        return len(ids) > 0 and ids[0] == self._bos_id

    def without_bos(self, ids: Ids) -> Ids:
        """Ids that begin a sequence, less the BOS that `prompt` puts before them."""
        return ids[1:] if self.bos is not None and self.begins_with_bos(ids) else ids

    def ending(self, ids: Ids) -> tuple[int, int | None]:
        """How many ids come before the closing run of EOS and whitespace, and how many through its EOS."""
        words = len(ids)
        while words and self._closes(int(ids[words - 1])):
            words -= 1
        stops = np.flatnonzero(ids[words:] == self.eos)
        return words, words + int(stops[0]) + 1 if len(stops) else None

    def closed(self, ids: Ids) -> Ids:
        """An answer's ids through the EOS it closes with (before whitespace, perhaps), or one appended."""
        _, stop = self.ending(ids)
        return ids[:stop] if stop else np.append(ids, np.int32(self.eos))

    def _is_closing(self, token: int) -> bool:
        return token == self.eos or not self._own.decode([token], skip_special_tokens=False).strip()


def _encode_batch(backend: Tokenizer, texts: Iterable[str]) -> dict[str, Ids]:
    distinct = list(dict.fromkeys(texts))
    ids: dict[str, Ids] = {}
    for batch in (distinct[i : i + BATCH] for i in range(0, len(distinct), BATCH)):
        encodings = backend.encode_batch_fast(batch, add_special_tokens=False)
        ids |= {text: np.array(e.ids, np.int32) for text, e in zip(batch, encodings, strict=True)}
    return ids


def _without_dummy_space(part: Any) -> Any:
    """A normalizer or pre-tokenizer, as JSON, that puts nothing before the text it is given."""
    match part:
        case {"type": "Prepend"}:
            return None
        case {"type": "Metaspace"}:
            return part | {"prepend_scheme": "never"}
        case {"type": "ByteLevel"}:
            return part | {"add_prefix_space": False}
        case {"type": "Sequence"}:
            ((name, steps),) = ((key, value) for key, value in part.items() if key != "type")
            return part | {name: [step for step in map(_without_dummy_space, steps) if step]}
    return part


def _first_match(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return found.start() if found else len(text)


class EncodedPair(NamedTuple):
    """Both answers of a pair; their ids before `first`, the prompt, are the same.

    `preference` is the probability that chosen is the better one, `margin` by how much on its raters' scale (None: not
    said).
    """

    chosen: TokenSequence
    rejected: TokenSequence
    origin: Origin
    preference: float = 1.0
    margin: float | None = None


class EncodedRanking(NamedTuple):
    """Answers to one prompt (their ids before `first` are the same), each with its rank: a lower one is better."""

    sequences: tuple[TokenSequence, ...]
    ranks: tuple[float, ...]
    origin: Origin


class EncodedLabelled(NamedTuple):
    """One answer, judged good or bad by itself."""

    sequence: TokenSequence
    good: bool
    origin: Origin


class EncodedDemonstration(NamedTuple):
    """What a model should learn to say."""

    sequence: TokenSequence
    origin: Origin


class EncodedPrompt(NamedTuple):
    """What a model is to answer."""

    ids: Ids
    origin: Origin


EncodedRow = TypeVar("EncodedRow", EncodedPair, EncodedRanking, EncodedLabelled, EncodedDemonstration, EncodedPrompt)


class Encoded(NamedTuple, Generic[EncodedRow]):
    """Rows in the order given, and what became of those that are missing."""

    rows: list[EncodedRow]
    report: EncodingReport


class _Row(NamedTuple):
    """A prompt and the answers to it: as read, as rendered, as tokenised (a prompt without answers: one sequence)."""

    prompt: Content
    answers: tuple[Content, ...]
    origin: Origin
    tools: str
    good: bool = True  # what a labelled answer is
    preference: float = 1.0  # what the data say of a pair
    margin: float | None = None
    ranks: tuple[float, ...] = ()  # of a ranking's answers
    full_text: str = ""  # the prompt's
    text: str = ""  # the prompt's, less the turns that did not fit
    pieces: tuple[tuple[Piece, ...], ...] = ()
    sequences: tuple[TokenSequence, ...] = ()
    tokens_cut: int = 0


class Encoder:
    """Turns records of every kind into token ids with one tokenizer, style and set of limits.

    Rows that cannot be rendered are refused together in one DataError, or with `skip_bad` left out, counted and told
    to `on_refused`: "file:line: why".
    The text of a special token makes a conversation unusable; in a row of text, which may have been rendered
    beforehand, it is read as that token, and the row is counted.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        style: Style = "auto",
        limits: Limits | None = None,
        *,
        skip_bad: bool = False,
        on_refused: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._tokens = TextTokenizer(tokenizer)
        self._renderer = Renderer(tokenizer, style)
        self._limits = limits or Limits()
        self._skip_bad = skip_bad
        self._on_refused = on_refused

    def encode_pairs(self, pairs: Iterable[Pair]) -> Encoded[EncodedPair]:
        """Chosen and rejected behind the same prompt ids; a pair is over-long if either sequence is."""
        given = [
            _Row(p.prompt, (p.chosen, p.rejected), p.origin, p.tools, preference=p.preference, margin=p.rated_margin)
            for p in pairs
        ]
        rows, report = self._encode(given)
        return Encoded([_encoded_pair(row) for row in rows], report)

    def encode_rankings(self, rankings: Iterable[Ranking]) -> Encoded[EncodedRanking]:
        """All answers of a ranking behind the same prompt ids; a ranking is over-long if any of its sequences is."""
        rows, report = self._encode([_Row(r.prompt, r.answers, r.origin, r.tools, ranks=r.ranks) for r in rankings])
        return Encoded([EncodedRanking(row.sequences, row.ranks, row.origin) for row in rows], report)

    def encode_labelled(self, labelled: Iterable[Labelled]) -> Encoded[EncodedLabelled]:
        """One sequence a row, with its label."""
        rows, report = self._encode([_Row(a.prompt, (a.completion,), a.origin, a.tools, a.good) for a in labelled])
        return Encoded([EncodedLabelled(row.sequences[0], row.good, row.origin) for row in rows], report)

    def encode_demonstrations(self, demonstrations: Iterable[Demonstration]) -> Encoded[EncodedDemonstration]:
        """One sequence a row; what stands between the answers of a conversation has weight 0."""
        rows, report = self._encode([_Row(d.prompt, (d.completion,), d.origin, d.tools) for d in demonstrations])
        return Encoded([EncodedDemonstration(row.sequences[0], row.origin) for row in rows], report)

    def encode_prompts(self, prompts: Iterable[Prompt]) -> Encoded[EncodedPrompt]:
        """The ids that stand before the answers to each prompt."""
        rows, report = self._encode([_Row(p.prompt, (), p.origin, p.tools) for p in prompts])
        return Encoded([EncodedPrompt(row.sequences[0].ids, row.origin) for row in rows], report)

    def _encode(self, given: Sequence[_Row]) -> tuple[list[_Row], EncodingReport]:
        bad: list[str] = []
        rows = list(_each(self._render, given, bad))
        prompts = self._tokens.starts(row.text for row in rows)
        if self._limits.max_prompt is not None:
            rows = list(_each(lambda row: self._drop_turns(row, prompts[row.text]), rows, bad))
            prompts |= self._tokens.starts(row.text for row in rows if row.text not in prompts)
        if bad and not self._skip_bad:
            raise DataError(listing(f"{len(bad)} of {len(given)} rows cannot be used; mend or skip them", bad))
        for line in bad:
            self._on_refused(line)
        rows = self._tokenise(rows, prompts)
        kept = self._within_length(rows)
        return kept, self._report(kept, given=len(given), bad=len(bad), overlong=len(rows) - len(kept))

    def _render(self, row: _Row) -> _Row:
        rendered = [self._renderer.render(row.prompt, answer, row.tools) for answer in row.answers]
        text = rendered[0].prompt if rendered else self._renderer.render_prompt(row.prompt, row.tools)
        if any(other.prompt != text for other in rendered):
            raise DataError("the answers begin with different turns; move what they share into the prompt")
        return row._replace(full_text=text, text=text, pieces=tuple(answer.pieces for answer in rendered))

    def _drop_turns(self, row: _Row, prompt: Ids) -> _Row:
        """The row with as many of its prompt's last turns as fit, or the very last where none do."""

        def fits(ids: Ids) -> bool:
            return len(self._tokens.prompt(ids)) <= (self._limits.max_prompt or 0)

        def shortened(turns: Content) -> _Row:
            return self._render(row._replace(prompt=turns))._replace(full_text=row.full_text)

        def shortened_fits(turns: Content) -> bool:
            text = shortened(turns).text
            return fits(self._tokens.starts([text])[text])

        if fits(prompt) or not (shorter := shorter_prompts(row.prompt)):
            return row
        longest = bisect_left(shorter, True, key=shortened_fits)
        return shortened(shorter[min(longest, len(shorter) - 1)])

    def _tokenise(self, rows: Sequence[_Row], prompts: dict[str, Ids]) -> list[_Row]:
        later = self._tokens.continuations(piece.text for row in rows for pieces in row.pieces for piece in pieces)
        # Without a prompt an answer is where the text begins.
        first = self._tokens.starts(pieces[0].text for row in rows if not row.text for pieces in row.pieces)
        tokenised = []
        for row in rows:
            prompt = self._tokens.prompt(prompts[row.text], self._limits.max_prompt)
            sequences = [] if row.answers else [TokenSequence(prompt, first=len(prompt))]
            for pieces in row.pieces:
                ids = [later[piece.text] for piece in pieces]
                if not row.text:
                    ids[0] = self._tokens.without_bos(first[pieces[0].text])
                sequences.append(self._sequence(prompt, pieces, ids))
            cut = len(self._tokens.prompt(prompts[row.full_text])) - len(prompt)
            tokenised.append(row._replace(sequences=tuple(sequences), tokens_cut=cut))
        return tokenised

    def _sequence(self, prompt: Ids, pieces: Sequence[Piece], ids: Sequence[Ids]) -> TokenSequence:
        ids = [*ids[:-1], self._tokens.closed(ids[-1])]
        sequence = TokenSequence(np.concatenate([prompt, *ids]), first=len(prompt))
        if len(ids) == 1:
            return sequence
        return sequence._replace(weights=np.concatenate(list(map(self._weights, pieces, ids))))

    def _weights(self, piece: Piece, ids: Ids) -> Weights:
        """1 through an answer's EOS; what a template writes behind it is not the model's to say."""
        weights = np.zeros(len(ids), np.float32)
        if piece.scored:
            weights[: self._tokens.ending(ids)[1]] = 1
        return weights

    def _within_length(self, rows: list[_Row]) -> list[_Row]:
        limit = self._limits.max_length
        if limit is None:
            return rows
        overlong = [row for row in rows if max(len(s.ids) for s in row.sequences) > limit]
        if overlong and self._limits.on_overflow == "refuse":
            title = (
                f"{len(overlong)} of {len(rows)} rows are longer than max_length = {limit} tokens; raise it, "
                "lower max_prompt, or drop them (on_overflow 'drop')"
            )
            raise DataError(listing(title, list(map(_lengths, overlong))))
        return [row for row in rows if max(len(s.ids) for s in row.sequences) <= limit]

    def _report(self, kept: Sequence[_Row], *, given: int, bad: int, overlong: int) -> EncodingReport:
        lengths = [len(sequence.ids) for row in kept for sequence in row.sequences]
        return EncodingReport(
            rows=given,
            encoded=len(kept),
            bad=bad,
            overlong=overlong,
            tokens=sum(lengths),
            longest=max(lengths, default=0),
            prompts_cut=sum(row.tokens_cut > 0 for row in kept),
            prompt_tokens_cut=sum(row.tokens_cut for row in kept),
            empty_answers=sum(any(map(self._is_empty, row.sequences)) for row in kept if row.answers),
            special_in_text=sum(self._has_special_text(row) for row in kept),
            trailing_turns=sum(trailing_turns(answer) for row in kept for answer in row.answers),
        )

    def _is_empty(self, sequence: TokenSequence) -> bool:
        answer = sequence.ids[sequence.first :]
        scored = answer if sequence.weights is None else answer[sequence.weights > 0]
        return self._tokens.ending(scored)[0] == 0

    def _has_special_text(self, row: _Row) -> bool:
        texts = [row.full_text, *(answer for answer in row.answers if isinstance(answer, str))]
        return isinstance(row.prompt, str) and any(map(self._renderer.names_special_token, texts))


def _encoded_pair(row: _Row) -> EncodedPair:
    chosen, rejected = row.sequences
    return EncodedPair(chosen, rejected, row.origin, row.preference, row.margin)


def _each(work: Callable[[_Row], _Row], rows: Iterable[_Row], bad: list[str]) -> Iterator[_Row]:
    """What `work` makes of each row; where it raises DataError, a line in `bad` instead."""
    for row in rows:
        try:
            yield work(row)
        except DataError as error:
            bad.append(f"{row.origin}: {error}")


def _lengths(row: _Row) -> str:
    first = row.sequences[0].first
    answers = " and ".join(str(len(sequence.ids) - first) for sequence in row.sequences)
    return f"{row.origin}: prompt {first} tokens, answer {answers}"


def listing(title: str, lines: Sequence[str]) -> str:
    """An error's text: what is wrong, then the first few rows where it is."""
    more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return "\n  ".join([f"{title}:", *lines[:LISTED], *more])
