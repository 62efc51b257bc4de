"""What commands say of object stores, how they connect to them, and copies of mixes that lie there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.environment import whole_number
from pipeline.errors import AnchormixError, BadInput, UsageError
from transforms import files, stores
from transforms.files import StoreError

TRANSFERS = 8
"""Files that travel at a time; one connection rarely fills a network."""

_SECRETS = ("s3_access_key_id", "s3_secret_access_key", "s3_session_token")


def refuse_secrets(arguments: Sequence[str]) -> None:
    """Exit 2 for credentials on the command line: it is written down with the mix, and shown by every `ps`."""
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if name in _SECRETS:
            raise UsageError(
                "secret_in_flags",
                f"behind `--`: --{name} is refused, because command lines are written down and seen by others. Give "
                "credentials to the environment, a profile or a role, as boto3 looks for them: AWS_PROFILE, "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a container's or a machine's role.",
                flag=f"--{name}",
            )
        if "://" in value and "@" in urlsplit(value).netloc:
            raise UsageError(
                "secret_in_flags",
                f"behind `--`: the URL of --{name} holds credentials; leave out what stands before its @.",
                flag=f"--{name}",
            )


def connect(arguments: Sequence[str]) -> None:
    """Have stores be spoken to as these Beam flags say, before any pipeline is made."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    whole_number("ANCHORMIX_STORE_SECONDS", 60, "seconds", 1)  # a worker that finds it wrong could not say so
    FileSystems.set_options(PipelineOptions(list(arguments)))


def store_failed(error: StoreError) -> AnchormixError:
    """A store that failed in the middle of something; exit 2 where nothing here could have spoken to it."""
    if error.kind == stores.UNAVAILABLE:
        return UsageError("store_unavailable", str(error), path=error.path)
    return AnchormixError(
        "store_failed",
        f"{error}. Nothing was published; once the store answers again, the same command resumes.",
        path=error.path,
        kind=error.kind,
    )


def place_error(error: StoreError, key: str, place: str) -> AnchormixError:
    """What it means that a store does not let the folder under `key` be used: exit 2 where the config or the rights
    are at fault, exit 1 where the same command may succeed later."""
    if error.kind in (stores.SILENT, stores.UNAVAILABLE):
        return store_failed(error)
    return UsageError(
        f"{key}_not_writable",
        f"{key}: {place!r} cannot be used ({error.problem}). Name a place under `{key}` that exists and that these "
        "credentials may list, read, write and delete in.",
        **{key: place},
    )


def input_error(error: StoreError, key: str, pattern: str) -> AnchormixError:
    """Exit 5 for input that a store does not give out."""
    if error.kind == stores.UNAVAILABLE:
        return UsageError("store_unavailable", f"{key}: {error}", key=key, value=pattern)
    return unreachable(str(error), key, pattern)


def unreachable(problem: str, key: str, path: str) -> BadInput:
    """Exit 5 for what is neither a broken record nor a change of the input, so that nothing tolerates it."""
    return BadInput(
        "input_unreachable",
        f"{key}: {problem}. Check bucket, credentials and endpoint, and run the same command again: it goes on where "
        "this one stopped.",
        key=key,
        path=path,
    )


def local_scratch(place: str) -> str:
    """The folder on this machine's disk for what belongs to a place on a store: always the same, so that the next run
    finds what a killed one left, and only this account's."""
    from transforms.kernels.hashing import fingerprint

    own = os.path.join(tempfile.gettempdir(), f"anchormix-{os.getuid()}")
    os.makedirs(own, mode=0o700, exist_ok=True)
    if os.lstat(own).st_uid != os.getuid() or os.path.islink(own):
        raise AnchormixError("scratch_not_ours", f"{own} belongs to another account; set TMPDIR to a folder of yours.")
    return os.path.join(own, fingerprint(place)[:16])


def fetch(pairs: Sequence[tuple[str, str]]) -> None:
    """Copy files to local paths, several at a time."""
    with ThreadPoolExecutor(TRANSFERS) as pool:
        for _ in pool.map(lambda pair: files.copy_here(*pair), pairs):
            pass


_copies: dict[str, str] = {}
"""Folders of this process that are copies, by the URLs that they are copies of."""


@contextlib.contextmanager
def copied_here(url: str, leave_out: Sequence[str] = ()) -> Iterator[str]:
    """A mix on a store as a folder on this machine, for as long as a command looks at it."""
    url = url.rstrip("/")
    try:
        found = [entry.path for entry in stores.listed(f"{url}/")]
        if not found:
            raise UsageError("no_mix", f"{url}: nothing lies there; name the output of a mix", path=url)
        with tempfile.TemporaryDirectory(prefix="anchormix-mix-") as folder:
            names = [path[len(url) + 1 :] for path in found]
            wanted = [name for name in names if not name.startswith(tuple(leave_out)) and _is_inside(name)]
            fetch([(f"{url}/{name}", os.path.join(folder, name)) for name in wanted])
            _copies[folder] = url
            try:
                yield folder
            finally:
                del _copies[folder]
    except StoreError as error:
        if error.kind == stores.UNAVAILABLE:
            raise store_failed(error) from None
        raise BadInput("mix_unreachable", f"{url} cannot be read: {error}", path=url, kind=error.kind) from None


def _is_inside(name: str) -> bool:
    """Whether a name stays below its folder: keys of a store may be anything, dots included."""
    return not any(part in ("", ".", "..") for part in name.split("/"))


def bring_back(path: Path) -> None:
    """Write a file of a copy to where the copy is from; nothing for any other file."""
    url = _copies.get(str(path.parent))
    if url is not None:
        files.write_bytes(files.join(url, path.name), path.read_bytes())


def in_words(text: str) -> str:
    """What is said of a copy is said of what it is a copy of."""
    for folder, url in _copies.items():
        text = text.replace(folder, url)
    return text
