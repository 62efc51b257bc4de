"""The index: what each key and file invalidates, nothing more; an updated index equals a fresh one; damage is seen."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corpus
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import driver
from pipeline.config import load_config
from pipeline.errors import AnchormixError
from pipeline.index import Index

ALL = ["facts", "edges", "fates"]
ONE_WORKER = ("--direct_num_workers=1",)

Change = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Project:
    """A folder with shards, keys, a config and an index that is up to date with them."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "mix.yaml"

    @property
    def index(self) -> Path:
        return self.folder / "out" / "index"

    def change(self, change: Change) -> None:
        content = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        change(content)
        self.config.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    def rebuild(self) -> list[str]:
        """The layers that bringing the index up to date had to build."""
        rebuilt: list[str] = driver.bring_up_to_date(load_config(self.config), ONE_WORKER, True).details["rebuilt"]
        return rebuilt

    def mix(self, name: str, index: str | None = None) -> dict[str, bytes]:
        """A mix made from the index as it is, or from `index`, which is then built."""
        overrides = [f"output={self.folder / name}", *([f"index={self.folder / index}"] if index else [])]
        make = driver.run if index else driver.mix
        make(load_config(self.config, overrides), ONE_WORKER, True, [])
        found = [self.folder / name / "manifest.json", *sorted((self.folder / name / "data").iterdir())]
        return {path.name: path.read_bytes() for path in found}

    def sidecars(self) -> dict[str, tuple[int, int]]:
        """When each facts sidecar was written, and as which file."""
        paths = (self.index / "facts").glob("*/*")
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in paths}

    def shards_of(self, sidecars: set[str]) -> set[str]:
        ledger = json.loads((self.index / "facts.json").read_bytes())["shards"]
        entries = [ledger[Path(path).parent.name] for path in sidecars]
        return {f"{entry['source']}/{entry['shard']}" for entry in entries}


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("indexed")
    corpus.write_corpus(folder, verified=30, believed=8, unknown=16, synthetic=8, exact=4, near=6, empty=2)
    corpus.minimal_config(folder)
    project = Project(folder)
    assert project.rebuild() == ALL
    return project


@pytest.fixture
def project(indexed: Project, tmp_path: Path) -> Iterator[Project]:
    """The indexed project, put aside and put back, because an index knows its shards by their absolute paths."""
    shutil.copytree(indexed.folder, tmp_path / "aside", dirs_exist_ok=True)
    yield indexed
    shutil.rmtree(indexed.folder)
    shutil.copytree(tmp_path / "aside", indexed.folder)


def setting(path: str, value: Any) -> Change:
    """A change of one key; `sources.NAME` finds a source by its name."""

    def change(content: dict[str, Any]) -> None:
        *above, last = path.split(".")
        for name in above:
            if isinstance(content, list):
                content = next(item for item in content if item["name"] == name)
            else:
                content = content.setdefault(name, {})
        content[last] = value

    return change


# Keys


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mix.floors.human_verified", 0.3),
        ("mix.caps", {"synthetic": 0.1}),
        ("mix.size", 900),
        ("mix.shards", 1),
        ("seed", 8),
        ("output", "out/other"),
        ("dedup.wipe_out", 1),
        ("evidence.max_contested", 1),
        ("max_bad_records", 5),
        ("sources.web.optional", True),
        ("sources.web.files", ["shards/web/*.csv", "shards/web/*.parquet"]),
    ],
)
def test_what_only_a_mix_depends_on_builds_nothing(key: str, value: Any, project: Project) -> None:
    before = project.sidecars()
    project.change(setting(key, value))
    assert project.rebuild() == []
    assert project.sidecars() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trust.revoked", ["desk"]),
        ("as_of", "2026-11-20"),
        ("sources.web.declare", "ai_assisted"),
        ("sources.web.priority", 3),
        ("sources.bot.synthetic", {"generator": "parrot-2b", "kind": "rephrase"}),
        ("sources.letters.labels", {"en": "human"}),
        ("exclude", [{"doc_ids": ["press-3"], "reason": "taken down"}]),
    ],
)
def test_trust_tags_and_take_downs_read_no_text(key: str, value: Any, project: Project) -> None:
    if key.endswith("labels"):
        project.change(setting("sources.letters.columns", {"label": "language"}))
        project.change(setting("sources.letters.labels", {"en": "unknown"}))
        project.rebuild()
    before = project.sidecars()
    project.change(setting(key, value))
    assert project.rebuild() == ["fates"]
    assert project.sidecars() == before
    assert project.rebuild() == []


@pytest.mark.slow
def test_the_threshold_reads_candidates_only(project: Project) -> None:
    before = project.sidecars()
    project.change(setting("dedup.threshold", 0.9))
    assert project.rebuild() == ["edges", "fates"]
    assert project.sidecars() == before
    project.change(setting("dedup.threshold", 0.8))
    assert project.rebuild() == [], "what was built for the first threshold still stands"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "sources"),
    [
        ("sources.letters.columns", {"language": None}, {"letters"}),
        ("sources.web.keep", {"tongue": "language"}, {"web"}),
        ("dedup.shingle", 4, set(corpus.PROVENANCE)),
        ("dedup.permutations", 64, set(corpus.PROVENANCE)),
        ("evidence.artefacts", False, set(corpus.PROVENANCE)),
    ],
)
def test_what_facts_hold_is_read_again_where_it_changed(
    key: str, value: Any, sources: set[str], project: Project
) -> None:
    before = project.sidecars()
    project.change(setting(key, value))
    assert project.rebuild() == ALL
    after = project.sidecars()
    written = project.shards_of({path for path in after if after[path] != before.get(path)})
    assert {shard.split("/")[0] for shard in written} == sources
    assert before.items() <= after.items(), "facts that are still right stay as they are"


# Shards


def rows_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def add_shard(project: Project) -> None:
    rows = rows_of(project.folder / "shards/web/web-0.parquet")[:9]
    pq.write_table(
        pa.Table.from_pylist([{**row, "id": f"new-{row['id']}"} for row in rows]),
        project.folder / "shards/web/web-2.parquet",
    )


def replace_shard(project: Project) -> None:
    path = project.folder / "shards/web/web-0.parquet"
    rows = rows_of(path)
    rows[0]["text"] = "An entirely new page stands where another one stood before, and nobody has read it yet."
    pq.write_table(pa.Table.from_pylist(rows), path)


def remove_shard(project: Project) -> None:
    (project.folder / "shards/web/web-1.csv").unlink()
    project.change(setting("sources.web.files", ["shards/web/*.parquet"]))


def touch_shard(project: Project) -> None:
    os.utime(project.folder / "shards/press/press-1.parquet", (1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("happens", "rebuilt", "read_again"),
    [
        (add_shard, ALL, {"web/web-2.parquet"}),
        (replace_shard, ALL, {"web/web-0.parquet"}),
        (remove_shard, ["edges", "fates"], set()),
        (touch_shard, ALL, {"press/press-1.parquet"}),
    ],
)
def test_only_changed_shards_are_read_and_an_updated_index_equals_a_fresh_one(
    happens: Callable[[Project], None], rebuilt: list[str], read_again: set[str], project: Project
) -> None:
    before = project.sidecars()
    happens(project)
    assert project.rebuild() == rebuilt
    after = project.sidecars()
    assert project.shards_of({path for path in after if after[path] != before.get(path)}) == read_again
    assert before.items() <= after.items()
    assert project.mix("updated") == project.mix("fresh", index="fresh.index")


@pytest.mark.slow
def test_several_mixes_come_from_one_index(project: Project) -> None:
    floors = (0.3, 0.5, 0.7)
    mixes = []
    for floor in floors:
        project.change(setting("mix.floors.human_verified", floor))
        assert project.rebuild() == []
        mixes.append(project.mix(f"mix-{floor}"))
    shares = []
    for mix in mixes:
        manifest = json.loads(mix["manifest.json"])
        verified = manifest["provenance"]["by_provenance"]["human_verified"]["tokens"]
        shares.append(verified / manifest["totals"]["tokens"])
    assert all(share >= floor for share, floor in zip(shares, floors, strict=True))
    assert shares == sorted(shares)


@pytest.mark.slow
@pytest.mark.parametrize("command", [driver.mix, driver.run])
def test_text_that_changed_behind_the_indexs_back_is_never_mixed(command: Any, project: Project) -> None:
    path = project.folder / "shards/letters/letters-0.jsonl.gz"
    other = project.folder / "shards/bot/bot-0.jsonl.zst"
    for shard in (path, other):
        stat = shard.stat()
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 0xFF
        shard.write_bytes(data)
        os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(AnchormixError) as caught:
        command(load_config(project.config), ONE_WORKER, True, [])
    assert (caught.value.exit_code, caught.value.code) == (5, "input_changed")
    assert "input changed since the index" in caught.value.message
    assert str(other) in caught.value.message
    assert not (project.folder / "out" / "mix").exists()
    with pytest.raises(AnchormixError) as caught:
        command(load_config(project.config), ONE_WORKER, True, [])
    expected = "stale_index" if command is driver.mix else "bad_records"
    assert caught.value.code == expected, "what changed is read anew, or asked to be"


def test_the_same_command_again_mixes_what_a_changed_file_holds_now(project: Project) -> None:
    path = project.folder / "shards/web/web-1.csv"
    stat, text = path.stat(), path.read_bytes().decode()
    last = text.rindex("。")
    path.write_text(f"{text[: last - 1]}一{text[last:]}", encoding="utf-8", newline="")
    assert path.stat().st_size == stat.st_size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(AnchormixError, match="Run the same command again") as caught:
        project.mix("again", index="out/index")
    assert (caught.value.exit_code, caught.value.code) == (5, "input_changed")
    assert project.mix("again", index="out/index") == project.mix("anew", index="other-index")


# Damage


def parts(project: Project, layer: str) -> list[Path]:
    return sorted((project.index / layer).glob("*/*.parquet"))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def grow(path: Path) -> None:
    """Still a Parquet file to who reads its footer alone."""
    path.write_bytes(b"junk" + path.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("damage", [Path.unlink, cut_short, grow])
def test_damaged_facts_are_read_again(damage: Callable[[Path], None], project: Project) -> None:
    path = parts(project, "facts")[0]
    shard = project.shards_of({str(path)})
    whole, before = path.read_bytes(), project.sidecars()
    damage(path)
    with pytest.raises(AnchormixError) as caught:
        driver.plan(load_config(project.config), ONE_WORKER, True)
    assert (caught.value.exit_code, caught.value.code) == (2, "stale_index")
    assert project.rebuild() == ["facts"], "the same facts make the same edges"
    after = project.sidecars()
    assert project.shards_of({name for name in after if after[name] != before[name]}) == shard
    assert pq.read_table(path).equals(pq.read_table(pa.BufferReader(whole)))


def test_missing_accumulators_are_made_again(project: Project) -> None:
    path = next((project.index / "facts").glob("*/*.diversity"))
    whole = path.read_bytes()
    path.unlink()
    assert project.rebuild() == ["facts"]
    assert path.read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "rebuilt"), [("edges", ["edges"]), ("fates", ["fates"])])
@pytest.mark.parametrize("damage", [Path.unlink, cut_short])
def test_a_damaged_layer_is_built_again(
    damage: Callable[[Path], None], layer: str, rebuilt: list[str], project: Project
) -> None:
    damage(parts(project, layer)[0])
    with pytest.raises(AnchormixError, match="files of it are gone"):
        driver.plan(load_config(project.config), ONE_WORKER, True)
    assert project.rebuild() == rebuilt
    assert project.rebuild() == []


def test_a_layer_without_its_last_word_does_not_exist(project: Project) -> None:
    (done,) = (project.index / "fates").glob("*/_DONE.json")
    names = set(json.loads(done.read_bytes())["files"])
    (done.parent / "fates-00000-ffffffffffff.parquet").write_bytes(b"of an attempt that died")
    done.unlink()
    assert project.rebuild() == ["fates"]
    standing = {path.name for path in done.parent.iterdir()}
    assert standing == {"_DONE.json", *json.loads(done.read_bytes())["files"]}
    assert not standing & names, "litter of the dead attempt is gone"


@pytest.mark.parametrize("name", ["facts.json", "fates/*/_DONE.json"])
@pytest.mark.parametrize("content", [b"", b'{"format": 1, "sha', b'{"format": 99}', b"[]"])
def test_a_ledger_that_cannot_be_read_is_said_with_its_path(name: str, content: bytes, project: Project) -> None:
    (path,) = project.index.glob(name)
    path.write_bytes(content)
    with pytest.raises(AnchormixError) as caught:
        project.rebuild()
    assert (caught.value.exit_code, caught.value.code) == (2, "index_unreadable")
    assert str(path) in caught.value.message


def test_commands_that_never_index_say_what_to_run(project: Project) -> None:
    shutil.rmtree(project.index)
    before = sorted(project.folder.rglob("*"))
    for command, more in ((driver.plan, ()), (driver.mix, ([],))):
        with pytest.raises(AnchormixError, match="anchormix index") as caught:
            command(load_config(project.config), ONE_WORKER, True, *more)
        assert (caught.value.exit_code, caught.value.code) == (2, "stale_index")
    assert sorted(project.folder.rglob("*")) == before, "nor do they make folders"


# The lease


def test_a_second_run_is_refused_and_the_first_one_named(tmp_path: Path) -> None:
    index = Index(str(tmp_path / "index"))
    with index.lease():
        with pytest.raises(AnchormixError) as caught, Index(index.root).lease():
            pass
        assert (caught.value.exit_code, caught.value.code) == (2, "index_locked")
        assert f"process {os.getpid()}" in caught.value.message
    with index.lease():
        pass


def test_an_index_may_lie_where_globs_would_mislead(tmp_path: Path) -> None:
    index = Index(str(tmp_path / "mix [v*]"))
    index.clear_layer("edges", "key")
    Path(index.path("edges", "key", "a.parquet")).write_bytes(b"12345")
    index.finish_layer("edges", "key", {"parts": [{"file": "a.parquet"}]})
    found = index.layer("edges", "key")
    assert found is not None
    assert found["files"] == {"a.parquet": 5}
