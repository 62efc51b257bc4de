"""Input, index and output in an S3 store: the bytes of a local run, and no half mix whatever the store does."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import corpus
import object_store
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml  # type: ignore[import-untyped]
from object_store import BUCKET, Proxy, everything_below
from runs import Told, anchormix

from pipeline import driver, object_stores
from pipeline.catalog import find_shards
from pipeline.config import load_config
from pipeline.errors import AnchormixError
from pipeline.lease import Lease
from transforms import files, stores

pytestmark = [pytest.mark.usefixtures("store"), pytest.mark.engine]

READ_FROM_A_STORE = ("shards", "custody", "keys")


@dataclass
class Project:
    """A corpus in a store, and the mix that a local run makes of it."""

    folder: Path
    url: str
    expected: dict[str, bytes]
    proxy: Proxy

    @property
    def shards(self) -> dict[str, bytes]:
        return {name: data for name, data in self.expected.items() if name.startswith("data/")}

    def config(self, output: str, index: str = "") -> Path:
        """The local config with every path in the store."""
        content = yaml.safe_load((self.folder / "mix.yaml").read_text())
        content["output"], content["index"] = f"{self.url}/{output}", index or f"{self.url}/index"
        for source in content["sources"]:
            source["files"] = [f"{self.url}/{pattern}" for pattern in source["files"]]
            if "custody" in source:
                source["custody"]["manifest"] = f"{self.url}/{source['custody']['manifest']}"
        for key in content["trust"]["keys"]:
            key["public_key"] = f"{self.url}/{key['public_key']}"
        path = self.folder / f"{output}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    def run(self, output: str, *more: str, command: str = "run", index: str = "") -> Told:
        return anchormix(command, self.config(output, index), *more)

    def below(self, folder: str) -> dict[str, bytes]:
        return everything_below(f"{self.url}/{folder}")


@pytest.fixture(scope="module")
def project(store_server: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Project:
    import boto3

    folder = tmp_path_factory.mktemp("in-a-store")
    corpus.write_corpus(folder, languages=("en", "zh"))
    local = corpus.minimal_config(folder)
    driver.run(load_config(local), ("--direct_num_workers=1",), True, [])
    mix = folder / "out" / "mix"
    expected = {str(path.relative_to(mix)): path.read_bytes() for path in mix.rglob("*") if path.is_file()}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_store.ENVIRONMENT.items():
            patch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=store_server.upstream)
        for below in READ_FROM_A_STORE:
            for path in (folder / below).rglob("*"):
                if path.is_file():
                    client.upload_file(str(path), BUCKET, f"project/{path.relative_to(folder).as_posix()}")
    return Project(folder, f"s3://{BUCKET}/project", expected, store_server)


@pytest.fixture(scope="module")
def indexed(project: Project) -> Project:
    """With an index in the store, so that tests of publishing need not make one."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**object_store.ENVIRONMENT, "AWS_ENDPOINT_URL": project.proxy.url}.items():
            patch.setenv(name, value)
        told = project.run("unused", command="index")
    assert told.exit == 0, told.stderr
    return project


def published(project: Project, output: str) -> dict[str, bytes]:
    found = project.below(output)
    assert "_SUCCESS" in found
    assert "_PUBLISHING" not in found
    return found


@pytest.fixture(scope="module")
def mixed(indexed: Project) -> Project:
    """With a mix in the store."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**object_store.ENVIRONMENT, "AWS_ENDPOINT_URL": indexed.proxy.url}.items():
            patch.setenv(name, value)
        told = indexed.run("mixed", command="mix")
    assert told.exit == 0, told.stderr
    return indexed


def test_everything_in_a_store_makes_the_mix_of_a_local_run(mixed: Project) -> None:
    found = published(mixed, "mixed")
    assert found.keys() == mixed.expected.keys()
    differing = {name for name, data in found.items() if mixed.expected[name] != data}
    assert differing == {"config.yaml", "run.json"}  # paths, times
    assert not any("scratch/" in name or name == "lease" for name in mixed.below("index"))

    assert mixed.run("mixed").line["status"] == "unchanged"
    other = mixed.run("mixed", "--set", "seed=8", command="mix")
    assert (other.exit, other.code) == (2, "output_exists")
    assert mixed.below("mixed") == found


def test_commands_read_a_mix_and_an_index_where_they_lie(mixed: Project, tmp_path: Path) -> None:
    url = f"{mixed.url}/mixed"
    config = mixed.config("mixed")

    verified = anchormix("verify", url, "--inputs", config, "--trust", _trust(mixed, tmp_path))
    assert verified.exit == 0, verified.stderr
    assert verified.line["output"] == url
    assert {level["status"] for name, level in verified.line["levels"].items() if name != "signed"} == {"reached"}

    page = files.read_bytes(f"{url}/report.html")
    files.remove(f"{url}/report.html")
    assert anchormix("report", url).line["output"] == f"{url}/report.html"
    assert files.read_bytes(f"{url}/report.html") == page

    explained = anchormix("explain", url, "--id", _an_id(mixed)).line
    assert explained["output"] == url
    assert explained["documents"][0]["where"] == "mix"
    assert anchormix("duplicates", f"{mixed.url}/index").line["totals"]
    assert anchormix("check", config).exit == 0
    missing = anchormix("verify", f"{mixed.url}/nothing")
    assert (missing.exit, missing.code) == (2, "no_mix")


def _trust(project: Project, folder: Path) -> Path:
    path = folder / "trust.yaml"
    key = {"name": "desk", "public_key": str(project.folder / "keys" / "desk.pub"), "sources": ["press"]}
    path.write_text(yaml.safe_dump({"keys": [key]}))
    return path


def _an_id(project: Project) -> str:
    shard = next(iter(project.shards.values()))
    return str(pq.read_table(pa.BufferReader(shard), columns=["id"])["id"][0])


def test_signing_in_a_store_signs_what_signing_here_signs(project: Project) -> None:
    arguments = ("--key", project.folder / "keys" / "desk.key", "--method", "licensed_source", "--source", "press")
    here = project.folder / "again" / "press.dsse.json"
    there = f"{project.url}/again/press.dsse.json"

    locally = anchormix("attest", f"{project.folder}/shards/press/*.parquet", *arguments, "--output", here)
    remotely = anchormix("attest", f"{project.url}/shards/press/*.parquet", *arguments, "--output", there)

    assert remotely.line["totals"] == {**locally.line["totals"], "manifest": there}
    assert files.read_bytes(there) == here.read_bytes()
    assert project.below("again").keys() == {
        str(path.relative_to(here.parent)) for path in here.parent.rglob("*") if path.is_file()
    }


def test_workers_that_reach_the_store_alone_make_the_same_bytes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an engine: packets through the shuffle, reports and staged shards through the store."""
    monkeypatch.setenv("ANCHORMIX_EXCHANGE", "shuffle")

    told = project.run("elsewhere", index=f"{project.url}/elsewhere.index")

    assert told.exit == 0, told.stderr
    found = published(project, "elsewhere")
    assert {name: data for name, data in found.items() if name.startswith("data/")} == project.shards
    assert project.proxy.count("PUT", "/scratch/.*/staged/data/"), "shards were to be staged in the store"
    assert not any("scratch/" in name for name in project.below("elsewhere.index"))


def test_a_changed_shard_is_another_one_and_no_other_is(project: Project) -> None:
    config = load_config(project.config("unused"))
    before = {shard.name: shard.key for shard in find_shards(config)}
    shard, found = f"{project.url}/shards/web/web-extra.csv", []
    try:
        for text in ("one more document of a few words", "one more document of two words "):  # of the same length
            files.write_bytes(shard, f"id,text\nx,{text}\n".encode())
            found.append({shard.name: shard.key for shard in find_shards(config)})
    finally:
        files.remove(shard)
    first, second = found
    assert first.pop("web-extra.csv") != second.pop("web-extra.csv")
    assert first == second == before


def test_a_run_is_refused_where_another_one_works(indexed: Project) -> None:
    for place, code in (("both/_PUBLISHING", "output_locked"), ("index/lease", "index_locked")):
        with Lease(f"{indexed.url}/{place}").held():
            refused = indexed.run("both", command="mix")
        assert (refused.exit, refused.code) == (2, code)
        assert f"process {os.getpid()} on" in refused.message
    assert indexed.below("both") == {}


def test_an_index_that_may_not_be_written_is_told_by_its_key(indexed: Project) -> None:
    indexed.proxy.fail("PUT", "/index/lease", object_store.status(403, "AccessDenied"))
    told = indexed.run("unused", command="index")
    assert (told.exit, told.code) == (2, "index_not_writable")


# Input


def test_a_shard_that_the_store_does_not_give_out_is_no_bad_record(project: Project) -> None:
    for fault in (object_store.cut_answer, object_store.status(403, "AccessDenied")):
        project.proxy.fail("GET", "/shards/web/web-0.*(parquet|csv)", fault)
        told = project.run("unread", "--set", "max_bad_records=1000", index=f"{project.url}/unread.index")
        assert (told.exit, told.code) == (5, "input_unreachable"), told.stderr
        assert "sources.web" in told.message
        assert "/shards/web/" in told.message
        project.proxy.heal()
    assert project.below("unread") == {}


def test_a_store_that_fails_while_mixing_is_no_change_of_the_input(indexed: Project) -> None:
    indexed.proxy.fail("GET", "/shards/web/web-0", object_store.status(503, "SlowDown"))

    told = indexed.run("unmixed", command="mix")

    assert (told.exit, told.code) == (5, "input_unreachable"), told.stderr
    indexed.proxy.heal()
    assert indexed.run("unmixed", command="plan").exit == 0  # the index has forgotten nothing


# Calls


def test_credentials_are_refused_where_they_would_be_written_down(indexed: Project) -> None:
    config = indexed.config("secret")
    for flag in ("--s3_secret_access_key=hidden-word", "--s3_endpoint_url=http://me:hidden-word@localhost:1"):
        told = anchormix("mix", config, beam=("--direct_num_workers=1", flag))
        assert (told.exit, told.code) == (2, "secret_in_flags")
        assert "hidden-word" not in json.dumps(told.line) + told.stderr


def test_flags_of_beam_say_where_the_store_is(indexed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    told = anchormix(
        "plan",
        indexed.config("flagged"),
        beam=("--direct_num_workers=1", f"--s3_endpoint_url={indexed.proxy.url}", "--s3_region_name=us-east-1"),
    )
    assert told.exit == 0, told.stderr


def test_a_store_without_its_packages_is_named_with_the_extra(
    monkeypatch: pytest.MonkeyPatch, indexed: Project
) -> None:
    monkeypatch.setitem(stores.EXTRAS, "s3", ("no_such_module", "aws"))
    told = indexed.run("extra", command="mix")
    assert (told.exit, told.code) == (2, "store_unavailable")
    assert "pip install 'anchormix[aws]'" in told.message


def test_stores_that_cannot_be_written_to_are_named(indexed: Project) -> None:
    told = indexed.run("unused", "--set", "output=ftp://host/mix")
    assert (told.exit, told.code) == (2, "not_yet")
    told = indexed.run("unused", "--set", "output=s3:///mix", command="mix")
    assert told.exit == 2


def test_scratch_of_a_store_is_on_this_disk_and_only_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = Path(object_stores.local_scratch("s3://bucket/index"))
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert folder == Path(object_stores.local_scratch("s3://bucket/index"))
    assert folder != Path(object_stores.local_scratch("s3://bucket/index2"))
    folder.parent.rmdir()
    folder.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises((AnchormixError, OSError)):
        object_stores.local_scratch("s3://bucket/index")


def test_keys_with_dots_do_not_leave_the_copy_of_a_mix(indexed: Project) -> None:
    files.write_bytes(f"{indexed.url}/dotted/data/../../../../escaped", b"out")
    files.write_bytes(f"{indexed.url}/dotted/manifest.json", b"{}")
    with object_stores.copied_here(f"{indexed.url}/dotted") as folder:
        assert [path.name for path in Path(folder).rglob("*") if path.is_file()] == ["manifest.json"]
