"""The verified human text of a finished index: what there is of it, and the words of a sample."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import BadInput, UsageError
from pipeline.inspection import Inspection
from transforms.batches import addresses, groups, place_of, split_of
from transforms.kernels.columns import MissingColumn
from transforms.kernels.hashing import draws, text_digests
from transforms.kernels.records import UnreadableFile
from transforms.kernels.schemas import Fate, Provenance
from transforms.kernels.text import Words, split_words
from transforms.sidecars import digests_of

__all__ = ["VerifiedText", "read_verified_text"]

_SALT = b"verified_text"

Ints = npt.NDArray[np.int64]
UInts = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class VerifiedText:
    """Words of verified documents that dedup kept, in the order of their draws."""

    words: Words
    documents: int
    """All that the index holds of the kind, and their words."""
    available: int
    languages: tuple[str, ...]
    """Of all those, where they say."""


def read_verified_text(
    inspection: Inspection, most_words: int, seed: int, source: str | None = None, language: str | None = None
) -> VerifiedText:
    """Whole documents, drawn by digest and seed, up to `most_words`; the last one is cut. No split or order of shards
    takes part. Exit 2 where nothing is verified, 5 where the input has changed since the index."""
    if source is not None and source not in inspection.sources:
        raise UsageError(
            "unknown_source",
            f"--source {source!r}: the config has no such source; it has {', '.join(inspection.sources)}.",
            source=source,
            sources=inspection.sources,
        )
    verified = documents = available = 0
    of_language: Counter[str] = Counter()
    keys, chosen, lengths = np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64)
    for split, part in inspection.parts.items():
        if source not in (None, part.split.source):
            continue
        fates = inspection.fates(split, ["fate", "provenance"])
        is_human = fates["provenance"].to_numpy() == Provenance.HUMAN_VERIFIED
        facts = inspection.facts(split, ["digest", "n_words", "language"])
        n_words = facts["n_words"].to_numpy()
        is_chosen = is_human & (fates["fate"].to_numpy() == Fate.KEPT) & (n_words > 0)
        verified += int(is_chosen.sum())
        languages = facts["language"].filter(pa.array(is_chosen)).value_counts().to_pylist()
        of_language.update({entry["values"]: entry["counts"] for entry in languages if entry["values"] is not None})
        if language is not None:
            is_chosen &= pc.fill_null(pc.equal(facts["language"], language), False).to_numpy()
        places = np.flatnonzero(is_chosen)
        documents += len(places)
        available += int(n_words[places].sum())
        keys = np.concatenate([keys, draws(digests_of(facts)[places], seed, _SALT)])
        chosen = np.concatenate([chosen, addresses(split, places)])
        lengths = np.concatenate([lengths, n_words[places]])
        order = np.argsort(keys, kind="stable")
        order = order[: np.searchsorted(np.cumsum(lengths[order]), most_words) + 1]
        keys, chosen, lengths = keys[order], chosen[order], lengths[order]
    if not documents:
        if language is not None and verified:
            raise _no_such_language(language, of_language)
        raise _nothing_verified(inspection, source)
    names = tuple(sorted(of_language)) if language is None else (language,)
    return VerifiedText(_first(_read(inspection, chosen), most_words), documents, available, names)


def _read(inspection: Inspection, wanted: UInts) -> Words:
    """The words of documents in the order given."""
    by_address = np.argsort(wanted)
    ordered = wanted[by_address]
    hashes: list[UInts] = []
    lengths: list[Ints] = []
    order, runs = groups(split_of(ordered))
    for split, start, end in runs:
        found = _read_split(inspection, split, place_of(ordered[order[start:end]]))
        hashes += (words.hashes for words in found)
        lengths += (np.diff(words.offsets) for words in found)
    # Read in the order of addresses; put back into the order asked for.
    all_lengths = np.concatenate(lengths)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(all_lengths)])
    read_as = np.empty(len(wanted), np.int64)
    read_as[by_address] = np.arange(len(wanted))
    own = all_lengths[read_as]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(own)])
    at = np.arange(ends[-1]) + np.repeat(offsets[read_as] - ends[:-1], own)
    return Words(np.concatenate(hashes)[at], ends, own)


def _read_split(inspection: Inspection, split: int, places: Ints) -> list[Words]:
    facts = inspection.facts(split, ["row", "part", "digest"]).take(pa.array(places))
    digests = digests_of(facts)
    found: list[Words] = []
    done = 0
    part = inspection.parts[split].split
    try:
        for batch in inspection.read_again(split, facts["row"].to_numpy(), facts["part"].to_numpy()):
            if (text_digests(batch["text"]) != digests[done : done + batch.num_rows]).any():
                raise _changed(part.path, "holds another text by now")
            done += batch.num_rows
            found.append(split_words(batch["text"]))
    except UnreadableFile as error:
        raise _changed(error.path, error.problem) from None
    except MissingColumn as error:
        raise _changed(part.path, str(error)) from None
    return found


def _first(words: Words, most: int) -> Words:
    offsets = np.minimum(words.offsets, most)
    return Words(words.hashes[:most], offsets, np.diff(offsets))


def _changed(path: str, problem: str) -> BadInput:
    return BadInput(
        "input_changed",
        f"{path!r}: {problem}. The input was moved, removed or changed since the index; run `anchormix index` with the "
        "same config, or put the file back.",
        path=path,
    )


def _no_such_language(language: str, known: Counter[str]) -> UsageError:
    told = ", ".join(f"{name} ({documents:,} documents)" for name, documents in known.most_common(10))
    told = (
        f"there is {told}" if told else "none says its language; name the column under the source's `columns.language`"
    )
    return UsageError(
        "unknown_language",
        f"--language {language!r}: no verified human text says that it is in this language; {told}.",
        language=language,
        languages=dict(known),
    )


def _nothing_verified(inspection: Inspection, source: str | None) -> UsageError:
    kept: Counter[str] = Counter()
    for part in inspection.parts.values():
        if source not in (None, part.split.source):
            continue
        for provenance, fate, documents, _ in part.account["cells"]:
            if fate == Fate.KEPT.label:
                kept[provenance] += documents
    told = ", ".join(f"{documents:,} {name}" for name, documents in sorted(kept.items())) or "none"
    return UsageError(
        "no_verified_text",
        f"the index {inspection.index.root!r} holds no verified human text with words"
        f"{'' if source is None else f' of source {source!r}'} (documents that dedup kept: {told}), so "
        "there is nothing to simulate with. Text is verified by custody alone: sign it with `anchormix attest`, name "
        "the manifest under the source's `custody` and the key under `trust.keys`; docs/custody.md says how.",
        kept=dict(kept),
    )
