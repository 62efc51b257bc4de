"""Detectors in whole runs: they demote and never promote, custody is contested, and what is wrong is a diagnosis."""

from __future__ import annotations

import json
import random
import stat
import sys
from pathlib import Path
from typing import Any

import corpus
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml  # type: ignore[import-untyped]
from projects import index, run, write_project
from runs import PublishedMix, anchormix

from pipeline.attest import attest, write_keypair
from transforms.kernels.detection import Calibration
from transforms.kernels.detectors import describe
from transforms.kernels.schemas import Provenance
from transforms.kernels.watermark import WatermarkKey, count_green_ids, green_words

WORDS = 150
HUMANS = 1200
ORDER = [provenance.label for provenance in Provenance]


def texts(seed: int, count: int, words: int = WORDS) -> list[str]:
    rng = random.Random(seed)
    return [corpus.make_document(rng, words).text for _ in range(count)]


def write_calibration(
    path: Path, target: str, scores: np.ndarray, words: int = WORDS, language: str | None = None
) -> None:
    """Human scores of one language and length."""
    spec = describe(target, target)
    languages = pa.array([language] * len(scores), pa.string())
    made = Calibration.of(spec.digest, languages, np.full(len(scores), WORDS), scores, np.arange(len(scores)))
    path.write_bytes(made.to_bytes())


def write_plugin(folder: Path, name: str, body: str, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / f"{name}.py").write_text(body, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setitem(sys.modules, name, None)  # forgotten at the end of the test
    del sys.modules[name]
    return f"{name}:score"


def scored(folder: Path, rows: dict[str, list[dict[str, Any]]], detectors: list[Any], **changes: Any) -> Path:
    """A project whose sources have score columns."""
    config = write_project(folder, {name: [row["text"] for row in held] for name, held in rows.items()}, **changes)
    for name, held in rows.items():
        lines = [json.dumps({"id": f"{name}-{place}", **row}) for place, row in enumerate(held)]
        (folder / name / "part.jsonl").write_text("\n".join(lines) + "\n")
    told = yaml.safe_load(config.read_text())
    told.setdefault("evidence", {})["detectors"] = detectors
    config.write_text(yaml.safe_dump(told))
    return config


def pieces(row: dict[str, Any]) -> list[dict[str, str]]:
    return [entry for entry in row["evidence"] if entry["kind"] == "detector"]


def by_id(mix: PublishedMix) -> dict[str, dict[str, Any]]:
    return {row["doc_id"]: row for row in mix.rows}


def column_project(folder: Path, **entry: Any) -> Path:
    """Three sources, in each one document that scores high among those that do not; calibrated on a thousand humans."""
    folder.mkdir(exist_ok=True)
    write_calibration(folder / "human.json", "ai.score", np.linspace(0, 1, HUMANS))
    rows = {
        name: [
            {"text": text, "ai": {"score": 9.5 if place == 0 else 0.5 if place < 4 else None}}
            for place, text in enumerate(texts(seed, 5))
        ]
        for seed, name in enumerate(["human", "web", "ai_assisted"])
    }
    rows["web"].append({"text": texts(9, 1, 40)[0], "ai": {"score": 9.5}})  # too short to be judged
    return scored(folder, rows, [{"detector": "ai.score", "calibration": "human.json", **entry}])


def test_a_score_column_demotes_what_no_human_text_scores(tmp_path: Path) -> None:
    mix = run(column_project(tmp_path))
    rows = by_id(mix)
    assert len(rows) == 16
    for name in ("human", "web", "ai_assisted"):
        flagged = rows[f"{name}-0"]
        assert flagged["provenance"] == "synthetic"
        (piece,) = pieces(flagged)
        assert piece["rule"] == "evidence.detectors.ai.score"
        assert piece["strength"] == "detected"
        assert piece["detail"] == (
            "classifier column: score 9.5, p 0.00083 against 1200 human documents of 128 to 255 words, language unknown"
        )
        for place in range(1, 5):
            row = rows[f"{name}-{place}"]
            assert (row["provenance"], pieces(row)) == ({"web": "unknown"}.get(name, name), [])
    assert rows["web-5"]["provenance"] == "unknown"
    notes = [note for note in mix.manifest["notes"] if note.startswith("evidence.detectors")]
    assert notes == [
        "evidence.detectors.ai.score: abstains on 4 of 16 documents: 3 have no score; 1 have fewer than 128 words"
    ]


def test_check_shows_what_detectors_would_do(tmp_path: Path) -> None:
    told = anchormix("check", column_project(tmp_path))
    assert told.exit == 0, told.stderr
    for look in told.line["sources"]:
        before = "unknown" if look["source"] == "web" else look["source"]
        assert [row["tag"] for row in look["rows"]] == ["synthetic", before, before]
        assert "evidence.detectors.ai.score" in look["rows"][0]["evidence"]


def test_thin_calibration_abstains(tmp_path: Path) -> None:
    config = column_project(tmp_path, alpha=0.0005)
    mix = run(config)
    assert not any(pieces(row) for row in mix.rows)
    assert any("fewer than 1,999 human documents in the calibration" in note for note in mix.manifest["notes"])


def test_a_detector_without_calibration_says_nothing(tmp_path: Path) -> None:
    config = scored(tmp_path, {"human": [{"text": text, "ai": 99} for text in texts(1, 3)]}, ["ai"])
    mix = run(config)
    assert {row["provenance"] for row in mix.rows} == {"human"}
    assert any("has no calibration" in note for note in mix.manifest["notes"])


def test_layers_follow_what_changed(tmp_path: Path) -> None:
    config = column_project(tmp_path)

    def rebuilt(*overrides: str) -> list[str]:
        told = anchormix("index", config, *(word for override in overrides for word in ("--set", override)))
        assert told.exit == 0, told.stderr
        return list(told.line["rebuilt"])

    assert rebuilt() == ["facts", "edges", "fates"]
    assert rebuilt() == []
    assert rebuilt("evidence.detectors.0.alpha=0.002") == ["fates"]
    assert rebuilt("evidence.detectors.0.min_words=100") == ["fates"]
    write_calibration(tmp_path / "human.json", "ai.score", np.linspace(0, 2, HUMANS))
    assert rebuilt() == ["fates"]
    assert rebuilt("evidence.detectors.0.name=other") == ["facts", "edges", "fates"]
    assert rebuilt("evidence.detectors=") == ["facts", "edges", "fates"]


def test_custody_is_contested_not_demoted_and_the_guard_counts_it(tmp_path: Path) -> None:
    config = column_project(tmp_path)
    write_keypair(tmp_path / "desk")
    attest([str(tmp_path / "human/part.jsonl")], tmp_path / "desk.key", "licensed_source", tmp_path / "custody.json")
    told = yaml.safe_load(config.read_text())
    told["sources"][0]["custody"] = {"method": "licensed_source", "manifest": "custody.json"}
    told["trust"] = {"keys": [{"name": "desk", "public_key": "desk.pub"}]}
    config.write_text(yaml.safe_dump(told))
    stopped = anchormix("run", config)
    assert (stopped.exit, stopped.code) == (6, "contested_custody")
    told["evidence"]["max_contested"] = 0.5
    config.write_text(yaml.safe_dump(told))
    mix = run(config)
    held = [row for row in mix.rows if row["source"] == "human"]
    assert [row["provenance"] for row in held] == ["human_verified"] * 5
    assert mix.manifest["contested"]["documents"] == 1
    (flagged,) = (row for row in held if pieces(row))
    assert [entry["kind"] for entry in flagged["evidence"]] == ["custody", "source", "detector"]


@pytest.mark.parametrize("seed", range(3))
def test_detectors_only_demote(seed: int, tmp_path: Path) -> None:
    """Whatever two columns say, each document is what it was, or synthetic; nothing becomes more human."""
    rng = np.random.default_rng(seed)
    for name in ("one", "two"):
        write_calibration(tmp_path / f"{name}.json", name, rng.normal(size=HUMANS), language="en")
    rows = {
        name: [
            {"text": text, "lang": "en", "one": float(one), "two": float(two), "generator": generator}
            for text, one, two, generator in zip(
                texts(10 * seed + place, 12),
                rng.choice([-1e9, 0, 9], 12),
                rng.choice([-1e9, 0, 9], 12),
                rng.choice(["", "human", "gpt-4"], 12).tolist(),
                strict=True,
            )
        ]
        for place, name in enumerate(["human", "web", "ai_assisted"])
    }
    entries = [{"detector": name, "calibration": f"{name}.json", "alpha": 0.01} for name in ("one", "two")]
    (tmp_path / "without").mkdir()
    with_them = by_id(run(scored(tmp_path, rows, entries)))
    without = by_id(run(scored(tmp_path / "without", rows, [])))
    assert with_them.keys() == without.keys()
    demoted = 0
    for name, row in with_them.items():
        source, place = name.rsplit("-", 1)
        given = rows[source][int(place)]
        before, after = without[name]["provenance"], row["provenance"]
        spoken = [key for key in ("one", "two") if given[key] == 9]
        assert [piece["rule"].removeprefix("evidence.detectors.") for piece in pieces(row)] == spoken
        assert after == before or (spoken and after == "synthetic")
        assert ORDER.index(after) >= ORDER.index(before)
        demoted += after != before
    assert demoted


def marked_text(key: WatermarkKey, rng: random.Random, words: int) -> str:
    """What a generator that holds the key writes: of eight words that come to mind, mostly a green one."""
    vocabulary = corpus.vocabulary("en")
    out: list[str] = []
    while len(out) < words:
        choices = rng.sample(vocabulary, 8)
        green = green_words(key, out, choices)
        preferred = [word for word, is_green in zip(choices, green, strict=True) if is_green]
        out.append(rng.choice(preferred) if preferred and rng.random() < 0.8 else choices[0])
    return " ".join(out)


@pytest.mark.parametrize("scheme", ["unigram", "kgw"])
def test_the_holder_of_a_watermark_key_finds_what_it_marked(scheme: str, tmp_path: Path) -> None:
    told = anchormix("detector", "key", tmp_path / "mark.key", "--scheme", scheme, "--gamma", "1/4")
    assert told.exit == 0
    assert stat.S_IMODE((tmp_path / "mark.key").stat().st_mode) == 0o600
    assert anchormix("detector", "key", tmp_path / "mark.key").code == "file_exists"
    key = WatermarkKey.from_bytes((tmp_path / "mark.key").read_bytes())
    rng = random.Random(4)
    rows = {
        "human": [{"text": text} for text in texts(5, 10)] + [{"text": marked_text(key, rng, 200)}],
        "web": [{"text": marked_text(key, rng, 200)}],
    }
    config = scored(tmp_path, rows, [{"detector": "watermark", "model": "mark.key", "alpha": 1e-6}])
    mix = run(config)
    found = {name: row for name, row in by_id(mix).items() if pieces(row)}
    assert set(found) == {"human-10", "web-0"}
    for row in found.values():
        (piece,) = pieces(row)
        assert (row["provenance"], piece["strength"]) == ("synthetic", "proof")
        assert piece["detail"].startswith(f"watermark {scheme}-")
    secret = key.key.hex().encode()
    for path in [*(tmp_path / "out").rglob("*")]:
        assert not path.is_file() or (secret not in path.read_bytes() and key.key not in path.read_bytes())


def test_a_key_may_count_the_units_of_a_tokenizer(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = sorted(corpus.vocabulary("en"))
    model = tokenizers.models.WordLevel({word: place for place, word in enumerate(["?", *vocabulary])}, "?")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    (tmp_path / "keys").mkdir()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    made = anchormix(
        *("detector", "key", tmp_path / "keys" / "mark.key", "--scheme", "kgw", "--context", "1"),
        *("--tokenizer", tmp_path / "tokenizer.json"),
    )
    assert made.exit == 0, made.stderr
    key = WatermarkKey.from_bytes((tmp_path / "keys" / "mark.key").read_bytes())
    assert key.tokenizer == "../tokenizer.json"
    rng = random.Random(2)
    words = [rng.choice(vocabulary)]
    while len(words) < 200:
        choices = rng.sample(vocabulary, 4)
        ids = np.array([[tokenizer.token_to_id(words[-1]), tokenizer.token_to_id(word)] for word in choices], np.uint32)
        green = count_green_ids(ids.ravel(), np.arange(0, 10, 2), key).green
        words.append(choices[int(green.argmax())])
    rows = {"human": [{"text": text} for text in (" ".join(words), *texts(1, 3))]}
    mix = run(scored(tmp_path, rows, [{"detector": "watermark", "model": "keys/mark.key"}]))
    assert {name for name, row in by_id(mix).items() if pieces(row)} == {"human-0"}
    (tmp_path / "tokenizer.json").write_text("{}")
    told = anchormix("check", tmp_path / "mix.yaml")
    assert (told.exit, told.code) == (2, "bad_detector")
    assert "tokenizer.json" in told.message


def test_a_tokenizer_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)  # not installed
    key = WatermarkKey.fresh(tokenizer="tokenizer.json")
    (tmp_path / "mark.key").write_bytes(key.to_bytes())
    config = scored(tmp_path, {"human": [{"text": "a"}]}, [{"detector": "watermark", "model": "mark.key"}])
    told = anchormix("check", config)
    assert (told.exit, told.code) == (2, "bad_detector")
    assert "pip install tokenizers" in told.message


LOUD = """
def score(texts, meta):
    assert set(meta) >= {"language", "n_words", "doc_id"} and len(meta["n_words"]) == len(texts)
    return [9.0 if "zanzibar" in text else 0.0 for text in texts]
score.version = "1.2"
"""


def test_a_plugin_sees_batches_of_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_plugin(tmp_path, "loud_plugin", LOUD, monkeypatch)
    write_calibration(tmp_path / "human.json", target, np.zeros(HUMANS))
    held = texts(1, 4)
    rows = {"human": [{"text": text} for text in (*held[:3], f"zanzibar {held[3]}", "", " ")]}
    mix = run(scored(tmp_path, rows, [{"detector": target, "calibration": "human.json", "name": "loud"}]))
    assert {name for name, row in by_id(mix).items() if pieces(row)} == {"human-3"}
    assert pieces(by_id(mix)["human-3"])[0]["detail"].startswith("classifier 1.2: score 9, p ")


def test_numbers_that_are_none_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "def score(texts, meta):\n    return [float('nan'), None, float('inf'), *[0.0] * (len(texts) - 3)]\n"
    target = write_plugin(tmp_path, "gaps_plugin", body, monkeypatch)
    write_calibration(tmp_path / "human.json", target, np.zeros(HUMANS))
    rows = {"human": [{"text": text} for text in texts(1, 5)]}
    mix = run(scored(tmp_path, rows, [{"detector": target, "calibration": "human.json"}]))
    assert any("abstains on 3 of 5 documents: 3 have no score" in note for note in mix.manifest["notes"])


BROKEN = {
    "raises": ("def score(texts, meta):\n    raise KeyError('boom')\n", "failed on a batch: KeyError"),
    "exits": ("def score(texts, meta):\n    raise SystemExit(3)\n", "failed on a batch: SystemExit"),
    "one_short": ("def score(texts, meta):\n    return [1.0] * (len(texts) - 1)\n", "valid is one number per text"),
    "matrix": ("def score(texts, meta):\n    return [[1.0, 2.0]] * len(texts)\n", "valid is one number per text"),
    "words": ("def score(texts, meta):\n    return ['high'] * len(texts)\n", "not of numbers"),
    "nothing": ("def score(texts, meta):\n    pass\n", "a single number"),
    "no_such_name": ("def other(texts, meta):\n    pass\n", "has no 'score'"),
    "no_call": ("score = 3\n", "is a int; valid is a function"),
    "syntax": ("def score(:\n", "importing"),
    "import_fails": ("import module_that_is_not_there\n", "needs module_that_is_not_there"),
    "import_exits": ("raise SystemExit(1)\n", "importing"),
    "proof": (
        "def score(texts, meta):\n    return [1.0] * len(texts)\nscore.max_strength = 'proof'\n",
        "evidence of the kind classifier is at most 'detected'",
    ),
    "kind": ("def score(texts, meta):\n    pass\nscore.evidence_kind = 'oracle'\n", "valid are watermark, artefact"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_a_diagnosis(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, says = BROKEN[name]
    target = write_plugin(tmp_path, f"broken_{name}", body, monkeypatch)
    config = scored(tmp_path, {"human": [{"text": text} for text in texts(1, 3)]}, [target])
    for command in ("check", "run"):
        told = anchormix(command, config)
        assert (told.exit, told.code) == (2, "bad_detector"), told.stderr
        assert says in told.message
        assert target in told.message
    assert not (tmp_path / "out" / "mix").exists()


@pytest.mark.parametrize(
    ("entry", "code", "says"),
    [
        ("no_such_column", "missing_column", "no document of any source has a number in the column"),
        ("no_such_module:score", "bad_detector", "there is no module 'no_such_module'"),
        ({"detector": "ai", "calibration": "gone.json"}, "bad_detector_file", "cannot be read"),
        ({"detector": "ai", "calibration": "mix.yaml"}, "bad_calibration", "is not JSON"),
        ({"detector": "ai", "calibration": "other.json"}, "bad_calibration", "of another detector"),
        ({"detector": "ngrams", "model": "other.json"}, "bad_detector", "is no model of n-grams"),
        ({"detector": "watermark", "model": "other.json"}, "bad_detector", "is no watermark key"),
        ({"detector": "ngrams"}, "missing_key", "detector train"),
        ({"detector": "watermark"}, "missing_key", "detector key"),
        ({"detector": "ai", "model": "other.json"}, "bad_value", "take a model"),
        ({"detector": "a-b:c"}, "bad_value", "module:callable"),
        ({"detector": "ai", "alpha": 0}, "bad_value", "above 0"),
        ({"detector": "ai", "alpha": 1}, "bad_value", "below 1"),
        ({"detector": "ai", "alhpa": 0.1}, "unknown_key", 'did you mean "alpha"'),
    ],
)
def test_what_is_wrong_with_an_entry(entry: Any, code: str, says: str, tmp_path: Path) -> None:
    write_calibration(tmp_path / "other.json", "other", np.zeros(3))
    config = scored(tmp_path, {"human": [{"text": text, "ai": 1} for text in texts(1, 2)]}, [entry])
    told = anchormix("run", config)
    assert (told.exit, told.code) == (2, code), told.stderr
    assert says in told.message


def test_two_detectors_of_one_name_are_refused(tmp_path: Path) -> None:
    config = scored(tmp_path, {"human": [{"text": "a b"}]}, ["ai", {"detector": "x", "name": "ai"}])
    assert anchormix("check", config).code == "duplicate_key"


# Commands


def write_labelled(path: Path, seed: int, count: int) -> None:
    """Human text and that of a model which repeats itself; in pairs."""
    rng = random.Random(seed)
    rows = []
    for place in range(count):
        human = corpus.make_document(rng, 80).text
        rows.append({"text": human, "who": "0", "pair": place, "lang": "en"})
        words = human.split()
        rows.append({"text": " ".join(f"{word} indeed" for word in words), "who": 1, "pair": place, "lang": "en"})
    rows.append({"text": "neither", "who": "?", "pair": None, "lang": "en"})
    path.write_text("".join(json.dumps({**row, "who": str(row["who"])}) + "\n" for row in rows))


LABELS = ("--label-column", "who", "--label", "0=human", "--label", "1=synthetic", "--group-column", "pair")


def test_train_then_run_finds_what_was_learned(tmp_path: Path) -> None:
    write_labelled(tmp_path / "labelled.jsonl", 1, 120)
    told = anchormix("detector", "train", tmp_path / "labelled.jsonl", "--output", tmp_path / "own.json", *LABELS)
    assert told.exit == 0, told.stderr
    assert told.line["command"] == "detector train"
    training = told.line["training"]
    assert training["cross_validation"]["auroc"] > 0.99
    assert (training["human"], training["synthetic"]) == (120, 120)
    assert told.line["totals"]["unlabelled"] == 1
    calibrated = json.loads((tmp_path / "own.json.calibration.json").read_text())
    assert (
        sum(len(bucket["scores"]) for bucket in calibrated["buckets"]) == told.line["totals"]["calibration_documents"]
    )
    (tmp_path / "more.jsonl").write_text(
        "".join(json.dumps({"text": text, "lang": "en"}) + "\n" for text in texts(6, 150, 80))
    )
    more = anchormix(
        *("detector", "calibrate", tmp_path / "more.jsonl", "--detector", "ngrams"),
        *("--model", tmp_path / "own.json", "--output", tmp_path / "more.json"),
    )
    assert more.exit == 0, more.stderr
    rng = random.Random(8)
    human = [corpus.make_document(rng, 80).text for _ in range(10)]
    made = [" ".join(f"{word} indeed" for word in text.split()[:45]) for text in texts(9, 5, 80)]
    rows = {"human": [{"text": text, "lang": "en"} for text in (*human, *made)]}
    entry = {"detector": "ngrams", "model": "own.json", "calibration": "more.json", "alpha": 0.01, "min_words": 64}
    mix = run(scored(tmp_path, rows, [entry]))
    found = {name for name, row in by_id(mix).items() if row["provenance"] == "synthetic"}
    assert found == {f"human-{place}" for place in range(10, 15)}


def test_training_depends_on_the_set_of_documents_alone(tmp_path: Path) -> None:
    write_labelled(tmp_path / "a.jsonl", 1, 100)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    random.Random(3).shuffle(lines)
    (tmp_path / "b1.jsonl").write_text("\n".join(lines[:77] + lines[:5]))
    pq.write_table(pa.Table.from_pylist([json.loads(line) for line in lines[77:]]), tmp_path / "b2.parquet")
    inputs = {"a": ["a.jsonl"], "b": ["b2.parquet", "b1.jsonl"]}
    made = {}
    for name, files in inputs.items():
        output = tmp_path / f"{name}.json"
        told = anchormix("detector", "train", *(tmp_path / file for file in files), "--output", output, *LABELS)
        assert told.exit == 0, told.stderr
        made[name] = output.read_bytes(), (tmp_path / f"{name}.json.calibration.json").read_bytes()
    assert made["a"] == made["b"]


def test_a_config_labels_what_it_trains_on(tmp_path: Path) -> None:
    sources = {
        "human": texts(1, 80, 60),
        "made": [f"{text} indeed" * 2 for text in texts(2, 80, 60)],
        "web": texts(3, 4),
    }
    config = write_project(tmp_path, sources, source_made={"synthetic": {"generator": "parrot"}})
    told = anchormix("detector", "train", config, "--output", tmp_path / "own.json")
    assert told.exit == 0, told.stderr
    assert told.line["totals"] | {"calibration_documents": 0} == {
        **{"human": 80, "synthetic": 80, "unlabelled": 4, "unreadable": 0},
        "calibration_documents": 0,
    }


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("train", "{in}", "--output", "{out}"), "too_few_documents"),
        (("train", "{in}", "--output", "{out}", "--label", "1=human"), "bad_call"),
        (("train", "{in}", "--output", "{out}", "--label-column", "who"), "bad_call"),
        (("train", "{in}", "--output", "{out}", "--label-column", "who", "--label", "1=person"), "bad_call"),
        (("train", "{in}", "--output", "{out}", "--label-column", "whoo", "--label", "1=human"), "missing_column"),
        (("train", "{gone}", "--output", "{out}"), "no_files"),
        (("calibrate", "{in}", "--detector", "ngrams", "--output", "{out}"), "bad_call"),
        (("calibrate", "{in}", "--detector", "watermark", "--model", "{in}", "--output", "{out}"), "bad_detector"),
        (("calibrate", "{in}", "--detector", "no_such:thing", "--output", "{out}"), "bad_detector"),
        (("calibrate", "{in}", "--detector", "absent", "--output", "{out}"), "too_few_documents"),
        (("key", "{out}", "--gamma", "2"), "bad_call"),
        (("key", "{out}", "--scheme", "kgw", "--context", "0"), "bad_call"),
        (("key", "{out}", "--context", "1"), "bad_call"),
    ],
)
def test_wrong_calls_are_told_and_write_nothing(words: tuple[str, ...], code: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a b c", "who": "1"}\n')
    paths = {"{in}": tmp_path / "in.jsonl", "{gone}": tmp_path / "gone.jsonl", "{out}": tmp_path / "out.json"}
    told = anchormix("detector", *(paths.get(word, word) for word in words))
    assert (told.exit, told.code) == (2, code), told.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_the_index_of_a_run_holds_scores(tmp_path: Path) -> None:
    folder = index(column_project(tmp_path))
    held = [
        pq.read_table(path)["detector.ai.score.score"].to_pylist() for path in (folder / "facts").rglob("*.parquet")
    ]
    assert sorted(score for scores in held for score in scores if score is not None)[-4:] == [9.5] * 4
