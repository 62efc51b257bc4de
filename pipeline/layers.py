"""Building the index: what is stale is computed, what is fresh is taken, and the driver judges what came out.

Every verdict here is read from durable tables after a pipeline has ended, never raised inside a worker.
"""

from __future__ import annotations

import contextlib
import json
import math
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from shlex import quote
from typing import Any

from pipeline import catalog, settings, survival
from pipeline.ancestry import find_descendants
from pipeline.catalog import Shard, SplitRange
from pipeline.config import Config
from pipeline.custody import ALTERED, UNLISTED, Custody, altered_shards, changed_meanwhile, load_custody
from pipeline.data_cards import cards_key, load_cards
from pipeline.detectors import Detectors, detector_warnings, judge_scores, load_detectors
from pipeline.duplicates import example_pairs, pair_lines
from pipeline.earlier import EarlierIndex, judge_earlier, load_earlier
from pipeline.errors import BadInput, CustodyFailed, GuardTripped, UsageError
from pipeline.exclusions import exclusion_warnings
from pipeline.gates import refuse_missing_shards
from pipeline.heldout import empty_warnings, holding_warnings, judge_reference_shards
from pipeline.index import Index
from pipeline.inspection import Inspection, how_to_read
from pipeline.object_stores import local_scratch, unreachable
from pipeline.readings import judge_reading_of, label_warnings
from pipeline.removal import Duplicates, Rounds, by_one_worker
from pipeline.submit import Runner
from pipeline.tokens import load_tokenizer
from transforms import files, texts
from transforms.batches import DedupTask, Origin, Split
from transforms.exchange import gathered
from transforms.kernels import minhash
from transforms.kernels.hashing import fingerprint
from transforms.kernels.recognisers import Claim
from transforms.kernels.schemas import Fate
from transforms.kernels.tokens import TokenizerFile
from transforms.known import KnownTexts, sampled, signed
from transforms.provenance import FateTask, ShardCustody
from transforms.sidecars import Summary, bad_file_facts, diversity_path

EDGES_VERSION = "7"
FATES_VERSION = "9"
"""Raised whenever the same facts would give other edges, or other fates."""

_DOCUMENTS_PER_PARTITION = 200_000
_BYTES_PER_PARTITION = 64 << 20
_LEAST_PARTITIONS = 8
"""A worker holds one partition of an exchange at a time: more input makes more partitions, not larger ones."""

_PARTITIONS_BY_TEXT = 1024
"""Of exchanges that carry no text, as many as follow its amount: every sender has packets for all partitions, so beyond
64 GB of text their number follows that of documents, or packets would shrink to a record each."""


@dataclass(frozen=True)
class ReadShard:
    """A shard with what reading it once found."""

    shard: Shard
    splits: tuple[Split, ...]
    summaries: tuple[Summary, ...]

    @cached_property
    def digest(self) -> str:
        """sha256 of the file; empty where it could not be read."""
        return next((summary.file_digest for summary in self.summaries if summary.file_digest), "")

    @property
    def documents(self) -> int:
        return self.total("documents")

    def total(self, what: str) -> int:
        return sum(getattr(summary, what) for summary in self.summaries)


@dataclass(frozen=True)
class Facts:
    """The first layer: every shard, read."""

    shards: tuple[ReadShard, ...]

    @cached_property
    def splits(self) -> list[Split]:
        return [split for shard in self.shards for split in shard.splits]

    @cached_property
    def summaries(self) -> list[Summary]:
        return [summary for shard in self.shards for summary in shard.summaries]

    @cached_property
    def key(self) -> str:
        """Changes with any shard, and with how shards are split, because addresses count splits."""
        return fingerprint(*(f"{split.facts_name}\0{shard.digest}" for shard in self.shards for split in shard.splits))

    @cached_property
    def weight(self) -> int:
        return sum(split.weight for split in self.splits)

    @cached_property
    def documents(self) -> int:
        return sum(shard.total("documents") for shard in self.shards)

    def tasks(self) -> list[bytes]:
        """Splits as elements, the heaviest first."""
        return [split.to_bytes() for split in sorted(self.splits, key=lambda split: (-split.weight, split.index))]

    @cached_property
    def input_digest(self) -> str:
        """Of everything that was read: sources, shard names and file digests, in order."""
        return fingerprint(*(f"{s.shard.source}\0{s.shard.name}\0{s.digest}" for s in self.shards))


@dataclass(frozen=True)
class Anchors:
    """What documents are compared with, and what is never mixed: their splits are numbered in this order."""

    earlier: tuple[EarlierIndex, ...]
    known: Facts  # text known to be synthetic
    reference: Facts  # held-out human text

    @property
    def keys(self) -> list[str]:
        return [*(index.fates for index in self.earlier), self.known.key, self.reference.key]


@dataclass(frozen=True)
class Edges:
    """The second layer: paths of the files that list copies and verified near-duplicates."""

    key: str
    exact: tuple[str, ...]
    seen: tuple[str, ...]
    pairs: tuple[str, ...]
    known: Mapping[int, str]  # per split, where some of its documents are like text known to be synthetic,
    held_out: Mapping[int, str]  # or like held-out text
    counts: Mapping[str, int]
    earlier: tuple[EarlierIndex, ...]
    registry: Facts  # text known to be synthetic
    reference: Facts  # held-out human text, its splits numbered after all others


@dataclass(frozen=True)
class Fates:
    """The third layer: per split its file, and the accounting of all."""

    key: str
    files: Mapping[int, str]
    accounts: tuple[dict[str, Any], ...]
    removal: Mapping[str, int] = field(default_factory=dict)  # edges, rounds that it took, texts left undecided
    unknown_ancestors: int = 0  # names in `derived_from` that no document goes by
    judges: tuple[str, ...] = ()  # digests of the files beside config and input that evidence comes from

    @cached_property
    def by_source(self) -> dict[str, Counter[tuple[str, str]]]:
        """Documents of each source by (provenance, fate)."""
        counts: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        for account in self.accounts:
            for provenance, fate, documents, _ in account["cells"]:
                counts[account["source"]][provenance, fate] += documents
        return counts

    @cached_property
    def duplicates(self) -> dict[str, list[dict[str, Any]]]:
        """What was removed for what, by provenance."""
        return survival.duplicates(self.accounts)

    @property
    def contested(self) -> dict[str, int]:
        """Verified documents that carry evidence against being human, and their tokens."""
        return {
            what: sum(account[f"contested_{what}"] for account in self.accounts) for what in ("documents", "tokens")
        }


@dataclass(frozen=True)
class Indexed:
    """A complete, fresh index."""

    facts: Facts
    edges: Edges
    fates: Fates
    custody: Custody
    warnings: tuple[str, ...]

    @property
    def reference(self) -> Facts:
        """Held-out human text, read: its files, what each held, and beside their facts the accumulators."""
        return self.edges.reference


class IndexBuilder:
    """Brings an index up to date with a config, layer by layer; with `build` off, says what is stale instead."""

    def __init__(self, config: Config, index: Index, runner: Runner, build: bool = True) -> None:
        self.config = config
        self.index = index
        self.build = build
        self.most_edges = settings.removal_edges()
        self.run_id = uuid.uuid4().hex[:12]
        self._local_root, self._shared_root = _scratch_roots(index, runner)
        self.local_scratch = files.join(self._local_root, self.run_id)
        self.scratch = files.join(self._shared_root, self.run_id)
        self.runner = replace(runner, reports=self.scratch)
        self.rebuilt: list[str] = []

    @cached_property
    def detectors(self) -> Detectors:
        return load_detectors(self.config)

    @cached_property
    def tokenizer(self) -> TokenizerFile | None:
        return load_tokenizer(self.config)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Hold the index, with an empty scratch folder; what dead runs left in it goes first."""
        if not self.build and not self.index.exists():
            raise self._stale("facts", "there is no index in that folder")
        with self.index.lease():
            self._clear_scratch()
            files.make_folder(self.scratch)
            texts.keep_texts(texts.MOST_KEPT_BYTES if self.runner.holds_packets else 0)
            try:
                yield
            finally:
                texts.keep_texts(0)
                self._clear_scratch()

    def _clear_scratch(self) -> None:
        for root in {self._local_root, self._shared_root}:
            files.remove_tree(root)

    def bring_up_to_date(self) -> Indexed:
        """All three layers, and the verdicts that belong to them, in the order that verdicts have."""
        _ = self.detectors, self.tokenizer  # what is wrong with them is the config's fault, told before all else
        # So is this, and edges need both only after hours of reading.
        load_earlier(self.config, self.index, 0)
        catalog.find_known(self.config)
        catalog.find_reference(self.config)
        try:
            custody = load_custody(self.config)
        except CustodyFailed:
            facts = self.facts()
            judge_forms(self.config, facts)
            judge_reading(self.config, facts)  # broken input is told before broken custody
            raise
        facts = self.facts()
        judge_forms(self.config, facts)
        judge_scores(self.config, facts.summaries)
        judge_reading(self.config, facts)
        judge_custody(self.config, facts, custody)
        anchors = self.anchors(facts)
        judge_reference_shards(facts, anchors.reference)
        edges = self.edges(facts, anchors)
        fates = self.fates(facts, edges, custody)
        self.index.set_current(fates.key)  # before the guards: what they stopped is there to be looked at
        judge_fates(self.config, fates, self.index)
        warnings = [*custody_warnings(self.config, facts, custody), *leaf_warnings(self.config, fates, custody)]
        warnings += [
            *exclusion_warnings(self.config, fates),
            *empty_warnings(anchors.reference),
            *holding_warnings(fates),
            *form_warnings(self.config, facts),
        ]
        warnings += detector_warnings(self.config, self.detectors, fates.accounts)
        if fates.unknown_ancestors:
            several = "1 name" if fates.unknown_ancestors == 1 else f"{fates.unknown_ancestors:,} names"
            warnings.append(f"{several} in derived_from: no document here goes by it, so its origin is not known")
        return Indexed(facts, edges, fates, custody, tuple(warnings))

    def _stale(self, layer: str, why: str) -> UsageError:
        return UsageError(
            "stale_index",
            f"index: {self.index.root!r} has no {layer} for this config and input ({why}). This command never "
            "indexes: run `anchormix index` with the same config first, or `anchormix run`.",
            layer=layer,
        )

    # Facts

    def facts(self) -> Facts:
        content = self.detectors.facts_key + (self.tokenizer.digest if self.tokenizer else "")
        shards = catalog.find_shards(self.config, content)
        refuse_missing_shards(self.config, shards)
        return self._facts_of(shards, 0, "facts")

    def anchors(self, facts: Facts) -> Anchors:
        """What the documents of these facts are compared with, its splits numbered after theirs."""
        earlier = load_earlier(self.config, self.index, len(facts.splits))
        before = len(facts.splits) + sum(len(index.tasks) for index in earlier)
        known = self._anchor(catalog.find_known(self.config), before)
        reference = self._anchor(catalog.find_reference(self.config), before + len(known.splits))
        return Anchors(earlier, known, reference)

    def _anchor(self, shards: Sequence[Shard], first_split: int) -> Facts:
        """Text that documents are compared with: read like theirs, and as whole as theirs has to be."""
        if not shards:
            return Facts(())
        read = self._facts_of(shards, first_split, None)
        judge_reading(self.config, read)
        return read

    def _facts_of(self, shards: Sequence[Shard], index: int, layer: str | None) -> Facts:
        """Facts of these shards, read where they are new; `layer` is what has been rebuilt then."""
        ledger = self.index.facts_ledger()
        stored = self.index.facts_files()
        unread = [shard for shard in shards if not _stands(ledger.get(shard.key), stored.get(shard.key, {}))]
        # What could not be read may be readable now, without another size or time: a mode, a mount, a network.
        broken = [shard for shard in shards if self.build and ledger.get(shard.key, {}).get("broken")]
        before = {shard.key: ledger.get(shard.key) for shard in broken}
        unread += [shard for shard in broken if shard not in unread]
        if unread:
            if not self.build:
                raise self._stale("facts", f"{len(unread)} of {len(shards)} shards are new, changed or damaged")
            self.index.sweep_facts()
            for shard in unread:
                if shard.key in ledger:  # damaged or broken: what still looks finished must not be taken for it
                    files.remove_tree(self.index.path("facts", shard.key))
            self._read(unread, ledger)
            if layer and any(ledger[shard.key] != before.get(shard.key) for shard in unread):
                self.rebuilt.append(layer)
        if self.build:
            self._note_inputs(shards, ledger)
        read: list[ReadShard] = []
        for shard in shards:
            entry = ledger[shard.key]
            ranges = [SplitRange.stored(part) for part in entry["splits"]]
            splits = tuple(self._split(shard, part, index + place) for place, part in enumerate(ranges))
            index += len(splits)
            summaries = tuple(Summary.from_bytes(json.dumps(summary).encode()) for summary in entry["summaries"])
            read.append(ReadShard(shard, splits, summaries))
        return Facts(tuple(read))

    def judge_unchanged(self, facts: Facts, reports: Sequence[dict[str, Any]]) -> None:
        """Exit 5 when a shard no longer holds what was indexed, and forget what was.

        Nothing else would: a file that changed within its size and modification time keeps its key.
        """
        for report in sorted((r for r in reports if r["kind"] == "unreachable"), key=lambda r: str(r["path"])):
            raise unreachable(report["problem"], f"{report['source']}/{report['shard']}", report["path"])
        changed = sorted({report["path"] for report in reports if report["kind"] == "changed"})
        if not changed:
            return
        self.index.forget({read.shard.key for read in facts.shards if read.shard.path in changed})
        again = "Run the same command again" if self.build else "Run `anchormix index` with the same config"
        raise BadInput(
            "input_changed",
            f"input changed since the index: {changed[0]!r}"
            + (f" and {len(changed) - 1} more" if changed[1:] else "")
            + f". Its documents are not those that were indexed, so the index forgot them. {again}: what changed is "
            "read anew; restore the file before, if it should not have changed.",
            paths=changed,
        )

    def _split(self, shard: Shard, part: SplitRange, index: int) -> Split:
        return Split(
            index=index,
            source=shard.source,
            shard=shard.name,
            path=shard.path,
            kind=shard.kind,
            compression=shard.compression,
            row_groups=part.row_groups,
            first_row=part.first_row,
            weight=part.weight,
            facts=self.index.path("facts", shard.key, f"{part.name}.parquet"),
            whole=part.first_row == 0,
        )

    def _read(self, shards: Sequence[Shard], ledger: dict[str, Any]) -> None:
        from pipeline import graphs

        ranges = catalog.divide(shards)
        owners: list[Shard] = []
        splits: list[Split] = []
        for shard in shards:
            for part in ranges[shard.key]:
                splits.append(self._split(shard, part, len(splits)))
                owners.append(shard)
        sources = settings.source_settings(self.config, self.detectors, self.tokenizer)
        report = files.join(self.scratch, "facts.report")
        tasks = [s.to_bytes() for s in sorted(splits, key=lambda split: (-split.weight, split.index))]
        total = sum(split.weight for split in splits)
        if total > texts.MOST_KEPT_BYTES:
            texts.keep_no_more_texts()
        self.runner.run("index", total, graphs.facts(tasks, sources, report))
        found = {summary.split: summary for summary in map(Summary.from_bytes, gathered(report))}
        of_shard: dict[str, list[Summary]] = defaultdict(list)
        for split, owner in zip(splits, owners, strict=True):
            of_shard[owner.key].append(found[split.index])
        for shard in shards:
            failed = next((summary for summary in of_shard[shard.key] if summary.failure), None)
            if failed and failed.failure_code == "missing_column":
                raise UsageError(
                    "missing_column",
                    catalog.missing_column(shard.source, failed.failure or ""),
                    source=shard.source,
                    shard=shard.name,
                )
            if failed and failed.failure_code == "bad_detector":
                raise UsageError(
                    "bad_detector",
                    f"evidence.detectors.{failed.failure} (reading {shard.source}/{shard.name})",
                    source=shard.source,
                    shard=shard.name,
                )
            if failed and failed.failure_code in ("bad_tokenizer", "missing_library"):
                raise UsageError(
                    failed.failure_code,
                    f"tokens.file: {failed.failure} (reading {shard.source}/{shard.name})",
                    source=shard.source,
                    shard=shard.name,
                )
            if failed and failed.failure_code == "unreachable":
                raise unreachable(failed.failure or "", catalog.key_of(shard.source), shard.path)
            if failed:
                ranges[shard.key] = [SplitRange(None, 0, shard.size)]
                of_shard[shard.key] = [self._bad_file(shard, sources[shard.source], failed.failure or "")]
            ledger[shard.key] = {
                "source": shard.source,
                "shard": shard.name,
                "broken": failed is not None,
                "input": how_to_read(shard, sources[shard.source].columns.text),
                "sketch": catalog.sketch(self.config),
                "splits": [[part.row_groups, part.first_row, part.weight] for part in ranges[shard.key]],
                "summaries": [json.loads(summary.to_bytes()) for summary in of_shard[shard.key]],
            }
        stored = self.index.facts_files()
        for shard in shards:
            names = [name for part in ranges[shard.key] for name in _file_names(part)]
            ledger[shard.key]["files"] = {name: stored[shard.key][name] for name in names}
        self.index.save_facts_ledger(ledger)

    def _note_inputs(self, shards: Sequence[Shard], ledger: dict[str, Any]) -> None:
        """Write down how to read shards again, where an index was made before that was kept."""
        unknown = [shard for shard in shards if "input" not in ledger[shard.key]]
        if unknown:
            sources = settings.source_settings(self.config)
            for shard in unknown:
                ledger[shard.key]["input"] = how_to_read(shard, sources[shard.source].columns.text)
            self.index.save_facts_ledger(ledger)

    def _bad_file(self, shard: Shard, source: Any, problem: str) -> Summary:
        split = self._split(shard, SplitRange(None, 0, shard.size), 0)
        return bad_file_facts(split, source.kept, source.scored, source.minhash.permutations, problem)

    # Edges

    def edges(self, facts: Facts, anchors: Anchors) -> Edges:
        edge_settings = json.dumps(self.config.edges_settings(), sort_keys=True)
        key = fingerprint(EDGES_VERSION, facts.key, edge_settings, *anchors.keys)
        done = self.index.layer("edges", key)
        if done is None:
            if not self.build:
                raise self._stale("edges", "facts or dedup settings changed, or files of it are gone")
            done = self._find_edges(facts, anchors, key)
            self.rebuilt.append("edges")
        named: dict[str, list[str]] = {"exact": [], "seen": [], "pairs": []}
        marked: dict[str, dict[int, str]] = {"known": {}, "reference": {}}
        for part in done["parts"]:
            path = self.index.path("edges", key, part["file"])
            if part["kind"] in marked:
                marked[part["kind"]][part["partition"]] = path
            else:
                named[part["kind"]].append(path)
        counts = Counter({kind: 0 for kind in named})
        for part in done["parts"]:
            counts[part["kind"]] += part["rows"]
        exact, seen, pairs = (tuple(named[kind]) for kind in ("exact", "seen", "pairs"))
        return Edges(
            key,
            exact,
            seen,
            pairs,
            marked["known"],
            marked["reference"],
            counts,
            anchors.earlier,
            anchors.known,
            anchors.reference,
        )

    def _find_edges(self, facts: Facts, anchors: Anchors, key: str) -> dict[str, Any]:
        from pipeline import graphs
        from transforms.dedup import FindDuplicates

        report = files.join(self.scratch, "edges.report")
        readers = settings.source_settings(self.config)
        tasks = [DedupTask(split) for split in facts.splits]
        for index in anchors.earlier:
            readers.update(index.settings)
            tasks.extend(index.tasks)
        registry = [DedupTask(split, Origin.KNOWN) for split in anchors.known.splits]
        held_out = [DedupTask(split, Origin.REFERENCE) for split in anchors.reference.splits]
        tasks.extend([*registry, *held_out])
        readers.update({task.settings: readers[task.split.source] for task in (*registry, *held_out)})
        tasks.sort(key=lambda task: (-task.split.weight, task.split.index))
        read = (facts, anchors.known, anchors.reference)
        weight = sum(layer.weight for layer in read) + sum(index.weight for index in anchors.earlier)
        transform = FindDuplicates(
            settings=readers,
            bands=minhash.choose_bands(float(settings.threshold(self.config)), self.config.dedup.permutations),
            threshold=settings.threshold(self.config),
            partitions=_partitions(read, anchors.earlier, of_text=False),
            homes=_partitions(read, anchors.earlier),
            documents=_documents(read, anchors.earlier),
            known=self._known_texts("known", registry) if registry else None,
            reference=self._known_texts("reference", held_out) if held_out else None,
            folder=self.index.clear_layer("edges", key),
            report=report,
            scratch=self.runner.scratch(files.join(self.scratch, "edges")),
        )
        self.runner.run("edges", weight, graphs.edges([task.to_bytes() for task in tasks], transform))
        parts = [json.loads(part) for part in gathered(report)]
        self.judge_unchanged(Facts(tuple(shard for layer in read for shard in layer.shards)), parts)
        judge_earlier(parts)
        parts.sort(key=lambda part: (part["kind"], part["partition"]))
        done = {"parts": parts}
        self.index.finish_layer("edges", key, done)
        files.remove_tree(files.join(self.scratch, "edges"))
        return done

    def _known_texts(self, kind: str, registry: Sequence[DedupTask]) -> KnownTexts:
        samples = files.join(self.scratch, f"{kind}.samples")
        files.write_bytes(samples, sampled(registry))
        signatures = signed(registry) if registry[0].origin == Origin.REFERENCE else None
        if signatures is None:
            return KnownTexts(tuple(registry), samples)
        path = files.join(self.scratch, f"{kind}.signatures")
        files.write_bytes(path, signatures)
        return KnownTexts(tuple(registry), samples, path)

    # Fates

    def fates(self, facts: Facts, edges: Edges, custody: Custody) -> Fates:
        fate_settings = json.dumps(self.config.fates_settings(), sort_keys=True)
        cards = load_cards(self.config)
        calibrated = [self.detectors.fates_key] if self.detectors.rules else []
        key = fingerprint(FATES_VERSION, edges.key, fate_settings, custody.key, cards_key(cards), *calibrated)
        done = self.index.layer("fates", key)
        if done is None:
            if not self.build:
                raise self._stale("fates", "edges, custody or provenance settings changed, or files of it are gone")
            done = self._settle(facts, edges, custody, cards, key)
            self.rebuilt.append("fates")
        paths = {part["partition"]: self.index.path("fates", key, part["file"]) for part in done["parts"]}
        accounts = tuple(part["account"] for part in done["parts"])
        claimed = cards_key({source: claims for source, claims in cards.items() if claims})
        scored = (self.detectors.facts_key, self.detectors.fates_key)
        judges = tuple(digest for digest in (claimed, *scored) if digest)
        return Fates(key, paths, accounts, done["removal"], done["unknown_ancestors"], judges)

    def _settle(
        self, facts: Facts, edges: Edges, custody: Custody, cards: Mapping[str, tuple[Claim, ...]], key: str
    ) -> dict[str, Any]:
        from pipeline import graphs
        from transforms.provenance import SettleFates
        from transforms.removal import EdgeFiles

        covered: dict[int, ShardCustody | None] = {}
        for shard in facts.shards:
            for split in shard.splits:
                covered[split.index] = custody.of(shard.shard.source, shard.shard.name, shard.digest)
        told = [
            FateTask(
                split, covered[split.index], edges.known.get(split.index), held_out=edges.held_out.get(split.index)
            )
            for split in sorted(facts.splits, key=lambda split: (-split.weight, split.index))
        ]
        report = files.join(self.scratch, "fates.report")
        rules = settings.fate_rules(self.config, cards, self.detectors)
        unknown_ancestors = 0
        if any(shard.total("derived") for shard in facts.shards):
            folder = files.join(self.scratch, "ancestry")
            asked = [task.to_bytes() for task in told]
            descendants, unknown_ancestors = find_descendants(self.runner, asked, rules, folder)
            told = [replace(task, descendants=descendants.get(task.split.index)) for task in told]
        tasks = [task.to_bytes() for task in told]
        earlier = [task for index in edges.earlier for task in index.tasks]
        counted = sum(edges.counts[kind] for kind in EdgeFiles._fields)
        duplicates = Duplicates(EdgeFiles(edges.exact, edges.seen, edges.pairs), counted, earlier)
        scratch = files.join(self.scratch, "fates")
        if duplicates.edges <= self.most_edges:
            removal = by_one_worker(rules, duplicates, self.runner.scratch(scratch))
        else:
            folder = files.join(self.scratch, "removal")
            partitions = _partitions([facts], edges.earlier, of_text=False)
            removal = Rounds(self.runner, folder, partitions, self.most_edges).remove(tasks, rules, duplicates)
        transform = SettleFates(
            rules=rules,
            removal=removal.transform,
            earlier=earlier,
            folder=self.index.clear_layer("fates", key),
            report=report,
            scratch=self.runner.scratch(scratch),
        )
        self.runner.run("fates", facts.weight, graphs.fates(tasks, transform))
        parts = sorted((json.loads(part) for part in gathered(report)), key=lambda part: int(part["partition"]))
        lost = sorted({part["lost_leaves"] for part in parts if "lost_leaves" in part})
        if lost:
            raise changed_meanwhile(lost, "it no longer has the sha256 that was signed")
        for part, split in zip(parts, facts.splits, strict=True):
            part["facts"] = split.facts_name
        done = {
            "edges": edges.key,
            "removal": removal.report(),
            "unknown_ancestors": unknown_ancestors,
            "parts": parts,
        }
        self.index.finish_layer("fates", key, done)
        for name in ("fates", "removal", "ancestry"):
            files.remove_tree(files.join(self.scratch, name))
        return done


def _scratch_roots(index: Index, runner: Runner) -> tuple[str, str]:
    """Folders for what this machine alone writes and reads, and for what its workers do: where they are elsewhere and
    the index lies on a store, they reach that store and not this disk."""
    if files.is_local(index.root):
        return index.path("scratch"), index.path("scratch")
    here = local_scratch(index.root)
    return here, here if runner.run_files else index.path("scratch")


def _stands(entry: Mapping[str, Any] | None, found: Mapping[str, int]) -> bool:
    """Whether every file that the ledger names for a shard is there, whole."""
    return entry is not None and "files" in entry and entry["files"].items() <= found.items()


def _file_names(part: SplitRange) -> tuple[str, str]:
    """Of a split's facts, and of the accumulators beside them."""
    facts = f"{part.name}.parquet"
    return facts, diversity_path(facts)


def _documents(read: Sequence[Facts], earlier: Sequence[EarlierIndex]) -> int:
    return sum(facts.documents for facts in read) + sum(index.documents for index in earlier)


def _partitions(read: Sequence[Facts], earlier: Sequence[EarlierIndex], of_text: bool = True) -> int:
    text = sum(shard.total("text_bytes") for facts in read for shard in facts.shards)
    text += sum(index.weight for index in earlier)
    return partitions_for(_documents(read, earlier), text, of_text)


def partitions_for(documents: int, text_bytes: int, of_text: bool) -> int:
    """Partitions of exchanges that carry text, or what is made of it, and of others."""
    by_text = text_bytes // _BYTES_PER_PARTITION
    if not of_text:
        by_text = min(by_text, _PARTITIONS_BY_TEXT)
    return max(_LEAST_PARTITIONS, documents // _DOCUMENTS_PER_PARTITION, by_text)


def judge_forms(config: Config, facts: Facts) -> None:
    """Exit 2 where a data set was recognised that this config cannot use, or that leaves a question open."""
    for read in facts.shards:
        for summary in read.summaries:
            source = config.source(read.shard.source)
            judge_reading_of(config, source, summary.form, summary.data_set, read.shard.name)


def form_warnings(config: Config, facts: Facts) -> Iterator[str]:
    for source in config.sources:
        mine = (summary for read in facts.shards if read.shard.source == source.name for summary in read.summaries)
        yield from label_warnings(source, sorted({name for summary in mine for name in summary.unexplained}))


def judge_reading(config: Config, facts: Facts) -> None:
    """Exit 5 when more records were broken than the config tolerates."""
    bad = sum(shard.total("bad_records") for shard in facts.shards)
    if bad <= config.max_bad_records:
        return
    examples = [
        {
            "source": shard.shard.source,
            "shard": shard.shard.name,
            "row": row if shard.digest else None,  # where the whole file is broken, no row is
            "problem": problem,
        }
        for shard in facts.shards
        for summary in shard.summaries
        for row, problem in summary.problems
    ][:10]
    lines = "".join(f"\n  {_record(example)}: {example['problem']}" for example in examples[:5])
    more = f"\n  and {bad - 5:,} more" if bad > 5 else ""
    raise BadInput(
        "bad_records",
        f"{bad:,} {'record' if bad == 1 else 'records'} could not be read; max_bad_records tolerates "
        f"{config.max_bad_records:,}.{lines}{more}\n"
        f"Mend the files, or set max_bad_records: {bad} to count them as drops.",
        bad_records=bad,
        tolerated=config.max_bad_records,
        examples=examples,
    )


def _record(example: Mapping[str, Any]) -> str:
    source, row = example["source"], example["row"]
    under = f"{catalog.key_of(source)}: " if catalog.is_anchor(source) else f"{source}/"
    return f"{under}{example['shard']}" + ("" if row is None else f" row {row}")


def custody_verdicts(facts: Facts, custody: Custody) -> dict[tuple[str, str], str]:
    """Verified, altered or unlisted, by (source, shard)."""
    present: dict[str, set[str]] = defaultdict(set)
    for shard in facts.shards:
        present[shard.shard.source].add(shard.digest)
    return {
        (s.shard.source, s.shard.name): custody.verdict(s.shard.source, s.shard.name, s.digest, present[s.shard.source])
        for s in facts.shards
    }


def judge_custody(config: Config, facts: Facts, custody: Custody) -> None:
    """Exit 7 when a signed shard was altered and its source says that this must not pass."""
    verdicts = custody_verdicts(facts, custody)
    for source in config.sources:
        if source.custody is None or source.custody.on_mismatch != "fail":
            continue
        altered = [name for (owner, name), verdict in verdicts.items() if (owner, verdict) == (source.name, ALTERED)]
        if altered:
            raise altered_shards(custody, source.name, altered)


def custody_warnings(config: Config, facts: Facts, custody: Custody) -> list[str]:
    """What custody was expected to cover and does not: revoked manifests, shards that are altered or not listed."""
    warnings = list(custody.warnings)
    verdicts = custody_verdicts(facts, custody)
    for source in config.sources:
        if source.custody is None:
            continue
        for verdict, why in ((ALTERED, "were changed after signing"), (UNLISTED, "are in no manifest that counts")):
            names = [name for (owner, name), found in verdicts.items() if (owner, found) == (source.name, verdict)]
            if names:
                warnings.append(
                    f"sources.{source.name}.custody: {len(names):,} {verdict} of "
                    f"{sum(owner == source.name for owner, _ in verdicts):,} shards {why}, so their text is not "
                    f"verified: {_some(names)}"
                )
    return warnings


def leaf_warnings(config: Config, fates: Fates, custody: Custody) -> Iterator[str]:
    """Documents whose shard is signed and whose text is not: most often another column was signed than is read."""
    for source in config.sources:
        if source.custody is None:
            continue
        mine = [account for account in fates.accounts if account["source"] == source.name]
        missing, covered = (sum(account[what] for account in mine) for what in ("no_leaf", "in_custody"))
        if missing:
            signed = sorted({leaves.column for leaves in custody.sources[source.name].subjects.values()})
            read = source.columns.text
            yield (
                f"sources.{source.name}.custody: {missing:,} of {covered:,} documents of covered shards are no leaf of "
                f"the manifest, so their text is not verified (it signed column {', '.join(map(repr, signed))}; the "
                f"source reads {repr(read) if isinstance(read, str) else 'the column it recognises as text'})"
            )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if names[5:] else "")


def judge_fates(config: Config, fates: Fates, index: Index) -> None:
    """Exit 6 when near-duplicate removal wiped a source out, or too much verified text is contested."""
    judge_wipe_out(config, fates, index)
    verified = sum(account["verified_tokens"] for account in fates.accounts)
    contested = fates.contested["tokens"]
    if contested > config.evidence.max_contested * verified:
        raise GuardTripped(
            "contested_custody",
            f"evidence: {contested:,} of {verified:,} verified tokens carry evidence against being human, more than "
            f"evidence.max_contested allows ({float(config.evidence.max_contested):g}). Ask the custodian, or raise "
            "the limit if the evidence is known to be wrong.",
            contested=contested,
            verified=verified,
        )


_EXAMPLES = 3  # pairs that a wiped out source is shown with
_EXAMPLE_CHARACTERS = 80


def judge_wipe_out(config: Config, fates: Fates, index: Index) -> None:
    """Exit 6 when a source lost more to near-duplicates than `dedup.wipe_out`; of what exact copies left of it."""
    lost, stood = Counter[str](), Counter[str]()
    for source, counts in fates.by_source.items():
        for (_, fate), documents in counts.items():
            lost[source] += documents if fate == Fate.NEAR_DUPLICATE.label else 0
            stood[source] += documents if fate in (Fate.NEAR_DUPLICATE.label, Fate.KEPT.label) else 0
    wiped = sorted(
        (source for source in lost if lost[source] > config.dedup.wipe_out * stood[source]),
        key=lambda source: (-Fraction(lost[source], stood[source]), -lost[source], source),
    )
    if not wiped:
        return
    source, *others = wiped
    inspection = Inspection.of(index, fates.key)
    pairs = example_pairs(inspection, source, _EXAMPLES) if inspection else ()
    share, allowed = Fraction(lost[source], stood[source]), config.dedup.wipe_out
    # Rounded apart: what is beyond a limit never reads as the limit.
    told = [
        f"dedup: source {source!r} would lose {lost[source]:,} of {stood[source]:,} documents "
        f"({math.ceil(share * 10_000) / 100:g}%) to near-duplicates; dedup.wipe_out allows "
        f"{math.floor(allowed * 10_000) / 100:g}%."
    ]
    told += [f"So would source {other!r}: {lost[other]:,} of {stood[other]:,}." for other in others]
    told += [f"{len(pairs)} of them, each with the document that stays for it:"] if pairs else []
    for number, pair in enumerate(pairs, start=1):
        head, *rest = pair_lines(pair, _EXAMPLE_CHARACTERS)
        told += [f"  {number}. {head}", *(f"   {line}" for line in rest)]
    told.append(
        f"See more with `anchormix duplicates {quote(index.root)} --source {quote(source)} --kind near`. If these are "
        "not the same documents (templates, headers, licence texts), raise dedup.threshold, or take out of the input "
        "what they share. If the source really repeats what is there already, leave it out, or set "
        "`dedup.wipe_out: 1`. Nothing was published; the index stands."
    )
    raise GuardTripped(
        "wipe_out",
        "\n".join(told),
        source=source,
        lost=lost[source],
        of=stood[source],
        share=str(share),
        allowed=str(allowed),
        others={other: {"lost": lost[other], "of": stood[other]} for other in others},
        examples=[pair.to_json(_EXAMPLE_CHARACTERS) for pair in pairs],
    )
