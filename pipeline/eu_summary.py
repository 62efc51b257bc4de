"""The part of a public training-data summary that a mix can fill in.

Article 53(1)(d) of the EU's AI Act asks providers of general-purpose models for one, by a template of the Commission
(24 July 2025; C(2025) 8311) in three parts, whose numbers stand here. Volumes and generators are in the manifest; who
the provider is, where text was crawled and how rights were respected are not, and are left to whoever knows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from pipeline.card_facts import counter
from pipeline.licenses import declared
from pipeline.manifest import decimal
from pipeline.markdown import cell, table
from transforms.kernels.schemas import Provenance

__all__ = ["eu_summary"]

_PROVIDER = "*for the provider to state*"
_LICENSED = "licensed_source"
_MOST_LANGUAGES = 24


def eu_summary(manifest: Mapping[str, Any], heading: str = "##") -> str:
    """Markdown, in the template's order; `heading` is how deep its title stands."""
    totals = manifest["totals"]
    lines = [
        f"{heading} Training-data summary (EU AI Act, Article 53(1)(d))",
        "",
        "What this mix can say, in the order of the Commission's template. It covers this mix alone; what stands in "
        "italics the provider has to add.",
        "",
        f"{heading}# 1. General information",
        "",
        f"- Provider (1.1), model and date of its placement on the market (1.2): {_PROVIDER}",
        "- Modality (1.3): text",
        f"- Size: {totals['tokens']:,} tokens (counted by {cell(counter(manifest))}), {totals['bytes']:,} bytes, "
        f"{totals['documents']:,} documents; were this all the text, the range to select is {_range(totals['tokens'])}",
        f"- Languages, as the sources declare them (documents): {_languages(manifest)}",
        f"- Licenses, as the sources declare them (documents): {_licenses(manifest)}",
        f"- Latest date of acquisition or collection: {_PROVIDER}",
        "",
        f"{heading}# 2. List of data sources",
        "",
        *table(
            ["section", "source", "documents", "tokens", "share of tokens", "of it verified human"], _sources(manifest)
        ),
        f"Sections are those of the template: 2.2.1 is text whose custody method is `{_LICENSED}`. What a model wrote "
        "is under 2.5, which is about text made by the provider or for it: what came with a data set of others belongs "
        "to that data set's section. All other text may be public data sets (2.1), private ones of third parties "
        f"(2.2.2), crawled (2.3, naming domains), of users (2.4) or other (2.6): {_PROVIDER}.",
        "",
        "Synthetic data (2.5):",
        "",
        *table(["generator", "kind", "documents", "tokens", "share of tokens"], _generators(manifest)),
        f"{heading}# 3. Data processing aspects",
        "",
        "- 3.1, reservations of rights under Article 4(3) of Directive (EU) 2019/790, and how they were respected: "
        f"{_PROVIDER}",
        f"- 3.2, illegal content and how it was removed: not examined here; {_PROVIDER}",
        f"- 3.3, duplicates: {_dropped(manifest, 'exact_duplicate')} exact and {_dropped(manifest, 'near_duplicate')} "
        "near ones were left out; each names the document that stayed.",
        f"- 3.3, text excluded by name or id: {_dropped(manifest, 'excluded')} documents, each with its reason in "
        "`fates/`.",
        "",
    ]
    return "\n".join(lines)


def _range(tokens: int) -> str:
    """The template's words for the size of all text that a model is trained on."""
    if tokens < 10**9:
        return "less than 1 billion tokens"
    return "1 billion to 10 trillion tokens" if tokens <= 10**13 else "more than 10 trillion tokens"


def _languages(manifest: Mapping[str, Any]) -> str:
    counts = manifest["languages"]
    names = sorted(counts, key=lambda name: (-counts[name], name))
    told = [f"{cell(name)} {counts[name]:,}" for name in names[:_MOST_LANGUAGES]]
    if names[_MOST_LANGUAGES:]:
        told.append(f"{len(names) - _MOST_LANGUAGES:,} more")
    if missing := manifest["totals"]["documents"] - sum(counts.values()):
        told.append(f"not declared {missing:,}")
    return ", ".join(told)


def _licenses(manifest: Mapping[str, Any]) -> str:
    return ", ".join(f"{cell(name)} {count:,}" for name, count in declared(manifest).items())


def _sources(manifest: Mapping[str, Any]) -> list[list[object]]:
    found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for entry in manifest["summary"]:
        verified = entry["provenance"] == Provenance.HUMAN_VERIFIED.label
        amounts = (entry["documents"], entry["tokens"], entry["tokens"] if verified else 0)
        part = found[_section(entry), entry["source"]]
        part[:] = [old + new for old, new in zip(part, amounts, strict=True)]
    whole = manifest["totals"]["tokens"]
    return [
        [section, cell(source), f"{documents:,}", f"{tokens:,}", _share(tokens, whole), _share(verified, tokens)]
        for (section, source), (documents, tokens, verified) in sorted(found.items())
    ]


def _section(entry: Mapping[str, Any]) -> str:
    if entry["provenance"] == Provenance.SYNTHETIC.label:
        return "2.5"
    return "2.2.1" if entry["method"] == _LICENSED else _PROVIDER


def _generators(manifest: Mapping[str, Any]) -> list[list[object]]:
    found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for entry in manifest["summary"]:
        if entry["provenance"] == Provenance.SYNTHETIC.label:
            part = found[entry["generator"] or "not named", entry["kind"] or "not said"]
            part[:] = [part[0] + entry["documents"], part[1] + entry["tokens"]]
    whole = manifest["totals"]["tokens"]
    return [
        [cell(generator), cell(kind), f"{documents:,}", f"{tokens:,}", _share(tokens, whole)]
        for (generator, kind), (documents, tokens) in sorted(found.items())
    ]


def _share(part: int, whole: int) -> str:
    return decimal(part, whole) or "-"


def _dropped(manifest: Mapping[str, Any], reason: str) -> str:
    return f"{sum(source['dropped'].get(reason, 0) for source in manifest['sources'].values()):,}"
