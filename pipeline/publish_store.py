"""The output on an object store, which has no folders and no rename: every object is new, and `_SUCCESS` is the last.

    _PUBLISHING     while a run works on it: the lease that keeps a second writer out, and marks what died half done
    data/ ...       written only where nothing stands, each object whole or not at all
    manifest.json   once every other file stands there with its size
    _SUCCESS        then; what has none is no mix to any reader

A mix is made, verified and measured on local disk first: what is uploaded are the bytes that were verified.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.errors import AnchormixError, UsageError
from pipeline.lease import Lease, Refused
from pipeline.manifest import MANIFEST, SIGNED_MANIFEST
from pipeline.object_stores import TRANSFERS, place_error, store_failed
from transforms import files, stores
from transforms.files import StoreError

CLAIM = "_PUBLISHING"
_SUCCESS = "_SUCCESS"
_LAST = (MANIFEST, SIGNED_MANIFEST)  # after all that they speak of


def standing(output: str) -> dict[str, Any] | None:
    """The manifest of the mix that is published at `output`; None where a mix may be written."""
    try:
        names = _names(output)
        if _SUCCESS in names and MANIFEST in names:
            manifest: dict[str, Any] = json.loads(files.read_bytes(files.join(output, MANIFEST)))
            return manifest
    except StoreError as error:
        raise place_error(error, "output", output) from None
    except ValueError:
        raise _not_a_mix(output) from None
    if names and CLAIM not in names:
        raise _not_a_mix(output)
    return None  # nothing, or what a run that died had begun to upload, or what one that lives is uploading


def _names(output: str) -> dict[str, int]:
    root = f"{output.rstrip('/')}/"
    return {entry.path[len(root) :]: entry.size for entry in stores.listed(root)}


def _not_a_mix(output: str) -> UsageError:
    return UsageError(
        "output_exists",
        f"output: {output!r} holds objects and is not a published mix. A mix is only ever written where nothing "
        "stands: name another place, or move this away.",
        output=output,
    )


class Destination:
    """A place on a store that this run alone may write to."""

    def __init__(self, output: str, lease: Lease) -> None:
        self._output = output
        self._lease = lease
        self._uploaded: list[str] = []

    def publish(self, folder: Path) -> None:
        """Upload a verified mix: everything else, then the manifest, `_SUCCESS` last."""
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        body = [name for name in names if name not in _LAST]
        try:
            self._clear()
            with ThreadPoolExecutor(TRANSFERS) as pool:
                for _ in pool.map(lambda name: self._upload(folder / name, name), body):
                    pass
            self._require_whole(folder, body)
            for name in (name for name in _LAST if name in names):
                self._upload(folder / name, name)
            success = folder / _SUCCESS
            success.touch()
            self._upload(success, _SUCCESS)
        except BaseException as error:
            self._take_back()
            if isinstance(error, StoreError):
                raise store_failed(error) from None
            raise

    def _clear(self) -> None:
        """Make room: what a dead run had uploaded goes, and nothing else ever does."""
        found = _names(self._output)
        if _SUCCESS in found:
            raise self._came_into_being()
        rest = [files.join(self._output, name) for name in found if name != CLAIM]
        if rest and not self._lease.taken_over:
            raise _not_a_mix(self._output)
        self._lease.check()
        stores.delete(rest)

    def _upload(self, path: Path, name: str) -> None:
        self._lease.check()
        target = files.join(self._output, name)
        try:
            with path.open("rb") as source:
                stores.write(target, source, "*")
        except StoreError as error:
            # A request whose answer was lost is sent again, and then finds what it wrote itself.
            if error.kind != stores.TAKEN or files.file_digest(target) != files.file_digest(str(path)):
                raise self._came_into_being() if error.kind == stores.TAKEN else error from None
        self._uploaded.append(target)

    def _require_whole(self, folder: Path, names: Sequence[str]) -> None:
        """A store may lose or cut what it said it took."""
        found = _names(self._output)
        for name in names:
            size = (folder / name).stat().st_size
            if found.get(name) != size:
                has = "does not list it" if name not in found else f"has {found[name]:,} bytes of it"
                raise AnchormixError(
                    "store_failed",
                    f"{files.join(self._output, name)}: {size:,} bytes were uploaded, and the store {has}. Nothing was "
                    "published; run the same command again.",
                    path=files.join(self._output, name),
                )
        strange = sorted(found.keys() - {*names, CLAIM})
        if strange:
            raise self._came_into_being()

    def _take_back(self) -> None:
        """Remove what was uploaded, as far as the store answers; the rest is cleared by the run that takes over."""
        with contextlib.suppress(StoreError, AnchormixError):
            self._lease.check()
            success = files.join(self._output, _SUCCESS)
            if success in self._uploaded or files.exists(success):
                return  # it is published: its answer came late
            stores.delete(self._uploaded)
            self._uploaded = []
        if self._uploaded:
            self._lease.abandon()

    def _came_into_being(self) -> UsageError:
        return UsageError(
            "output_exists",
            f"output: while this run worked, something came into being at {self._output!r}. A published mix is never "
            "overwritten: name another `output`, or run the same command again to compare.",
            output=self._output,
        )


@contextlib.contextmanager
def claimed(output: str) -> Iterator[Destination]:
    """Keep every other run away from a place while this one works; exit 2 where one does already."""
    with contextlib.ExitStack() as stack:
        try:
            lease = stack.enter_context(Lease(files.join(output, CLAIM)).held())
        except Refused as refused:
            raise UsageError(
                "output_locked",
                f"output: {output!r} is being written by {refused}. Wait for it to end, stop it, or name another "
                "`output`.",
                output=output,
                holder=refused.holder,
            ) from None
        except StoreError as error:
            raise place_error(error, "output", output) from None
        yield Destination(output, lease)


def take_dead_claim_away(output: str) -> None:
    """The lease beside a published mix of a run that was killed after `_SUCCESS`; that of a run that lives stays."""
    with contextlib.suppress(Refused, StoreError):  # whoever may only read leaves it lying, which does no harm
        if CLAIM in _names(output):
            with Lease(files.join(output, CLAIM)).held():
                pass
