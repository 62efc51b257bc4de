"""Signing: key pairs that are never overwritten, envelopes that any DSSE reader accepts, manifests anyone can check."""

import base64
import gzip
import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from pipeline.attest import (
    PAYLOAD_TYPE,
    attest,
    key_id,
    load_private_key,
    load_public_key,
    parse_envelope,
    parse_json,
    sign_envelope,
    unsafe_name,
    write_keypair,
)
from pipeline.errors import BadInput, UsageError


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keypair(tmp_path / "keys" / "desk")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def statement_of(manifest: Path) -> dict[str, Any]:
    statement: dict[str, Any] = json.loads(base64.b64decode(json.loads(manifest.read_bytes())["payload"]))
    return statement


def write_texts(path: Path, texts: list[str | None], column: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({column: pa.array(texts, pa.string())}), path)
    return path


def leaves_of(texts: list[str]) -> bytes:
    return b"".join(sorted(hashlib.sha256(text.encode()).digest() for text in texts))


def test_a_key_pair_is_for_its_owner(tmp_path: Path) -> None:
    key, public = write_keypair(tmp_path / "new" / "desk.2026")
    assert (key.name, public.name) == ("desk.2026.key", "desk.2026.pub")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key_id(load_private_key(key).public_key()) == key_id(load_public_key(public))


@pytest.mark.parametrize("taken", ["desk.key", "desk.pub"])
def test_keys_are_never_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("precious")
    with pytest.raises(UsageError, match=taken) as error:
        write_keypair(tmp_path / "desk")
    assert error.value.code == "key_exists"
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "precious"


def test_a_key_that_appears_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.lexists", lambda path: False)
    (tmp_path / "desk.pub").write_text("precious")
    with pytest.raises(UsageError, match=r"desk\.pub exists"):
        write_keypair(tmp_path / "desk")
    assert [path.name for path in tmp_path.iterdir()] == ["desk.pub"]
    assert (tmp_path / "desk.pub").read_text() == "precious"


def test_a_wrong_key_is_known_before_anything_is_read(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="public key"):
        attest([tmp_path / "not even looked for"], keys[1], "licensed_source", tmp_path / "m.json")


def test_files_that_are_no_such_key_are_refused(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    key, public = keys
    other = tmp_path / "rsa.key"
    other.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    for load, path, says in (
        (load_private_key, public, "it is a public key"),
        (load_public_key, key, "it is a private key"),
        (load_private_key, other, "another algorithm"),
        (load_private_key, tmp_path / "none.key", "cannot be read"),
        (load_public_key, tmp_path / "none.pub", "cannot be read"),
    ):
        with pytest.raises(UsageError, match=says) as error:
            load(path)
        assert error.value.code == "bad_key"


@given(st.binary(max_size=60), st.text(max_size=12))
def test_an_envelope_signs_type_and_payload(
    tmp_path_factory: pytest.TempPathFactory, payload: bytes, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("keys")
    key, public = write_keypair(folder / "desk")
    content = sign_envelope(payload, key, kind)
    envelope = parse_envelope(json.dumps(content).encode())
    assert (envelope.payload, envelope.payload_type) == (payload, kind)
    assert envelope.signed_by(load_public_key(public))
    for changed in ({"payloadType": kind + "x"}, {"payload": base64.b64encode(payload + b"x").decode()}):
        assert not parse_envelope(json.dumps(content | changed).encode()).signed_by(load_public_key(public))


def test_the_signature_is_over_the_dsse_encoding(keys: tuple[Path, Path]) -> None:
    """Checked with the encoding spelt out, as a third party would."""
    key, public = keys
    content = sign_envelope(b"hello world", key, "http://example.com/HelloWorld")
    signature = base64.b64decode(content["signatures"][0]["sig"])
    message = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    load_pem_public_key(public.read_bytes()).verify(signature, message)  # type: ignore[union-attr, call-arg]
    assert content["signatures"][0]["keyid"] == key_id(load_public_key(public))


def test_both_base64_alphabets_are_read(keys: tuple[Path, Path]) -> None:
    content = sign_envelope(b"\xfb\xff\xfe" * 9, keys[0])
    content["payload"] = content["payload"].replace("+", "-").replace("/", "_")
    assert "-" in content["payload"]
    assert "_" in content["payload"]
    assert parse_envelope(json.dumps(content).encode()).signed_by(load_public_key(keys[1]))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b'{"payload": ', "not JSON"),
        (b"\xff\xfe\xfa", "not JSON"),
        (b"[]", "`payloadType` is missing"),
        (b'{"payloadType": 1, "payload": "", "signatures": [{}]}', "`payloadType` must be text"),
        (b'{"payloadType": "t", "payload": "", "signatures": []}', "not signed"),
        (b'{"payloadType": "t", "payload": "", "signatures": ["x"]}', r"signatures\[0\]"),
        (b'{"payloadType": "t", "payload": "", "signatures": [{"keyid": 1, "sig": ""}]}', "keyid"),
        (b'{"payloadType": "t", "payload": "", "signatures": [{"keyid": "a"}]}', "`sig` is missing"),
        (b'{"payloadType": "t", "payload": "a", "signatures": [{"sig": ""}]}', "`payload` is not base64"),
        (b'{"payloadType": "t", "payload": "a!==", "signatures": [{"sig": ""}]}', "`payload` is not base64"),
        (b'{"payloadType": "t", "payload": "YQ!==", "signatures": [{"sig": ""}]}', "`payload` is not base64"),
        (b'{"payloadType": "t", "payload": 1, "signatures": [{"sig": ""}]}', "must be base64 text"),
        (b'{"payloadType": "t", "payload": "", "payload": "", "signatures": [{"sig": ""}]}', "stands twice"),
        (b'{"payloadType": "t", "payload": "", "signatures": [' + b'{"sig":""},' * 64 + b'{"sig":""}]}', "65 sig"),
        (b"[" * 200_000, "nested"),
    ],
)
def test_broken_envelopes_are_diagnosed(content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_envelope(content)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "a//b",
        "a\u202eb",
        "a\x7f",
        "a\udcff",
        "../a",
        "a/../b",
        ".",
        "a/.",
        "a\\b",
        "a\nb",
        "a\0",
        "s3://b/a",
        "https://x/a",
        "C:/a",
        "C:\\a",
    ],
)
def test_unsafe_names(name: str) -> None:
    assert unsafe_name(name)


@pytest.mark.parametrize("name", ["a", "a/b.parquet", "..a/b..", "dt=2026-01-01/é.jsonl.gz", "a b"])
def test_safe_names(name: str) -> None:
    assert unsafe_name(name) is None


def test_what_a_manifest_says(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    texts = {"press/a.parquet": ["one", "two", None, "two", ""], "press/sub/b.parquet": ["three", "Καλημέρα"]}
    paths = [write_texts(tmp_path / name, list(values)) for name, values in texts.items()]
    manifest = tmp_path / "out" / "custody.dsse.json"
    summary = attest(
        [str(tmp_path / "press" / "**" / "*.parquet"), paths[0]],
        keys[0],
        "licensed_source",
        manifest,
        source="press",
        valid_until="2027-01-01",
        issuer="ACME",
    )
    assert (summary["subjects"], summary["documents"], summary["skipped"]) == (2, 6, 1)
    assert summary["manifest_digest"] == sha256(manifest.read_bytes())
    statement = statement_of(manifest)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [
        {"name": name.removeprefix("press/"), "digest": {"sha256": sha256(path.read_bytes())}}
        for name, path in zip(texts, paths, strict=True)
    ]
    predicate = statement["predicate"]
    leaves = {entry["subject"]: entry for entry in predicate.pop("leaves")}
    assert predicate == {
        "method": "licensed_source",
        "column": "text",
        "source": "press",
        "issuer": "ACME",
        "valid_until": "2027-01-01",
    }
    for path, values in zip(paths, texts.values(), strict=True):
        entry = leaves[sha256(path.read_bytes())]
        expected = leaves_of([value for value in values if value is not None])
        assert (manifest.parent / entry["file"]).read_bytes() == expected
        assert entry["file"] == f"custody.dsse.leaves/{entry['subject']}.leaves"
        assert (entry["documents"], entry["sha256"]) == (len(expected) // 32, sha256(expected))
    assert parse_envelope(manifest.read_bytes()).payload_type == PAYLOAD_TYPE


def test_text_formats_give_the_leaves_of_their_texts(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    lines = "".join(json.dumps({"body": {"raw": text}}) + "\n" for text in ("één", "two")) + '{"body": {"raw": 3}}\n'
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines.encode()))
    manifest = tmp_path / "m.json"
    summary = attest([path], keys[0], "notarised_author", manifest, column="body.raw")
    assert (summary["documents"], summary["skipped"]) == (2, 1)
    entry = statement_of(manifest)["predicate"]["leaves"][0]
    assert entry["subject"] == sha256(path.read_bytes())
    assert (tmp_path / entry["file"]).read_bytes() == leaves_of(["één", "two"])


def test_equal_runs_write_equal_bytes(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    paths = [write_texts(tmp_path / name, ["x", name]) for name in ("b.parquet", "a.parquet")]
    attest(paths, keys[0], "licensed_source", tmp_path / "one.json")
    attest(reversed(paths), keys[0], "licensed_source", tmp_path / "two.json")
    assert statement_of(tmp_path / "one.json")["subject"] == statement_of(tmp_path / "two.json")["subject"]
    again = (tmp_path / "one.json").read_bytes()
    attest(paths, keys[0], "licensed_source", tmp_path / "one.json")
    assert (tmp_path / "one.json").read_bytes() == again


def test_one_file_reached_twice_is_one_subject(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    path = write_texts(tmp_path / "a.parquet", ["x"])
    (tmp_path / "link.parquet").symlink_to(path)
    summary = attest(
        [tmp_path / "link.parquet", path, str(tmp_path / "*.parquet")], keys[0], "licensed_source", tmp_path / "m.json"
    )
    assert (summary["subjects"], summary["documents"]) == (1, 1)
    assert [subject["name"] for subject in statement_of(tmp_path / "m.json")["subject"]] == ["a.parquet"]


def test_equal_files_share_a_leaf_list_and_keep_their_names(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    for name in ("a.parquet", "b.parquet"):
        (tmp_path / name).write_bytes(write_texts(tmp_path / "a.parquet", ["x"]).read_bytes())
    summary = attest([str(tmp_path / "*.parquet")], keys[0], "licensed_source", tmp_path / "m.json")
    assert (summary["subjects"], summary["documents"]) == (1, 1)
    statement = statement_of(tmp_path / "m.json")
    assert [subject["name"] for subject in statement["subject"]] == ["a.parquet", "b.parquet"]
    assert len(statement["predicate"]["leaves"]) == 1


def test_a_manifest_is_replaced_with_its_leaf_lists(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    first, second = (write_texts(tmp_path / f"{name}.parquet", [name]) for name in "ab")
    manifest = tmp_path / "m.json"
    attest([first, second], keys[0], "licensed_source", manifest)
    stranger = tmp_path / "m.leaves" / "notes.txt"
    stranger.write_text("mine")
    attest([second], keys[0], "licensed_source", manifest)
    digest = sha256(second.read_bytes())
    assert sorted(path.name for path in (tmp_path / "m.leaves").iterdir()) == sorted([f"{digest}.leaves", "notes.txt"])
    manifest.write_text("no manifest at all")
    attest([first], keys[0], "licensed_source", manifest)
    assert statement_of(manifest)["subject"][0]["digest"]["sha256"] == sha256(first.read_bytes())
    assert not list(tmp_path.rglob("*.tmp"))


def test_injected_readers_are_used(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    path = tmp_path / "any.bin"
    path.write_bytes(b"opaque")
    asked = []

    def read(name: str, column: str) -> Iterator[pa.Array]:
        asked.append((name, column))
        yield pa.array(["b", None])
        yield pa.array(["a"], pa.large_string())

    attest([path], keys[0], "licensed_source", tmp_path / "m.json", column="c", read_texts=read)
    assert asked == [(str(path.resolve()), "c")]
    assert (tmp_path / statement_of(tmp_path / "m.json")["predicate"]["leaves"][0]["file"]).read_bytes() == leaves_of(
        ["a", "b"]
    )


def test_a_file_that_changes_and_has_its_time_set_back_is_not_signed(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    path = write_texts(tmp_path / "a.parquet", ["x"])
    before = path.stat()

    def read(name: str, column: str) -> Iterator[pa.Array]:
        path.write_bytes(path.read_bytes()[::-1])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        yield pa.array(["x"])

    with pytest.raises(BadInput, match="changed while it was read"):
        attest([path], keys[0], "licensed_source", tmp_path / "m.json", read_texts=read)
    assert not (tmp_path / "m.json").exists()


def test_links_are_signed_as_what_they_lead_to(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    real = write_texts(tmp_path / "store" / "2019" / "a.parquet", ["x"])
    (tmp_path / "folder").symlink_to(tmp_path / "store")
    attest([str(tmp_path / "folder" / "*" / "*.parquet")], keys[0], "licensed_source", tmp_path / "m.json")
    assert statement_of(tmp_path / "m.json")["subject"] == [
        {"name": "a.parquet", "digest": {"sha256": sha256(real.read_bytes())}}
    ]


def test_a_file_that_changes_while_it_is_read_is_not_signed(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    path = write_texts(tmp_path / "a.parquet", ["x"])

    def read(name: str, column: str) -> Iterator[pa.Array]:
        path.write_bytes(b"another content")
        yield pa.array(["x"])

    with pytest.raises(BadInput, match="changed while it was read"):
        attest([path], keys[0], "licensed_source", tmp_path / "m.json", read_texts=read)
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"files": ["nothing-*.parquet"]}, "no_files", "matches no file"),
        ({"files": ["."]}, "no_files", "is a folder"),
        ({"files": []}, "no_files", "at least one"),
        ({"files": ["ftp://host/a.parquet"]}, "store_unavailable", "no file system that is installed knows ftp://"),
        ({"method": "trust_me"}, "bad_method", "licensed_source"),
        ({"valid_until": "next year"}, "bad_date", "2027-01-01"),
        ({"signed_at": "today"}, "bad_date", "--signed-at"),
        ({"issuer": "ACME\nkey desk"}, "bad_text", "--issuer"),
        ({"key_path": "desk.pub"}, "bad_key", "it is a public key"),
        ({"column": "txet"}, "missing_column", "txet"),
        ({"files": ["empty.parquet"]}, "nothing_to_attest", "holds no text"),
        ({"files": ["notes.pdf"]}, "bad_file", "format"),
        ({"files": ["broken.parquet"]}, "bad_file", "broken.parquet"),
    ],
)
def test_calls_that_cannot_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], code: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_keypair("desk")
    write_texts(tmp_path / "a.parquet", ["x"])
    write_texts(tmp_path / "empty.parquet", [None, None])
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    (tmp_path / "broken.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    call: dict[str, Any] = {
        "files": ["a.parquet"],
        "key_path": "desk.key",
        "method": "licensed_source",
        "output": "m.json",
    }
    with pytest.raises((UsageError, BadInput), match=says) as error:
        attest(**(call | change))
    assert error.value.code == code
    assert not (tmp_path / "m.json").exists()
    assert not (tmp_path / "m.leaves").exists()


def test_json_is_read_in_one_way_only() -> None:
    assert parse_json(b'{"a": {"b": 1}}') == {"a": {"b": 1}}
    with pytest.raises(ValueError, match="twice"):
        parse_json(b'{"a": {"b": 1, "b": 2}}')


def test_signing_does_not_load_beam() -> None:
    code = "import sys, pipeline.attest, pipeline.custody; sys.exit('apache_beam' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=os.getcwd())
