"""Text that is taken down stays out, gives back what it had displaced, and leaves a trail from one mix to the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import oracle
import pytest
from corpus import Truth, minimal_config, write_corpus
from runs import PublishedMix, Told, anchormix

from pipeline.mix_folder import MixFolder
from transforms import documents, files

TAKE_ALL = {"floors": {"human_verified": 0}, "shards": 2, "row_group": 16}
"""With no binding rule a mix takes every survivor, so that what left and what came is dedup's doing alone."""


class Project:
    """A corpus whose verified documents have planted copies, and its first mix."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.truth: Truth = write_corpus(folder, verified=30, believed=6, unknown=8, synthetic=6, exact=5, near=9)
        self.config = minimal_config(folder, mix=TAKE_ALL)
        assert self.run("run", "first").exit == 0

    def run(self, command: str, output: str, **changes: Any) -> Told:
        settings = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in changes.items()]
        sets = [word for setting in [f"output=out/{output}", *settings] for word in ("--set", setting)]
        return anchormix(command, self.config, *sets)

    def mix(self, name: str) -> PublishedMix:
        return PublishedMix(self.folder / "out" / name)

    def expected(self, *exclude: dict[str, Any]) -> dict[str, oracle.Expected]:
        """What a mix that takes all holds by the oracle, by id."""
        config = minimal_config(self.folder, mix=TAKE_ALL, exclude=list(exclude))
        found = oracle.expect(config).values()
        self.config = minimal_config(self.folder, mix=TAKE_ALL)
        return {document.id: document for document in found if document.fate == "kept"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("takedown"))


@pytest.fixture(scope="module")
def taken_down(project: Project) -> dict[str, Any]:
    """The second mix, without some verified documents that had displaced others, named by their own ids."""
    near = [copy for copy in project.truth.near if copy.similarity >= 0.8][:3]
    exact = project.truth.exact[:2]
    rule = {"doc_ids": [copy.of_id for copy in (*near, *exact)], "reason": "taken down by its author"}
    read: list[str] = []
    opened = files.open_input

    def counting(path: str, *rest: Any) -> Any:
        read.append(path)
        return opened(path, *rest)

    with pytest.MonkeyPatch.context() as patch:
        for module in (files, documents):
            if hasattr(module, "open_input"):
                patch.setattr(module, "open_input", counting)
        told = project.run("index", "second", exclude=[rule])
        while_indexing = [path for path in read if "/shards/" in path]
        read.clear()
        mixed = project.run("mix", "second", exclude=[rule], mix__parent="out/first")
        while_mixing = [path for path in read if "/shards/" in path]
    assert told.exit == mixed.exit == 0, told.stderr + mixed.stderr
    return {
        **{"rule": rule, "near": near, "exact": exact, "rebuilt": told.line["rebuilt"], "told": mixed},
        **{"while_indexing": while_indexing, "while_mixing": while_mixing},
    }


def test_an_exclusion_settles_fates_and_reads_no_text(taken_down: dict[str, Any]) -> None:
    assert taken_down["rebuilt"] == ["fates"]
    assert taken_down["while_indexing"] == []
    assert taken_down["while_mixing"], "the count of what is read counts something"


def test_what_it_had_displaced_comes_back(project: Project, taken_down: dict[str, Any]) -> None:
    before, after = project.expected(), project.expected(taken_down["rule"])
    old, new = ({row["id"]: row for row in project.mix(name).documents.values()} for name in ("first", "second"))
    assert (old.keys(), new.keys()) == (before.keys(), after.keys())
    doc_ids = {row["id"]: row["doc_id"] for row in (*old.values(), *new.values())}
    came = {doc_ids[name] for name in new.keys() - old.keys()}
    assert came == {copy.id for copy in taken_down["near"]}, "near-duplicates that it was the witness of"
    left = {doc_ids[name] for name in old.keys() - new.keys()}
    assert left == {copy.of_id for copy in taken_down["near"]}
    for copy in taken_down["exact"]:
        (row,) = (row for row in new.values() if row["doc_id"] == copy.id)
        assert row["provenance"] == "unknown", "a copy inherits nothing from the document that had its place"
    assert anchormix("verify", project.mix("second").folder).exit == 0


def test_diff_proves_what_left_and_what_came_back(project: Project, taken_down: dict[str, Any]) -> None:
    told = anchormix("diff", project.mix("first").folder, project.mix("second").folder)
    assert told.exit == 0, told.stderr
    assert told.line["succeeds"] is True
    near, exact = (len(taken_down[kind]) for kind in ("near", "exact"))
    human = told.line["human"]
    assert (human["taken_down"]["documents"], human["lost"]["documents"]) == (near + exact, 0)
    assert {entry["reason"] for entry in human["gone"]} == {"taken down by its author"}
    (came,) = told.line["documents"]["came"]
    assert (came["source"], came["why"], came["documents"]) == ("web", "near_duplicate", near)
    assert sum(entry["documents"] for entry in told.line["documents"]["left"]) == near
    assert sum(entry["documents"] for entry in told.line["documents"]["remained"]) == exact
    assert any("exclude its `ids`" in note for note in told.line["notes"])


def test_texts_that_other_documents_still_have_are_told(project: Project, taken_down: dict[str, Any]) -> None:
    (note,) = (note for note in project.mix("second").manifest["notes"] if note.startswith("exclude:"))
    assert f"{len(taken_down['exact'])} texts are excluded in one place and in the mix from another" in note


def test_an_exclusion_for_which_nobody_gave_a_reason_is_a_loss(project: Project, taken_down: dict[str, Any]) -> None:
    rule = {"doc_ids": taken_down["rule"]["doc_ids"]}
    assert project.run("run", "unstated", exclude=[rule]).exit == 0
    told = anchormix("diff", project.mix("first").folder, project.mix("unstated").folder)
    assert (told.exit, told.code) == (4, "human_text_lost")
    assert told.details["human"]["lost"]["documents"] == len(rule["doc_ids"])


def test_the_trail_names_the_reason(project: Project, taken_down: dict[str, Any]) -> None:
    mix = project.mix("second")
    gone = [row for row in mix.dropped.values() if row["fate"] == "excluded"]
    assert {row["doc_id"] for row in gone} == set(taken_down["rule"]["doc_ids"])
    assert {row["reason"] for row in gone} == {"taken down by its author"}
    told = anchormix("explain", mix.folder, "--doc-id", taken_down["near"][0].of_id)
    (entry,) = told.line["documents"]
    assert (entry["fate"], entry["reason"]) == ("excluded", "taken down by its author")


def test_the_manifest_names_its_parent(project: Project, taken_down: dict[str, Any]) -> None:
    parent, mix = MixFolder.open(project.mix("first").folder), project.mix("second")
    assert mix.manifest["parent"] == parent.identity == taken_down["told"].line["parent"]
    succession = mix.manifest["succession"]
    assert succession["taken_down"]["documents"] == len(taken_down["rule"]["doc_ids"])
    assert succession["lost"] == {"documents": 0, "tokens": 0}
    assert str(project.folder) not in (mix.folder / "manifest.json").read_text()
    run = json.loads((mix.folder / "run.json").read_bytes())
    assert run["parent"]["path"] == str(parent.path)
    assert "Since the parent" in (mix.folder / "report.html").read_text(encoding="utf-8")
    assert project.mix("first").manifest["parent"] is None
    again = project.run("mix", "second", exclude=[taken_down["rule"]], mix__parent="out/first")
    assert again.line["status"] == "unchanged"
    moved = project.run("mix", "second", exclude=[taken_down["rule"]])
    assert moved.code == "output_exists", "a mix with a parent is another one than a mix without"


def test_ids_take_every_copy_down(project: Project) -> None:
    copy = project.truth.exact[0]
    text = next(row["text"] for row in project.truth.rows["press"] if row["id"] == copy.of_id)
    name = next(row["id"] for row in project.mix("first").rows if row["text"] == text)
    assert project.run("run", "by_id", exclude=[{"ids": [name], "reason": "court order"}]).exit == 0
    mix = project.mix("by_id")
    assert not [note for note in mix.manifest["notes"] if note.startswith("exclude")]
    assert name not in {row["id"] for row in mix.rows}
    gone = {row["doc_id"] for row in mix.dropped.values() if row["reason"] == "court order"}
    assert gone == {copy.of_id, copy.id}


SELECTORS: list[dict[str, Any]] = [{"source": "letters"}, {"generator": "parrot-1b"}, {"doc_ids": "press-3"}]


def test_every_later_mix_does_without(project: Project) -> None:
    rules = [{**rule, "reason": f"rule {number}"} for number, rule in enumerate(SELECTORS)]
    for name, changes in (("a", {"seed": 5, "mix__size": 900}), ("b", {"mix__epochs": {"human_verified": 3}})):
        assert project.run("run", f"later-{name}", exclude=rules, **changes).exit == 0
        for row in project.mix(f"later-{name}").rows:
            assert row["source"] != "letters"
            assert row["generator"] != "parrot-1b"
            assert row["doc_id"] != "press-3"


def test_the_order_of_exclusions_means_nothing(project: Project) -> None:
    rules = [{"doc_ids": ["press-1"]}, {"source": "press", "reason": "b"}, {"ids": ["0" * 32], "reason": "a"}]
    assert project.run("run", "in-order", exclude=rules).exit == 0
    reversed_rules = project.run("run", "reversed", exclude=rules[::-1])
    assert reversed_rules.line["rebuilt"] == []
    reasons = [
        {row["doc_id"]: row["reason"] for row in project.mix(n).dropped.values()} for n in ("in-order", "reversed")
    ]
    assert reasons[0] == reasons[1]
    assert reasons[0]["press-1"] == "b", "of two rules the one with a reason is told"


def test_exclusions_of_nothing_are_told(project: Project) -> None:
    rules = [
        {"doc_ids": ["press-1", "pres-2", "pres-3"], "reason": "asked"},
        {"generator": "parrot", "reason": "license"},
        {"ids": ["ab" * 16]},
        {"source": "web"},
    ]
    assert project.run("run", "nothing", exclude=rules).exit == 0
    notes = [note for note in project.mix("nothing").manifest["notes"] if note.startswith("exclude[")]
    assert sorted(notes) == [
        "exclude[0].doc_ids (asked): 2 of 3 doc_ids are of no document here: pres-2, pres-3",
        "exclude[1] (license): no document here is of it, so it excludes nothing",
        f"exclude[2].ids (excluded): this id is of no document here: {'ab' * 16}",
    ]


def test_the_floor_is_held_or_the_run_refuses(project: Project) -> None:
    floor = {"human_verified": 0.5}
    few = {"doc_ids": ["press-1", "press-2"], "reason": "asked"}
    assert project.run("run", "held", mix__floors=floor, exclude=[few]).exit == 0
    whole = {"source": "press", "reason": "licence ended"}
    refused = project.run("run", "refused", mix__floors=floor, exclude=[whole], mix__parent="out/first")
    assert refused.exit == 3
    assert "the config takes it out: look at exclude, which leaves out 30 of press" in refused.message
    assert refused.details["advice"] in refused.message
    assert "Give a source custody" not in refused.message
    assert not (project.folder / "out/refused").exists()


# Parents


def test_lost_human_text_of_the_parent_is_a_warning(project: Project) -> None:
    told = project.run("run", "smaller", mix__size=500, mix__parent="out/first")
    assert told.exit == 0
    succession = told.line["succession"]
    assert succession["lost"]["documents"] > 0
    assert {entry["why"] for entry in succession["gone"]} == {"not_selected"}
    (note,) = (note for note in project.mix("smaller").manifest["notes"] if note.startswith("parent:"))
    assert f"{succession['lost']['documents']:,} of {succession['old']['documents']:,} documents" in note
    compared = anchormix("diff", project.mix("first").folder, project.mix("smaller").folder)
    assert compared.exit == 4
    assert compared.details["human"]["gone"] == succession["gone"]


def test_a_run_can_be_stopped_by_what_its_parent_would_lose(project: Project) -> None:
    lossy = {"mix__size": 500, "mix__parent": "out/first"}
    told = project.run("run", "guarded", mix__max_human_loss=0.1, **lossy)
    assert (told.exit, told.code) == (6, "human_text_lost")
    assert "mix.max_human_loss allows 0.1" in told.message
    assert not (project.folder / "out/guarded").exists()
    alone = project.run("check", "guarded", mix__max_human_loss=0.1)
    assert (alone.exit, alone.details["key"]) == (2, "mix.max_human_loss")


def test_a_parent_is_a_published_mix(project: Project, tmp_path: Path) -> None:
    told = project.run("check", "next", mix__parent="out/first")
    assert told.line["parent"] == MixFolder.open(project.mix("first").folder).identity
    for command in ("check", "run"):
        for parent in ("out/none", str(tmp_path), "s3://bucket/mix"):
            wrong = project.run(command, "next", mix__parent=parent)
            assert (wrong.exit, wrong.details["key"]) == (2, "mix.parent")
            assert wrong.message.startswith("mix.parent: ")
    assert project.run("index", "next").exit == 0
    planned = project.run("plan", "next", mix__parent="out/first")
    assert planned.line["parent"] == told.line["parent"], planned.stderr
    wrong = project.run("plan", "next", mix__parent="out/none")
    assert (wrong.exit, wrong.details["key"]) == (2, "mix.parent")
    itself = project.run("check", "first", mix__parent="out/first")
    assert (itself.exit, itself.details["key"]) == (2, "mix.parent")
