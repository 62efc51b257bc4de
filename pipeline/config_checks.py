"""What no single key can know: names that must exist, paths that must not meet, keys of a later release."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pipeline.config_gates import check_gates
from pipeline.config_kinds import is_url, nearest
from pipeline.config_rules import Rule
from pipeline.config_yaml import At
from transforms.kernels.bands import choose_bands

if TYPE_CHECKING:
    from pipeline.config import Config

__all__ = ["check_config", "refuse_later_keys"]


_STORES = {"s3": "s3://bucket/key", "gs": "gs://bucket/key"}


def refuse_later_keys(config: Config, at: At) -> None:
    """Places that a path can name and nothing is written to in this release."""
    for key, folder in (("output", config.output), ("index", config.index)):
        scheme = folder.partition("://")[0].lower()
        if is_url(folder) and scheme not in _STORES:
            says = f"not available yet: written to are folders, {' and '.join(_STORES.values())}; inputs may be any URL"
            (at / key).fail("not_yet", says, folder)


def check_config(config: Config, at: At) -> None:
    sources = {source.name: source for source in config.sources}
    _distinct((source.name for source in config.sources), "sources", at / "sources")
    _distinct((trusted.name for trusted in config.trust.keys), "keys", at / "trust" / "keys")
    _distinct((entry.label for entry in config.evidence.detectors), "detectors", at / "evidence" / "detectors")
    for place, trusted in enumerate(config.trust.keys):
        here = (at / "trust" / "keys").item(place, trusted.name)
        for number, name in enumerate(trusted.sources or ()):
            _known(name, sources, "source", here / "sources" / number)
    for place, exclusion in enumerate(config.exclude):
        if exclusion.source is not None:
            _known(exclusion.source, sources, "source", at / "exclude" / place / "source")
    for name in config.mix.sources:
        _known(name, sources, "source", at / "mix" / "sources" / name)
    for rules in ("floors", "caps"):
        for place, rule in enumerate(getattr(config.mix, rules)):
            _check_rule(config, rule, place, at / "mix" / rules, sources)
    check_gates(
        config.diversity.fail_if,
        config.diversity.metrics == "full",
        bool(config.diversity.reference),
        sources,
        at / "diversity" / "fail_if",
    )
    _check_revoked(config, at / "trust" / "revoked")
    _check_as_of(config, at)
    _check_bands(config, at / "dedup" / "permutations")
    _check_paths(config, at)


def _check_bands(config: Config, at: At) -> None:
    try:
        choose_bands(float(config.dedup.threshold), config.dedup.permutations)
    except ValueError as error:
        at.fail("bad_value", str(error), config.dedup.permutations)


def _distinct(names: Iterable[str], what: str, at: At) -> None:
    seen: set[str] = set()
    for place, name in enumerate(names):
        if name in seen:
            (at.item(place, name)).fail("duplicate_key", f'two {what} are called "{name}"; rename one')
        seen.add(name)


def _known(name: str, known: Iterable[str], what: str, at: At) -> None:
    known = list(known)
    if name not in known:
        near = nearest(name, known)
        hint = f'did you mean "{near}"? ' if near else ""
        at.fail("bad_value", f"no {what} has this name; {hint}there are: {', '.join(known)}", name, nearest=near)


def _check_rule(config: Config, rule: Rule, place: int, at: At, sources: Iterable[str]) -> None:
    # The short form stands under the rule's name, the list under its position.
    here = at / rule.of if (at / rule.of).address in at.origin.places else at / place
    if rule.of.startswith("source:"):
        _known(rule.of.removeprefix("source:"), sources, "source", here)
    columns = ("language", "source", "generator", *config.kept_columns)
    if rule.by is not None and rule.by not in columns:
        says = f"no such column to group by; valid are {', '.join(columns)}, and what a source keeps (keep: [...])"
        (here / "by").fail("bad_value", says, rule.by, nearest=nearest(rule.by, columns))


def _check_revoked(config: Config, at: At) -> None:
    """A misspelt revocation would leave a key trusted, so every entry must hit something or be a digest."""
    names = [trusted.name for trusted in config.trust.keys]
    for place, entry in enumerate(config.trust.revoked):
        if entry not in names and not re.fullmatch("[0-9a-f]{64}", entry):
            near = nearest(entry, names)
            hint = f'did you mean "{near}"? ' if near else ""
            says = f"neither a trusted key nor the sha256 of a manifest; {hint}keys: {', '.join(names) or 'none'}"
            (at / place).fail("bad_value", says, entry, nearest=near)


def _check_as_of(config: Config, at: At) -> None:
    if config.as_of is not None:
        return
    for trusted in config.trust.keys:
        in_use = trusted.name not in config.trust.revoked and any(map(trusted.covers, config.sources))
        if in_use and (trusted.valid_from or trusted.valid_until):
            window = " ".join(
                f"{word} {day}" for word, day in (("from", trusted.valid_from), ("until", trusted.valid_until)) if day
            )
            says = (
                f'the key "{trusted.name}" is valid {window}, and validity is judged at as_of, never by the clock; '
                "add a date, such as as_of: 2026-11-20"
            )
            (at / "as_of").fail("missing_key", says)


def _check_paths(config: Config, at: At) -> None:
    """What a run writes must not meet what it, or the next run, reads."""
    output, index = _parts(config.output), _parts(config.index)
    shorter = min(len(output), len(index))
    if output[:shorter] == index[:shorter]:
        relation = "the same as" if output == index else "inside" if len(output) > len(index) else "around"
        says = f"output is {relation} the index {config.index}; give each a folder of its own"
        (at / "output").fail("bad_value", says, config.output)
    if config.mix.parent is not None and _parts(config.mix.parent) == output:
        says = "a mix cannot succeed itself; write the new one to another output"
        (at / "mix" / "parent").fail("bad_value", says, config.mix.parent)
    for key, folder in (("output", config.output), ("index", config.index)):
        for where, pattern in _patterns(config):
            if _reaches(_parts(pattern), _parts(folder)):
                says = f"{where} {pattern} would read what is written here; choose a folder that no glob matches"
                (at / key).fail("bad_value", says, folder)


def _patterns(config: Config) -> Iterator[tuple[str, str]]:
    for source in config.sources:
        yield from ((f"sources.{source.name}.files", pattern) for pattern in source.files)
    yield from (("evidence.known_synthetic", pattern) for pattern in config.evidence.known_synthetic)
    yield from (("diversity.reference", pattern) for pattern in config.diversity.reference)


def _parts(path: str) -> list[str]:
    separator = "/" if is_url(path) else os.sep
    return [part for part in path.split(separator) if part]


def _reaches(pattern: list[str], folder: list[str]) -> bool:
    """Whether a glob can match the folder itself or a file below it. Only ** crosses folders."""
    for depth, part in enumerate(pattern):
        if "**" in part or depth == len(folder):
            return True
        if not fnmatchcase(folder[depth], part):
            return False
    return len(pattern) == len(folder)
