"""`--set a.b=value`: one key of a parsed config, replaced before anything is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pipeline.config_blocks import Block, ListOf, MapOf, unknown_name
from pipeline.config_kinds import Kind, nearest
from pipeline.config_rules import Rules
from pipeline.config_yaml import At, Raw, read_tree
from pipeline.errors import UsageError

__all__ = ["apply_overrides"]


def apply_overrides(
    tree: dict[str, Raw], overrides: Sequence[str], root: Kind, at: At, environ: Mapping[str, str]
) -> None:
    """Change `tree` in place; later overrides win. An empty value takes the key out."""
    for override in overrides:
        path, equals, text = override.partition("=")
        path = path.strip()
        if not equals or not path or "" in path.split("."):
            raise UsageError(
                "bad_override",
                f"--set {override}: an override is KEY=VALUE with a dotted key, as in "
                "mix.floors.human_verified=0.6 or sources.press.optional=true",
            )
        setter = _Setter(override, text, environ)
        setter.assign(tree, root, path, at)


class _Setter:
    def __init__(self, override: str, text: str, environ: Mapping[str, str]) -> None:
        self.place = f"--set {override}"
        self.text = text
        self.environ = environ

    def assign(self, holder: Any, kind: Kind | None, rest: str, at: At) -> None:
        """Put the value at `rest` below `holder`, whose keys `kind` knows (None: nothing is known of them)."""
        if isinstance(holder, list):
            self._into_list(holder, kind, rest, at)
            return
        name, below = _split(holder, kind, rest)
        if isinstance(kind, Block) and name not in kind.keys:
            at.origin.places[(at / name).address] = self.place
            unknown_name(name, kind.keys, at / name)
        inner = _inner(kind, name)
        if not below:
            holder[name] = self._value(at / name)
            return
        if holder.get(name) is None:
            holder[name] = {}
        if not isinstance(holder[name], dict | list):
            self._no_keys(at / name, holder[name])
        self.assign(holder[name], inner, below, at / name)

    def _into_list(self, items: list[Any], kind: Kind | None, rest: str, at: At) -> None:
        title = "of" if isinstance(kind, Rules) else "name"
        titled = not isinstance(kind, ListOf) or kind.titled
        names = {
            item[title]: place
            for place, item in reversed(list(enumerate(items)))
            if titled and isinstance(item, dict) and isinstance(item.get(title), str)
        }
        names.update({str(place): place for place in range(len(items)) if str(place) not in names})
        name = _longest(names, rest)
        if name is None:
            known = [label for label in names if not label.isdigit()]
            first = rest.split(".")[0]
            near = nearest(first, known)
            hint = f'did you mean "{near}"? ' if near else ""
            says = f'no item has the {title} "{first}"; {hint}there are: {", ".join(known) or "none"}'
            if not titled:
                says = f'"{first}" is no position; items of this list go by their number, from 0 to {len(items) - 1}'
            self._fail("unknown_key", f"{at.key}.{rest}", says, near)
        place = names[name]
        if title == "of" and sum(isinstance(i, dict) and i.get("of") == name for i in items) > 1:
            says = f"several rules count {name}; address one by its position, as in {at.key}.0.share"
            self._fail("bad_override", f"{at.key}.{rest}", says)
        here, below = at / place, rest[len(name) + 1 :]
        item_kind = kind.item if isinstance(kind, ListOf) else Rules.rule if isinstance(kind, Rules) else None
        if below:
            if not isinstance(items[place], dict | list):
                self._no_keys(here, items[place])
            self.assign(items[place], item_kind, below, here)
        elif title == "of" and isinstance(items[place], dict):
            # As in the short form {what: share}, a plain value is the share.
            items[place].pop("amount", None)
            items[place]["share"] = self._value(here / "share")
        else:
            items[place] = self._value(here)

    def _value(self, at: At) -> Raw:
        places = at.origin.places
        for address in [known for known in places if known[: len(at.address)] == at.address]:
            del places[address]
        value = read_tree(self.text, at, self.environ)
        for address in [known for known in places if known[: len(at.address)] == at.address]:
            del places[address]
        places[at.address] = self.place
        return value

    def _no_keys(self, at: At, value: Raw) -> NoReturn:
        at.fail("unknown_key", f"has no keys below it, so {self.place} has no place to go", value)

    def _fail(self, code: str, key: str, says: str, near: str | None = None) -> NoReturn:
        raise UsageError(code, f"{key}: {says} ({self.place})", key=key, nearest=near)


def _longest(names: Mapping[str, Any], rest: str) -> str | None:
    """The longest name that `rest` begins with; names may hold dots themselves."""
    fitting = [name for name in names if rest == name or rest.startswith(name + ".")]
    return max(fitting, key=len) if fitting else None


def _split(holder: Mapping[str, Raw], kind: Kind | None, rest: str) -> tuple[str, str]:
    """The next key and what follows it; where names are free, they may hold dots."""
    known = _longest(holder, rest)
    if known is not None:
        return known, rest[len(known) + 1 :]
    if isinstance(kind, Rules) or (isinstance(kind, MapOf) and not isinstance(kind.value, Block)):
        return rest, ""
    if isinstance(kind, MapOf) and "." in rest:
        name, _, below = rest.rpartition(".")
        return name, below
    name, _, below = rest.partition(".")
    return name, below


def _inner(kind: Kind | None, name: str) -> Kind | None:
    if isinstance(kind, Block):
        return kind.kind_of(name)
    return kind.value if isinstance(kind, MapOf) else None
