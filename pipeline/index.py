"""The index on disk: three layers, what of them is fresh, and the lease that keeps a second run out.

    facts.json                 per shard key: its splits, what each held, and how its text is read
    current.json               the fates that the last command settled, or found fresh
    facts/<shard key>/         sidecars, written by workers, named by their content's causes
    edges/<key>/  fates/<key>/ parts, and `_DONE.json`, which names those that count; written last, by the driver

A layer is complete or it does not exist: what `_DONE.json` does not name is litter of an attempt that died, and is
removed when the layer is built again. Both ledgers also say how large each file was; a file that is gone, or has
another size, makes what names it stale.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import socket
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any, cast

from pipeline.errors import UsageError
from pipeline.lease import Lease, Refused
from pipeline.object_stores import place_error
from transforms import files
from transforms.files import StoreError

_FORMAT = 1


class Index:
    """One index folder."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._lease: Lease | None = None  # on an object store

    def path(self, *names: str) -> str:
        return files.join(self.root, *names)

    def facts_ledger(self) -> dict[str, Any]:
        """Finished shards by key."""
        content = self._read("facts.json")
        return dict(content["shards"]) if content else {}

    def save_facts_ledger(self, shards: dict[str, Any]) -> None:
        self._write("facts.json", {"format": _FORMAT, "shards": shards})

    def facts_files(self) -> dict[str, dict[str, int]]:
        """Size of every file that stands among the facts, by shard key and name."""
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for key, name, size in self._files("facts", "*"):
            found[key][name] = size
        return found

    def sweep_facts(self) -> None:
        """Remove what attempts that died had begun to write; a worker that still writes it fails, and does no harm."""
        for path in (self.path("facts", key, name) for key, name, _ in self._files("facts", "*")):
            if path.endswith(files.TORN):
                files.remove(path)

    def layer(self, name: str, key: str) -> dict[str, Any] | None:
        """What a finished layer says of itself, or None if it has to be built."""
        done = self._read(name, key, "_DONE.json")
        if done is None or "files" not in done:
            return None
        return done if done["files"].items() <= self._layer_files(name, key).items() else None

    def finish_layer(self, name: str, key: str, content: dict[str, Any]) -> None:
        """Declare a layer complete; its `parts` name the files that count."""
        found = self._layer_files(name, key)
        sizes = {part["file"]: found[part["file"]] for part in content["parts"]}
        self._write(name, key, "_DONE.json", content={"format": _FORMAT, "files": sizes, **content})

    def current(self) -> str | None:
        """The key of the fates that the last command worked with; an index may hold several."""
        content = self._read("current.json")
        return content["fates"] if content else None

    def set_current(self, fates: str) -> None:
        if self.current() != fates:
            self._write("current.json", {"format": _FORMAT, "fates": fates})

    def clear_layer(self, name: str, key: str) -> str:
        """An empty folder for a layer that is about to be built."""
        folder = self.path(name, key)
        files.remove_tree(folder)
        files.make_folder(folder)
        return folder

    def _layer_files(self, name: str, key: str) -> dict[str, int]:
        return {file: size for _, file, size in self._files(name, key)}

    def _files(self, layer: str, folders: str) -> Iterator[tuple[str, str, int]]:
        """Folder, name and size of every file of a layer, by one listing."""
        root = glob.escape(self.path(layer)) if files.is_local(self.root) else self.path(layer)
        for info in files.list_files(files.join(root, folders, "*")):
            folder, name = info.path.rsplit("/", 2)[-2:]
            yield folder, name, info.size

    def _read(self, *names: str) -> dict[str, Any] | None:
        path = self.path(*names)
        if not files.exists(path):
            return None
        try:
            content = json.loads(files.read_bytes(path))
        except ValueError:
            content = None
        form = content.get("format") if isinstance(content, dict) else None
        if form != _FORMAT:
            raise UsageError(
                "index_unreadable",
                f"index: {path!r} is not something this version wrote (format {form!r}, expected {_FORMAT}). Remove "
                f"{self.root!r} to index again, or name another folder under `index`.",
                path=path,
            )
        return cast(dict[str, Any], content)

    def _write(self, *names: Any, content: dict[str, Any] | None = None) -> None:
        if content is None:
            *names, content = names  # type: ignore[assignment]
        self.check_lease()
        files.write_bytes(self.path(*names), json.dumps(content, sort_keys=True).encode())

    @contextlib.contextmanager
    def lease(self) -> Iterator[None]:
        """Hold the index for one run.

        On a local index the lock is the operating system's: it goes with the process that holds it, however that
        process dies, and worker processes do not inherit it. On an object store it is a `Lease`.
        """
        if not files.is_local(self.root):
            with self._store_lease() as self._lease:
                yield
            self._lease = None
            return
        with self._open_lease() as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                held.seek(0)
                holder = held.read().strip() or "another run"
                raise self._locked(holder) from None
            held.truncate(0)
            held.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            held.flush()
            yield

    @contextlib.contextmanager
    def _store_lease(self) -> Iterator[Lease]:
        with contextlib.ExitStack() as stack:
            try:
                lease = stack.enter_context(Lease(self.path("lease")).held())
            except Refused as refused:
                raise self._locked(str(refused)) from None
            except StoreError as error:
                raise place_error(error, "index", self.root) from None
            yield lease

    def check_lease(self) -> None:
        """Raise where another run may have taken the index over, because this one was out of touch for too long."""
        if self._lease is not None:
            self._lease.check()

    def _locked(self, holder: str) -> UsageError:
        return UsageError(
            "index_locked",
            f"index: {self.root!r} is in use by {holder}. Wait for it to end, stop it, or give this config an `index` "
            "of its own.",
            holder=holder,
        )

    def _open_lease(self) -> IO[str]:
        try:
            Path(self.root).mkdir(parents=True, exist_ok=True)
            return open(self.path("lease"), "a+")
        except OSError as error:
            raise UsageError(
                "index_not_writable",
                f"index: {self.root!r} cannot be made or written to ({error.strerror or error}). Name a folder under "
                "`index` that this account may write to, or mend the permissions.",
                index=self.root,
            ) from None

    def exists(self) -> bool:
        """Whether there is a folder at all; on a store, whether anything lies below it."""
        if files.is_local(self.root):
            return os.path.isdir(self.root)
        try:
            return files.any_below(self.root)
        except StoreError as error:
            raise place_error(error, "index", self.root) from None

    def forget(self, keys: Collection[str]) -> None:
        """Drop what is known of these shards, so that the next run reads them.

        Their files go first: a ledger that names what is gone is stale, and a file that nothing names looks finished.
        """
        for key in keys:
            files.remove_tree(self.path("facts", key))
        self.save_facts_ledger({key: entry for key, entry in self.facts_ledger().items() if key not in keys})
