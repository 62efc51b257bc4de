"""What cards for people and for catalogues both say of a mix, taken from its manifest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.manifest import decimal
from transforms.kernels.schemas import Provenance

__all__ = ["counter", "has_synthetic", "languages", "mix_name", "share_of"]


def mix_name(manifest: Mapping[str, Any]) -> str:
    return f"anchormix-{manifest['logical_digest'][:12]}"


def counter(manifest: Mapping[str, Any]) -> str:
    """What counted tokens."""
    tokens = manifest["tokens"]
    if "file" in tokens:
        return f"the tokenizer {tokens['file']} with sha256 {tokens.get('sha256')}"
    return f"the column {tokens['column']}" if "column" in tokens else str(tokens.get("counter"))


def share_of(manifest: Mapping[str, Any], provenance: str) -> str:
    """An exact fraction of the measure, and the same as a decimal for people."""
    measure = manifest["measure"]
    column = "rows" if measure == "documents" else measure
    found = manifest["provenance"]["by_provenance"].get(provenance, {}).get(column, 0)
    return f"{found}/{manifest['totals'][column]} ({decimal(found, manifest['totals'][column])})"


def languages(manifest: Mapping[str, Any]) -> list[str]:
    """Declared codes, the commonest first; whatever is no language code stays in the columns alone."""
    counts = manifest["languages"]
    codes = sorted(counts, key=lambda code: (-counts[code], code))
    return [code for code in codes if re.fullmatch(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*", code)]


def has_synthetic(manifest: Mapping[str, Any]) -> bool:
    return bool(manifest["provenance"]["by_provenance"].get(Provenance.SYNTHETIC.label, {}).get("rows", 0))
