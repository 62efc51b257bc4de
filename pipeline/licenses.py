"""Licenses as sources declare them, named as the Hugging Face hub and SPDX know them; never inferred from anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["UNKNOWN", "declared", "hub_ids"]

UNKNOWN = "unknown"
"""What documents have whose source declares no license; the hub knows the word."""

_HUB = frozenset(
    (
        *("afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause"),
        *("bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"),
        *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0"),
        *("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0"),
        *("cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "ecl-2.0", "epl-1.0", "epl-2.0"),
        *("etalab-2.0", "eupl-1.1", "eupl-1.2", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1"),
        *("lgpl-3.0", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1", "osl-3.0"),
        *("pddl", "postgresql", "unlicense", "wtfpl", "zlib"),
    )
)
"""Identifiers that the hub accepts and that are licenses of text; it refuses a card with any other."""

_OF_SPDX = {"odbl-1.0": "odbl", "odc-by-1.0": "odc-by", "pddl-1.0": "pddl", "0bsd": "bsd"}
_CREATIVE_COMMONS = re.compile(r"https?://creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)(/.*)?")


def declared(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Documents by license, the commonest first; `unknown` are those that declare none."""
    counts = dict(manifest["licenses"])
    missing = manifest["totals"]["documents"] - sum(counts.values())
    if missing > 0:
        counts[UNKNOWN] = counts.get(UNKNOWN, 0) + missing
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def hub_ids(names: Mapping[str, int]) -> list[str]:
    """The same as the hub spells them; `other` stands for what it has no identifier for."""
    return list(dict.fromkeys(_hub_id(name) for name in names)) or [UNKNOWN]


def _hub_id(name: str) -> str:
    found = _CREATIVE_COMMONS.fullmatch(name.strip().lower())
    if found:
        word = "cc0" if found[2] == "zero" else f"cc-{found[2]}"
        spelled = f"{word}-{found[3]}"
    else:
        spelled = re.sub(r"-(only|or-later)$", "", name.strip().lower())
        spelled = "gfdl" if spelled.startswith("gfdl-") else _OF_SPDX.get(spelled, spelled)
    return spelled if spelled in _HUB or spelled == UNKNOWN else "other"
