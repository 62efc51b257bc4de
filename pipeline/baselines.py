"""Held-out human text as the baseline of everything else: made ready for workers, and judged by the driver.

Workers say of each scope how likely a work of the reference is to be as far off; which of many scopes differ is
decided here, over all of a kind, since each has its own chance of being off by accident.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline import settings
from pipeline.catalog import REFERENCE
from pipeline.comparison import printable
from pipeline.config import Config
from pipeline.layers import Facts, ReadShard
from pipeline.vanished import spelled
from transforms import files
from transforms.diversity import Baseline
from transforms.kernels.diversity import Accumulator, language_key
from transforms.kernels.diversity.baseline import FALSE_DISCOVERIES, LEAST_SIZE, LEAST_WORKS, MEASURES, adjusted
from transforms.kernels.diversity.held_out import HeldOut
from transforms.kernels.diversity.reference import Reference
from transforms.kernels.scripts import SCRIPT
from transforms.sidecars import SplitDiversity, diversity_path

__all__ = ["BASELINE", "Judged", "judge_baselines", "prepare_baseline", "summary_of", "write_baseline"]

BASELINE = "baseline.json"
_MOST_NAMED = 20
_MOST_LANGUAGES = 5
_ALARMS = {measure.name: measure.alarm for measure in MEASURES}
_NO_LANGUAGE = "(not stated)"
_ONLY_SCRIPT = "(not stated, {} script)"
_LONGEST = 40
_UNSTATED = " (files of the reference state none: give them a language column)"


def prepare_baseline(facts: Facts, reference: Facts, sources: Collection[str], path: str) -> Baseline:
    """Write what workers need of the reference; nothing where there is none."""
    if not reference.shards:
        return Baseline()
    by_language: dict[str, list[ReadShard]] = defaultdict(list)
    for shard in reference.shards:
        for language in _accumulators(shard):
            by_language[language].append(shard)
    held_out = HeldOut({name: _reference(name, shards, sources) for name, shards in sorted(by_language.items())})
    files.write_bytes(path, held_out.to_bytes())
    return Baseline(path, _mixture_of(facts))


def _accumulators(shard: ReadShard) -> dict[str, Accumulator]:
    """Of one file, by language."""
    found: dict[str, Accumulator] = {}
    for split in shard.splits:
        for language, part in SplitDiversity.read(diversity_path(split.facts)).items():
            if language in found:
                found[language].merge(part)
            elif language != SplitDiversity.OTHERS:
                found[language] = part
    return found


def _reference(language: str, shards: Sequence[ReadShard], sources: Collection[str]) -> Reference:
    def read() -> Iterator[tuple[str, str, Accumulator]]:
        for shard in shards:
            yield shard.shard.name, domain_of(shard.shard.name, sources), _accumulators(shard)[language]

    return Reference.of(read, language_key(language))


def domain_of(shard: str, sources: Collection[str]) -> str:
    """The source that a file of the reference is the baseline of: the one whose name its folder has, if any."""
    folder, *below = PurePosixPath(shard).parts
    return folder if below and folder in sources else ""


def _mixture_of(facts: Facts) -> dict[str | None, int]:
    """How many files of equal size each source, and everything, has the same variety as (inverse Simpson)."""
    words: dict[str | None, list[int]] = defaultdict(list)
    for shard in facts.shards:
        for name in (shard.shard.source, None):
            words[name].append(shard.total("words"))
    return {name: max(1, sum(of) ** 2 // max(1, sum(n * n for n in of))) for name, of in words.items()}


@dataclass(frozen=True)
class Judged:
    """What came of all comparisons: `reports` with their verdicts as metrics, and what to tell people."""

    reports: list[bytes]
    found: list[dict[str, Any]] = field(default_factory=list)  # one entry for each scope that could have a baseline

    @property
    def differing(self) -> list[dict[str, Any]]:
        return [entry for entry in self.found if entry.get("differs")]


def judge_baselines(reports: Sequence[bytes]) -> Judged:
    """False discoveries are bounded over all scopes of a kind; what differs is also off by enough to matter."""
    rows = [json.loads(report) for report in reports]
    names = _language_names(rows)
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        told = row.get("baseline")
        if told is not None:
            language = names.get(told["language"])
            entry = {"scope": row["scope"], "name": row["name"], **told, "language": language}
            if told.get("none") == "language":
                entry["no_language"] = _told_language(language)
                hint = _UNSTATED if entry.pop("unstated", False) else ""
                entry["none"] = f"no held-out text of language {entry['no_language']}{hint}"
            kinds[row["scope"]].append(entry)
    verdicts: dict[tuple[str, str], list[list[Any]]] = {}
    for entries in kinds.values():
        compared = sorted((entry for entry in entries if "p" in entry), key=lambda entry: entry["name"])
        for entry, q in zip(compared, adjusted([entry["p"] for entry in compared]), strict=True):
            entry["q"] = q
            entry["differs"] = q <= FALSE_DISCOVERIES and entry["is_large"]
            verdicts[entry["scope"], entry["name"]] = _metrics(entry, len(compared))
    made = []
    for row in rows:
        row.pop("baseline", None)
        row["values"] = [*row["values"], *verdicts.get((row["scope"], row["name"]), ())]
        made.append(json.dumps(row, sort_keys=True).encode())
    found = sorted((entry for entries in kinds.values() for entry in entries), key=lambda e: (e["scope"], e["name"]))
    return Judged(made, found)


def _told_language(language: str | None) -> str:
    if not language:
        return _NO_LANGUAGE
    if language.startswith(SCRIPT):
        return _ONLY_SCRIPT.format(language.removeprefix(SCRIPT))
    return printable(language[:_LONGEST])


def _metrics(entry: Mapping[str, Any], compared: int) -> list[list[Any]]:
    size, driver = entry["size"], entry["driver"]
    null = f"max-T over {len(MEASURES)} metrics, {entry['works']} files"
    return [
        ["baseline_p", entry["p"], size, null],
        ["baseline_q", entry["q"], size, f"Benjamini-Hochberg over {compared}"],
        ["baseline_effect", entry["measures"][driver]["effect"], size, f"{driver}, against the median"],
        ["differs_from_baseline", float(entry["differs"]), size, f"q <= {FALSE_DISCOVERIES} and effect"],
    ]


def _language_names(rows: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    names = {0: ""}
    for row in rows:
        kind, _, language = row["name"].partition(":")
        if row["scope"] == "reference" and kind == "language":
            names[language_key(language)] = language
        elif row["scope"] == "language":
            names[language_key(row["name"])] = row["name"]
    return names


def write_baseline(folder: Path, config: Config, reference: Facts, judged: Judged) -> dict[str, Any]:
    """baseline.json, every comparison with its examples; returns what the manifest says of it."""
    if not reference.shards:
        return {}
    columns = settings.source_settings(config)[REFERENCE].columns
    keys = ("absent", "absent_pairs")
    wanted = {key for entry in judged.differing for name in keys for key in entry[name]}
    spelling = spelled(reference.splits, columns, wanted) if wanted else {}
    found = []
    for entry in judged.found:
        told = {name: value for name, value in entry.items() if name not in keys}
        if entry.get("differs"):
            told |= {name: [spelling[key] for key in entry[name] if key in spelling] for name in keys}
        found.append(told)
    content = {
        "measures": [vars(measure) for measure in MEASURES],
        "false_discoveries": FALSE_DISCOVERIES,
        "least_files": LEAST_WORKS,
        "least_words": LEAST_SIZE,
        "scopes": found,
    }
    (folder / BASELINE).write_text(
        json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return summary_of(found)


def summary_of(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By scope: how many were compared, what differs, and why what has no baseline has none."""
    scopes: dict[str, dict[str, Any]] = {}
    missing: dict[str, Counter[str]] = defaultdict(Counter)
    hint = ""
    for entry in found:
        of = scopes.setdefault(entry["scope"], {"compared": 0, "differing": 0, "no_baseline": {}, "differ": []})
        if "no_language" in entry:
            missing[entry["scope"]][entry["no_language"]] += 1
            hint = _UNSTATED if entry["none"].endswith(_UNSTATED) else hint
            continue
        if "none" in entry:
            of["no_baseline"][entry["none"]] = of["no_baseline"].get(entry["none"], 0) + 1
            continue
        of["compared"] += 1
        if entry["differs"]:
            of["differing"] += 1
            of["differ"].append(
                {
                    **{name: entry[name] for name in ("name", "driver", "p", "q", "size", "absent")},
                    "effect": entry["measures"][entry["driver"]]["effect"],
                    "alarm": _ALARMS[entry["driver"]],
                }
            )
    for scope, of in scopes.items():
        if languages := missing.get(scope):
            named = ", ".join(sorted(languages)[:_MOST_LANGUAGES])
            more = f" and {len(languages) - _MOST_LANGUAGES:,} more" if len(languages) > _MOST_LANGUAGES else ""
            of["no_baseline"][f"no held-out text of language {named}{more}{hint}"] = languages.total()
        of["differ"] = sorted(of["differ"], key=lambda entry: (entry["q"], entry["p"], entry["name"]))[:_MOST_NAMED]
    return scopes
