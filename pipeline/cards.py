"""README.md for the Hugging Face hub, and croissant.json: what a mix is, for people and for catalogues.

Both say no more than the manifest does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline.card_facts import counter, has_synthetic, languages, mix_name, share_of
from pipeline.croissant import croissant
from pipeline.eu_summary import eu_summary
from pipeline.licenses import declared, hub_ids
from pipeline.manifest import RuleClaim, named_rules
from pipeline.markdown import cell, table
from transforms.kernels.schemas import Provenance, mix_schema

__all__ = ["dataset_card", "write_cards"]

_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
_LARGER = ("10B<n<100B", "100B<n<1T", "n>1T")
"""Categories of the hub, each ten times the one before; the first ends at a thousand rows."""


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


def _hub_languages(manifest: Mapping[str, Any]) -> list[str]:
    """The hub takes codes of ISO 639 alone, without script or region."""
    codes = (re.split("[-_]", code)[0].lower() for code in languages(manifest))
    return list(dict.fromkeys(codes))


def dataset_card(manifest: Mapping[str, Any]) -> str:
    """A dataset card with the front matter that the hub reads."""
    totals, by_provenance = manifest["totals"], manifest["provenance"]["by_provenance"]
    licenses = declared(manifest)
    front: dict[str, Any] = {
        "pretty_name": mix_name(manifest),
        "license": hub_ids(licenses),
        "task_categories": ["text-generation"],
        "tags": ["anchormix", "provenance", *(["synthetic"] if has_synthetic(manifest) else [])],
        "size_categories": [_size_category(totals["rows"])],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }
    if len(front["license"]) == 1:
        (front["license"],) = front["license"]
    if "other" in hub_ids(licenses):
        front["license_name"] = "as-declared"
    if codes := _hub_languages(manifest):
        front["language"] = codes
    rules = [
        [name, f"{'at least' if floor else 'at most'} {_asked(rule)}", _told(manifest["achieved"][name])]
        for name, rule, floor in _rules(manifest)
    ]
    provenances = [
        [p.label, f"{found['documents']:,}", f"{found['tokens']:,}", share_of(manifest, p.label)]
        for p in Provenance
        if (found := by_provenance.get(p.label))
    ]
    generators = [
        [cell(name), f"{total['documents']:,}", f"{total['tokens']:,}"]
        for name, total in sorted(manifest["provenance"]["by_generator"].items())
    ]
    sources = [
        [
            cell(name),
            f"{account['documents_in']:,}",
            f"{sum(account['dropped'].values()):,}",
            f"{account['documents_out']:,}",
        ]
        for name, account in sorted(manifest["sources"].items())
    ]
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        f"# {mix_name(manifest)}",
        "",
        f"A training mix of {totals['documents']:,} documents ({totals['tokens']:,} tokens, {totals['bytes']:,} bytes "
        "of text), deduplicated and tagged with the provenance of every document. Tokens are counted by "
        f"{cell(counter(manifest))}; shares are of {manifest['measure']}.",
        "",
        "## Rules it holds",
        "",
        *table(["rule", "asked", "in the mix"], [[cell(name), *rest] for name, *rest in rules]),
        "## Provenance",
        "",
        "`human_verified` text is covered, document by document, by a manifest signed with a key that the maker of "
        "this mix trusts. That says who vouches for it, not that it is true or good.",
        "",
        *table(["provenance", "documents", "tokens", f"share of {manifest['measure']}"], provenances),
        *(["Generators:", "", *table(["generator", "documents", "tokens"], generators)] if generators else []),
        "## Sources",
        "",
        *table(["source", "documents read", "dropped", "in the mix"], sources),
        "What was dropped, and for which reason, stands in `fates/` and `manifest.json`.",
        "",
        "## Licenses",
        "",
        "As the sources declare them, inferred from nothing. Each row carries its own in the column `license`, "
        "which is empty where none is declared: these documents are counted as unknown.",
        "",
        *table(["license", "documents"], [[cell(name), f"{count:,}"] for name, count in licenses.items()]),
        eu_summary(manifest),
        "## Load it",
        "",
        "The rows lie in `data/*.parquet`, in the order of file names and rows, and any reader of Parquet takes them:",
        "",
        "```python",
        'datasets.load_dataset("PATH_OF_THIS_FOLDER", split="train")',
        "```",
        "",
        "`anchormix export . --to mds DEST`, or `--to webdataset`, writes what streaming loaders read.",
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


def _rules(manifest: Mapping[str, Any]) -> list[tuple[str, RuleClaim, bool]]:
    return list(named_rules(*(map(RuleClaim.from_json, manifest[kind]) for kind in ("floors", "caps"))))


def _asked(rule: RuleClaim) -> str:
    return str(rule.share) if rule.share is not None else f"{rule.amount:,}"


def _told(achieved: Mapping[str, Any]) -> str:
    overall = achieved.get("overall")
    return f"{overall['numerator']}/{overall['denominator']} ({overall['share']})" if overall else "not recounted"


def _size_category(rows: int) -> str:
    categories = (*_SIZES, *_LARGER)
    return categories[min(max(len(str(rows)) - 3, 0), len(categories) - 1)]
