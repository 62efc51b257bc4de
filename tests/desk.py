"""A signing desk for tests: two keys, signed shards, and any statement that a test wants signed."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.attest import attest, sign_envelope, write_keypair
from pipeline.custody import SourceCustody, decide
from pipeline.trust import Trust, load_trust

METHOD = "licensed_source"
DAY = date(2026, 11, 20)


@dataclass(frozen=True)
class Key:
    name: str
    public_key: str
    sources: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    valid_from: date | None = None
    valid_until: date | None = None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Desk:
    """A folder with two keys, two signed shards and one that nobody signed."""

    folder: Path
    shards: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        write_keypair(self.folder / "desk")
        write_keypair(self.folder / "other")
        for name, texts in {"a.parquet": ["one", "two"], "sub/b.parquet": ["three"], "c.parquet": ["four"]}.items():
            path = self.folder / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"text": texts}), path)
            self.shards[name] = path.read_bytes()
        self.attest()

    @property
    def manifest(self) -> Path:
        return self.folder / "custody.json"

    def digest(self, name: str) -> str:
        return sha256(self.shards[name])

    def attest(self, names: tuple[str, ...] = ("a.parquet", "sub/b.parquet"), **options: Any) -> dict[str, Any]:
        call: dict[str, Any] = {"key_path": self.folder / "desk.key", "method": METHOD, "output": self.manifest}
        return attest([self.folder / "data" / name for name in names], **(call | options))

    def key(self, name: str = "desk", **restrictions: Any) -> Key:
        return Key(name, str(self.folder / f"{name}.pub"), **restrictions)

    def trust(self, *keys: Key, revoked: tuple[str, ...] = (), as_of: date | None = None) -> Trust:
        return load_trust(keys or (self.key(),), revoked, as_of)

    def decide(
        self, trust: Trust | None = None, source: str = "press", method: str = METHOD, manifests: Sequence[Path] = ()
    ) -> SourceCustody:
        return decide(source, method, [str(path) for path in manifests or [self.manifest]], trust or self.trust())

    def config(self, *keys: Key, revoked: tuple[str, ...] = (), as_of: date | None = None) -> Any:
        """What custody looks at of a config: press is signed, web is not."""
        signed = SimpleNamespace(method=METHOD, manifest=(str(self.manifest),), on_mismatch="fail")
        return SimpleNamespace(
            as_of=as_of,
            trust=SimpleNamespace(keys=keys or (self.key(),), revoked=revoked),
            sources=(SimpleNamespace(name="press", custody=signed), SimpleNamespace(name="web", custody=None)),
        )

    def statement(self) -> dict[str, Any]:
        statement: dict[str, Any] = json.loads(base64.b64decode(json.loads(self.manifest.read_bytes())["payload"]))
        return statement

    def sign(self, statement: Any, **options: Any) -> None:
        """Whatever it says, truly signed by the desk: only the content is wrong."""
        payload = statement if isinstance(statement, bytes) else json.dumps(statement).encode()
        self.manifest.write_text(json.dumps(sign_envelope(payload, self.folder / "desk.key", **options)))

    def leaf_list(self, name: str = "a.parquet") -> Path:
        return self.folder / "custody.leaves" / f"{self.digest(name)}.leaves"
