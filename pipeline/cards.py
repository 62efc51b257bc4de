"""README.md for the Hugging Face hub, and croissant.json: what a mix is, for people and for catalogues.

Both say no more than the manifest does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline.manifest import MANIFEST, RuleClaim, decimal, dump_manifest, named_rules
from transforms.kernels.schemas import Provenance, mix_schema

__all__ = ["croissant", "dataset_card", "write_cards"]

_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
_LARGER = ("10B<n<100B", "100B<n<1T", "n>1T")
"""Categories of the hub, each ten times the one before; the first ends at a thousand rows."""

_COLUMNS = {
    "id": "Hex of the first 128 bits of the sha256 of the text's UTF-8 bytes.",
    "text": "The document, exactly as it was read.",
    "source": "Name of the source it came from.",
    "provenance": "human_verified, human, ai_assisted, synthetic, disputed or unknown.",
    "generator": "The model that wrote it, where known.",
    "evidence": "What speaks for and against its origin.",
    "n_tokens": "Tokens of the text, by the counter that the manifest names.",
    "n_bytes": "Bytes of the text in UTF-8.",
    "represents": "Documents it stands for after deduplication, itself included.",
    "copy": "0 for the first copy of a document, 1 for the second, and so on.",
    "language": "Language as the source declares it.",
    "license": "License as the source declares it.",
    "doc_id": "Id that the source gave it.",
    "shard": "Input shard it was read from.",
    "row": "Row of that shard.",
    "part": "Part of that row, where one row holds several documents.",
}
_SEMANTICS = {"id": "sc:identifier", "text": "sc:text", "language": "sc:inLanguage", "license": "sc:license"}


def write_cards(out: str | Path, manifest: Mapping[str, Any]) -> None:
    """Write README.md and croissant.json into the folder of a written mix."""
    out = Path(out)
    kept = _kept(out, manifest)
    (out / "README.md").write_text(dataset_card(manifest), encoding="utf-8")
    content = json.dumps(croissant(manifest, kept), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (out / "croissant.json").write_text(content, encoding="utf-8")


def _kept(out: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Columns that sources kept: they stand behind the fixed ones in every shard."""
    for shard in manifest["shards"]:
        schema: pa.Schema = pq.read_schema(out / shard["path"])
        return list(schema.names[len(mix_schema(())) :])
    return []


def _name(manifest: Mapping[str, Any]) -> str:
    return f"anchormix-{manifest['logical_digest'][:12]}"


def _share_of(manifest: Mapping[str, Any], provenance: str) -> str:
    measure = manifest["measure"]
    column = "rows" if measure == "documents" else measure
    found = manifest["provenance"]["by_provenance"].get(provenance, {}).get(column, 0)
    return f"{found}/{manifest['totals'][column]} ({decimal(found, manifest['totals'][column])})"


def _languages(manifest: Mapping[str, Any]) -> list[str]:
    """Declared codes, the commonest first; whatever is no language code stays in the columns alone."""
    counts = manifest["languages"]
    codes = sorted(counts, key=lambda code: (-counts[code], code))
    return [code for code in codes if re.fullmatch(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*", code)]


def dataset_card(manifest: Mapping[str, Any]) -> str:
    """A dataset card with the front matter that the hub reads."""
    totals, by_provenance = manifest["totals"], manifest["provenance"]["by_provenance"]
    licenses = sorted(manifest["licenses"])
    front: dict[str, Any] = {
        "pretty_name": _name(manifest),
        "license": _hub_license(licenses),
        "task_categories": ["text-generation"],
        "tags": ["anchormix", "provenance", *(["synthetic"] if _synthetic(manifest) else [])],
        "size_categories": [_size_category(totals["rows"])],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }
    if front["license"] == "other":
        front["license_name"] = "mixed" if licenses else "undeclared"
    if languages := _languages(manifest):
        front["language"] = languages
    rules = [
        f"| {name} | {'at least' if floor else 'at most'} {_asked(rule)} | {_told(manifest['achieved'][name])} |"
        for name, rule, floor in _rules(manifest)
    ]
    provenances = [
        f"| {p.label} | {by_provenance[p.label]['documents']:,} | {by_provenance[p.label]['tokens']:,} "
        f"| {_share_of(manifest, p.label)} |"
        for p in Provenance
        if p.label in by_provenance
    ]
    generators = [
        f"| {_cell(name)} | {total['documents']:,} | {total['tokens']:,} |"
        for name, total in sorted(manifest["provenance"]["by_generator"].items())
    ]
    sources = [
        f"| {_cell(name)} | {account['documents_in']:,} | {sum(account['dropped'].values()):,} "
        f"| {account['documents_out']:,} |"
        for name, account in sorted(manifest["sources"].items())
    ]
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        f"# {_name(manifest)}",
        "",
        f"A training mix of {totals['documents']:,} documents ({totals['tokens']:,} tokens, {totals['bytes']:,} bytes "
        "of text), deduplicated and tagged with the provenance of every document. "
        f"Shares are of {manifest['measure']}.",
        "",
        "## Rules it holds",
        "",
        *_markdown(["rule", "asked", "in the mix"], rules),
        "## Provenance",
        "",
        "`human_verified` text is covered, document by document, by a manifest signed with a key that the maker of "
        "this mix trusts. That says who vouches for it, not that it is true or good.",
        "",
        *_markdown(["provenance", "documents", "tokens", f"share of {manifest['measure']}"], provenances),
        *(["Generators:", "", *_markdown(["generator", "documents", "tokens"], generators)] if generators else []),
        "## Sources",
        "",
        *_markdown(["source", "documents read", "dropped", "in the mix"], sources),
        "What was dropped, and for which reason, stands in `fates/` and `manifest.json`.",
        "",
        "## Licenses",
        "",
        f"As declared by the sources: {', '.join(licenses) if licenses else 'none declared'}. "
        "Each row carries its own in the column `license`.",
        "",
        "## Check it yourself",
        "",
        "```",
        "anchormix verify .",
        "```",
        "",
        f"Logical digest: `{manifest['logical_digest']}`",
        "",
    ]
    return "\n".join(lines)


def _synthetic(manifest: Mapping[str, Any]) -> bool:
    return bool(manifest["provenance"]["by_provenance"].get("synthetic", {}).get("rows", 0))


def _markdown(headings: list[str], rows: list[str]) -> list[str]:
    return [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|", *rows, ""] if rows else ["None.", ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _rules(manifest: Mapping[str, Any]) -> list[tuple[str, RuleClaim, bool]]:
    return list(named_rules(*(map(RuleClaim.from_json, manifest[kind]) for kind in ("floors", "caps"))))


def _asked(rule: RuleClaim) -> str:
    return str(rule.share) if rule.share is not None else f"{rule.amount:,}"


def _told(achieved: Mapping[str, Any]) -> str:
    overall = achieved.get("overall")
    return f"{overall['numerator']}/{overall['denominator']} ({overall['share']})" if overall else "not recounted"


def _hub_license(licenses: list[str]) -> str:
    """The hub takes one identifier; several, or none, are `other`."""
    if len(licenses) == 1 and re.fullmatch(r"[A-Za-z0-9.+-]+", licenses[0]):
        return licenses[0].lower()
    return "other"


def _size_category(rows: int) -> str:
    categories = (*_SIZES, *_LARGER)
    return categories[min(max(len(str(rows)) - 3, 0), len(categories) - 1)]


_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(manifest: Mapping[str, Any], kept: list[str]) -> dict[str, Any]:
    """Croissant 1.1 metadata: every shard by its sha256, one record set with the columns of the mix."""
    totals = manifest["totals"]
    licenses = sorted(manifest["licenses"])
    described: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": _name(manifest),
        "description": (
            f"A training mix of {totals['documents']} documents and {totals['tokens']} tokens, deduplicated and "
            f"tagged with provenance. Of its {manifest['measure']}, {_share_of(manifest, 'human_verified')} are "
            f"verified human text and {_share_of(manifest, 'synthetic')} synthetic."
        ),
        "version": f"1.0.0+{manifest['logical_digest'][:12]}",
        "license": licenses or ["undeclared"],
        "keywords": ["text", "provenance", *(["synthetic"] if _synthetic(manifest) else [])],
        "isLiveDataset": False,
        "rai:dataCollection": "Documents of the sources that manifest.json names; every one of them is accounted for.",
        "rai:dataPreprocessingProtocol": [
            "Exact and near duplicates were removed; each removal names the kept document that justifies it.",
            "Text is never edited.",
        ],
        "rai:dataLimitations": (
            "Verification is about custody, not about how a text reads: it says who vouches for human authorship."
        ),
        "distribution": [*_files(manifest), _SHARDS],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "documents",
                "name": "documents",
                "description": "One record per row of the mix.",
                "field": [*(_field(column) for column in mix_schema(tuple(kept)))],
            }
        ],
    }
    if languages := _languages(manifest):
        described["inLanguage"] = languages
    if manifest["as_of"]:
        described["datePublished"] = manifest["as_of"]
    return described


_SHARDS = {
    "@type": "cr:FileSet",
    "@id": "shards",
    "name": "shards",
    "description": "The rows of the mix.",
    "encodingFormat": "application/x-parquet",
    "includes": "data/*.parquet",
}


def _files(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    digest = hashlib.sha256(dump_manifest(manifest)).hexdigest()
    listed = [(MANIFEST, "application/json", digest, len(dump_manifest(manifest)))]
    listed += [
        (shard["path"], "application/x-parquet", shard["sha256"], shard["file_bytes"]) for shard in manifest["shards"]
    ]
    return [
        {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path,
            "contentUrl": path,
            "contentSize": f"{size} B",
            "encodingFormat": kind,
            "sha256": sha256,
        }
        for path, kind, sha256, size in listed
    ]


def _field(column: pa.Field) -> dict[str, Any]:
    described = {
        "@type": "cr:Field",
        "@id": f"documents/{column.name}",
        "name": column.name,
        "description": _COLUMNS.get(column.name, "Kept from the source as it was."),
    }
    if pa.types.is_list(column.type):
        struct = column.type.value_type
        parts = [_part(column.name, struct.field(place).name) for place in range(struct.num_fields)]
        return {**described, "repeated": True, "subField": parts}
    kind = "sc:Integer" if pa.types.is_integer(column.type) else "sc:Text"
    semantic = _SEMANTICS.get(column.name)
    source = {"fileSet": {"@id": "shards"}, "extract": {"column": column.name}}
    return {**described, "dataType": [kind, semantic] if semantic else kind, "source": source}


def _part(column: str, part: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"documents/{column}/{part}",
        "name": part,
        "dataType": "sc:Text",
        "source": {
            "fileSet": {"@id": "shards"},
            "extract": {"column": column},
            "transform": {"jsonPath": f"$[*].{part}"},
        },
    }
