"""Small valid mixes written the honest way, and the ways in which they can be tampered with."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.attest import attest, write_keypair
from pipeline.manifest import (
    MixClaims,
    RuleClaim,
    SourceAccount,
    build_manifest,
    documents_out,
    group_columns,
    human_floor,
    input_digest,
    write_manifest,
)
from pipeline.origins import custody_manifests
from pipeline.verify import audit_mix
from transforms.kernels.audit import CERTIFICATE_KEY
from transforms.kernels.schemas import mix_schema
from transforms.kernels.text import count_words, split_words

KEPT = ("title",)
SCHEMA = mix_schema(KEPT)
FLOOR = Fraction(1, 2)
PLAN, CONFIG = "p" * 32, "c" * 64
Row = dict[str, Any]
Shards = list[list[Row]]


def row(text: str, source: str, provenance: str, place: int, **changes: Any) -> Row:
    shard = f"{source}-0.parquet"
    synthetic = provenance == "synthetic"
    made: Row = {
        "text": text,
        "source": source,
        "provenance": provenance,
        "generator": "mixtral" if synthetic else None,
        "evidence": [{"kind": "custody" if provenance == "human_verified" else "declared", "rule": "r"}],
        "represents": 1,
        "copy": 0,
        "language": "en" if place % 2 else "de",
        "license": "CC-BY-4.0",
        "doc_id": f"{source}:{place}",
        "shard": shard,
        "row": place,
        "part": 0,
        "title": None if place % 3 else f"Title {place}",
    }
    return sealed({**made, **changes})


def sealed(made: Row) -> Row:
    """The row with id, n_bytes and n_tokens as its text demands."""
    data = made["text"].encode()
    tokens = int(split_words(pa.array([made["text"]])).counted[0])
    return {**made, "id": hashlib.sha256(data).hexdigest()[:32], "n_bytes": len(data), "n_tokens": tokens}


def shares_and_slack(measures: Sequence[int], rows: Sequence[Row], floor: Fraction) -> dict[str, Any]:
    """What a certificate has to say of shares, counted plainly."""
    amounts: Counter[str] = Counter()
    for amount, r in zip(measures, rows, strict=True):
        amounts[r["provenance"]] += amount
    total, human = sum(measures), amounts["human_verified"]
    shares = {name: [amount, total] for name, amount in amounts.items()}
    return {"human_verified": human, "shares": shares, "slack": human - math.ceil(floor * total)}


def sentence(name: str, place: int) -> str:
    return f"The {name} of day {place} tells of wind and weather, häfen und Schiffe."


def default_shards() -> Shards:
    """Two shards of two row groups; verified text first in each pair, so that every prefix holds one half."""
    shards = []
    for shard in range(2):
        rows = []
        for place in range(shard * 10, shard * 10 + 10):
            rows.append(row(sentence("press", place) + " Again.", "press", "human_verified", place))
            other = ("web", "unknown") if place % 2 else ("rephrased", "synthetic")
            rows.append(row(sentence("other", place), *other, place))
        shards.append(rows)
    return shards


@dataclass
class Mix:
    """A folder with a mix, what it was made from, and how to write it again."""

    out: Path
    keys: Path
    shards: Shards
    row_group: int = 10
    floors: list[RuleClaim] = field(default_factory=lambda: [RuleClaim("human_verified", FLOOR)])
    caps: list[RuleClaim] = field(default_factory=lambda: [RuleClaim("synthetic", Fraction(3, 10))])
    changes: dict[str, Any] = field(default_factory=dict)
    texts: dict[tuple[str, str, int], str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [f"train-{n:05d}-of-{len(self.shards):05d}.parquet" for n in range(len(self.shards))]

    def path(self, shard: int) -> Path:
        return self.out / "data" / self.names[shard]

    def read_texts(self, source: str, shard: str, rows: np.ndarray) -> Iterable[pa.RecordBatch]:
        found = [number for number in rows.tolist() if (source, shard, number) in self.texts]
        texts = [self.texts[source, shard, number] for number in found]
        yield pa.record_batch({"row": found, "part": pa.array([0] * len(found), pa.int32()), "text": texts})

    def write_shard(self, number: int, rows: Sequence[Row], certificate: dict[str, Any] | None = None) -> None:
        """Write one shard; without a certificate it gets the one it deserves."""
        name = self.names[number]
        measured = [1 if self.measure == "documents" else r[f"n_{self.measure}"] for r in rows]
        floor = human_floor(self.floors)
        honest = {
            "version": 1,
            "shard": name,
            "rows": len(rows),
            "documents": sum(r["copy"] == 0 for r in rows),
            "tokens": sum(r["n_tokens"] for r in rows),
            "bytes": sum(r["n_bytes"] for r in rows),
            "measure": self.measure,
            **shares_and_slack(measured, rows, floor),
            "floor": [floor.numerator, floor.denominator],
            "row_groups": -(-len(rows) // self.row_group),
            "plan": PLAN,
            "config_digest": CONFIG,
        }
        table = pa.Table.from_pylist(list(rows), SCHEMA)
        with pq.ParquetWriter(self.path(number), SCHEMA, compression="zstd") as writer:
            writer.write_table(table, row_group_size=self.row_group)
            writer.add_key_value_metadata({CERTIFICATE_KEY: json.dumps(certificate or honest)})

    def certificate(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(pq.read_metadata(self.path(number)).metadata[CERTIFICATE_KEY])
        return found

    @property
    def measure(self) -> Any:
        return self.changes.get("measure", "tokens")

    def seal(self, sign: bool = True) -> None:
        """Write the manifest that the shards deserve, as an honest run or a thorough forger would."""
        rules = [*self.floors, *self.caps]
        inputs = pq.read_table(self.out / "inputs.parquet")
        audits = audit_mix(
            self.out,
            self.measure,
            Fraction(0),
            2,
            group_by=group_columns(rules),
            count_tokens=None if "tokens" in self.changes else count_words,
            manifests=custody_manifests(inputs),
        )
        read = Counter(dict(zip(inputs["source"].to_pylist(), inputs["documents"].to_pylist(), strict=True)))
        fates = pq.read_table(self.out / "fates" / "part-00000.parquet")
        gone = Counter(zip(fates["source"].to_pylist(), fates["fate"].to_pylist(), strict=True))
        out = documents_out(audits)
        sources = {}
        for source in sorted({*read, *out}):
            dropped = {fate: count for (name, fate), count in gone.items() if name == source}
            left = read[source] - out.get(source, 0) - sum(dropped.values())
            sources[source] = SourceAccount(read[source], {**dropped, "not_selected": left}, {"unknown": read[source]})
        claims = MixClaims(
            measure=self.measure,
            floors=self.floors,
            caps=self.caps,
            sources=sources,
            plan=PLAN,
            config_digest=CONFIG,
            input_digest=input_digest(inputs),
            seed=7,
            as_of="2026-11-20",
            code_version="0.1.0",
            methods={"press": "licensed_source"},
        )
        manifest = build_manifest(replace(claims, **self.changes), audits)
        write_manifest(self.out, manifest, self.keys / "mix.key" if sign else None)

    def rewrite(self, number: int, change: Callable[[list[Row]], None], *, reseal: bool) -> None:
        """Change rows of one shard. Resealing covers every track but signatures: a forger has no key."""
        rows = [dict(r) for r in self.shards[number]]
        change(rows)
        if reseal:
            self.write_shard(number, [sealed(r) for r in rows])
            self.seal(sign=False)
        else:
            self.write_shard(number, rows, self.certificate(number))

    def edit_manifest(self, change: Callable[[dict[str, Any]], None]) -> None:
        path = self.out / "manifest.json"
        manifest = json.loads(path.read_bytes())
        change(manifest)
        path.write_text(json.dumps(manifest))


def write_mix(folder: Path, shards: Shards | None = None, **settings: Any) -> Mix:
    """An honest mix of attested press, unknown web and synthetic rephrasings, with a signed manifest."""
    mix = Mix(folder / "mix", folder / "keys", shards or default_shards(), **settings)
    for name in ("data", "fates", "custody"):
        (mix.out / name).mkdir(parents=True)
    for number, rows in enumerate(mix.shards):
        mix.write_shard(number, rows)
    _write_inputs(mix, folder)
    mix.seal()
    (mix.out / "_SUCCESS").touch()
    return mix


def _write_inputs(mix: Mix, folder: Path) -> None:
    """The inputs that the rows name, with one duplicate each; press is attested."""
    rows = []
    dropped: list[Row] = []
    by_shard: dict[tuple[str, str], dict[int, str]] = {}
    for r in (r for shard in mix.shards for r in shard):
        by_shard.setdefault((r["source"], r["shard"]), {})[r["row"]] = r["text"]
    write_keypair(mix.keys / "mix")
    write_keypair(mix.keys / "press-desk")
    trust = {"name": "press-desk", "public_key": "press-desk.pub", "sources": ["press"]}
    (mix.keys / "trust.yaml").write_text(json.dumps({"keys": [trust]}))
    for (source, shard), texts in sorted(by_shard.items()):
        places = sorted(texts)
        path = folder / "inputs" / shard
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"text": [texts[p] for p in places]}), path)
        mix.texts.update({(source, shard, p): texts[p] for p in places})
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest = _attest(mix, path, source) if source == "press" else None
        rows.append(
            {
                "source": source,
                "shard": shard,
                "sha256": sha256,
                "bytes": path.stat().st_size,
                "rows": len(places) + 2,
                "documents": len(places) + 2,
                "bad_records": 0,
                "custody_verdict": "verified" if manifest else None,
                "custody_manifest": manifest,
            }
        )
        dropped.append({"source": source, "fate": "near_duplicate"})  # the other one is not selected
    schema = pa.schema(
        [(n, pa.int64() if n in ("bytes", "rows", "documents", "bad_records") else pa.string()) for n in rows[0]]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), mix.out / "inputs.parquet")
    pq.write_table(pa.Table.from_pylist(dropped), mix.out / "fates" / "part-00000.parquet")


def _attest(mix: Mix, path: Path, source: str) -> str:
    """Attest an input and copy manifest and leaf list to where a mix keeps them."""
    manifest = mix.keys / "press.json"
    attest([path], mix.keys / f"{source}-desk.key", "licensed_source", manifest, source=source)
    content = manifest.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    (mix.out / "custody" / f"{digest}.dsse.json").write_bytes(content)
    leaves = mix.out / "custody" / f"{digest}.leaves"
    leaves.mkdir(exist_ok=True)
    for leaf_list in (mix.keys / "press.leaves").iterdir():
        (leaves / leaf_list.name).write_bytes(leaf_list.read_bytes())
    return digest
