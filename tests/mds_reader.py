"""Prints every sample of a folder of MDS shards, one JSON object a line, as MosaicML's own reader gives it.

That reader is pure Python over numpy; only the package around it imports torch and compressors. Where those are not
installed, modules of that name that hold empty classes stand in for them.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import types
from typing import Any

NOT_NEEDED = ("torch", "brotli", "snappy", "zstd")


class StandIn(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked last, so whatever is installed comes first."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        wanted = name.partition(".")[0] in NOT_NEEDED
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if wanted else None

    def create_module(self, spec: Any) -> types.ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def local_dataset() -> Any:
    """The class, without what its packages import for images and clusters."""
    sys.meta_path.append(Finder())
    spec = importlib.util.find_spec("streaming")
    assert spec is not None
    (root,) = spec.submodule_search_locations or ()
    for name, path in (("streaming", root), ("streaming.base", f"{root}/base")):
        package = types.ModuleType(name)
        package.__path__ = [path]
        sys.modules[name] = package
    from streaming.base.local import LocalDataset  # type: ignore[import-not-found,unused-ignore]

    return LocalDataset


if __name__ == "__main__":
    dataset = local_dataset()(sys.argv[1])
    for place in range(len(dataset)):
        print(json.dumps(dataset[place]))
