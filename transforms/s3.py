"""S3 behind Beam's FileSystems: one client a process, bounded patience, and writes that happen under a condition.

Beam makes a new client for every call, which costs more than the call, tries ten minutes at a store that does not
answer, reads on where a connection broke off, and completes an upload whose writer was interrupted. `reuse_client`
puts a client in its place that does none of that; `write` says what FileSystems has no word for.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import IO, Any, NoReturn

import boto3
import botocore.session
from apache_beam.io.aws.clients.s3 import boto3_client, messages
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, S3Options
from apache_beam.utils.retry import PermanentException
from botocore import exceptions as failures
from botocore.config import Config

from transforms.stores import (
    DENIED,
    FAILED,
    MISSING,
    NO_BUCKET,
    SILENT,
    TAKEN,
    UNAVAILABLE,
    UNSUPPORTED,
    FileInfo,
    NoSuchObject,
    StoreError,
    patience,
)

CONNECT_SECONDS = 10
ATTEMPTS = 4  # of one request; AWS_MAX_ATTEMPTS says otherwise
PART_BYTES = 32 << 20  # what is larger travels in parts of at least this size; a store takes 10,000 parts
MOST_PARTS = 10_000
CONNECTIONS = 32


class _Told(StoreError, PermanentException):
    """A `StoreError` that Beam does not answer by trying again: botocore has done so already."""


class _Gone(NoSuchObject, PermanentException):
    """The same of an object that is not there."""


def _failure(path: str, problem: str, kind: str) -> StoreError:
    return _Gone(path, problem) if kind == MISSING else _Told(path, problem, kind)


def reuse_client() -> None:
    """Have Beam's S3 file system use this module's client."""
    boto3_client.Client = _Client


class _Client(boto3_client.Client):
    """Beam's client, with one connection pool for the process.

    An object that is read in pieces is the one that was opened: pieces of a newer one are refused.
    """

    def __init__(self, options: Any) -> None:
        self.client = _connected(*_settings(options))
        self._tags: dict[tuple[str, str], str] = {}

    def get_object_metadata(self, request: Any) -> Any:
        found = head(f"s3://{request.bucket}/{request.object}", self.client)
        if found is None:
            raise messages.S3ClientError("no such object", 404)
        self._tags[request.bucket, request.object] = tag = found.get("ETag", "")
        return messages.Item(
            tag, request.object, found["LastModified"], found["ContentLength"], found.get("ContentType", "")
        )

    def get_range(self, request: Any, start: int, end: int) -> bytes:
        path = f"s3://{request.bucket}/{request.object}"
        tag = self._tags.get((request.bucket, request.object))
        condition = {"IfMatch": tag} if tag else {}
        broken: BaseException | None = None
        for _ in range(ATTEMPTS):  # botocore tries a request again, but not the rest of an answer
            try:
                with _telling(path):
                    answer = self.client.get_object(
                        Bucket=request.bucket, Key=request.object, Range=f"bytes={start}-{end - 1}", **condition
                    )
            except StoreError as error:
                if error.kind != TAKEN:
                    raise
                raise _Told(path, "the object was replaced while it was read", FAILED) from error
            try:
                data: bytes = answer["Body"].read()
            except _BROKEN_OFF as error:
                broken = error
                continue
            if len(data) == end - start:
                return data
        raise _Told(path, f"the store broke off its answer {ATTEMPTS} times, after byte {start:,}", SILENT) from broken

    def list(self, request: Any) -> Any:
        more = {"ContinuationToken": request.continuation_token} if request.continuation_token else {}
        with _telling(f"s3://{request.bucket}/{request.prefix}"):
            answer = self.client.list_objects_v2(Bucket=request.bucket, Prefix=request.prefix, **more)
        items = [
            messages.Item(entry.get("ETag", ""), entry["Key"], entry["LastModified"], entry["Size"])
            for entry in answer.get("Contents", ())
        ]
        return messages.ListResponse(items, answer.get("NextContinuationToken"))

    def delete_batch(self, request: Any) -> Any:
        keys = [{"Key": key} for key in request.objects]
        with _telling(f"s3://{request.bucket}/{request.objects[0]}"):
            answer = self.client.delete_objects(Bucket=request.bucket, Delete={"Objects": keys})
        failed = answer.get("Errors", [])
        return messages.DeleteBatchResponse(
            [entry["Key"] for entry in answer.get("Deleted", [])],
            [entry["Key"] for entry in failed],
            [messages.S3ClientError(entry.get("Message"), entry.get("Code")) for entry in failed],
        )


def _settings(options: Any) -> tuple[Any, ...]:
    """What Beam's flags say of the connection. Credentials are not among it: they come from the ambient chain."""
    view = (options if isinstance(options, PipelineOptions) else PipelineOptions([])).view_as(S3Options)
    return (
        view.s3_endpoint_url,
        view.s3_region_name,
        view.s3_api_version,
        not view.s3_disable_ssl,
        view.s3_verify,
        patience(),
    )


@functools.lru_cache(maxsize=8)
def _connected(endpoint: str | None, region: str | None, version: str | None, ssl: bool, verify: Any, wait: int) -> Any:
    named = {name: os.environ[name] for name in ("AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS") if os.environ.get(name)}
    retries: dict[str, Any] = {} if "AWS_RETRY_MODE" in named else {"mode": "standard"}
    if "AWS_MAX_ATTEMPTS" not in named:
        retries["total_max_attempts"] = ATTEMPTS
    config = Config(
        connect_timeout=min(CONNECT_SECONDS, wait),
        read_timeout=wait,
        retries=retries,
        max_pool_connections=CONNECTIONS,
    )
    session = boto3.session.Session(botocore_session=botocore.session.get_session())
    try:
        return session.client(
            "s3",
            region_name=region,
            api_version=version,
            use_ssl=ssl,
            verify=verify,
            endpoint_url=endpoint,
            config=config,
        )
    except (failures.BotoCoreError, ValueError) as error:  # a profile that is not there, an endpoint that is no URL
        raise _Told("s3://", f"the settings of the connection cannot be used: {error}", UNAVAILABLE) from None


def _client() -> Any:
    return _connected(*_settings(FileSystems._pipeline_options))


def _parts(path: str) -> tuple[str, str]:
    bucket, _, key = path.removeprefix("s3://").partition("/")
    return bucket, key


def listed(prefix: str) -> Iterator[FileInfo]:
    """All objects whose paths begin so. Beam's listing does not say etags, which tell versions apart for sure."""
    bucket, key = _parts(prefix)
    request = messages.ListRequest(bucket, key)
    client = _Client(FileSystems._pipeline_options)
    while True:
        answer = client.list(request)
        for item in answer.items:
            yield FileInfo(f"s3://{bucket}/{item.key}", item.size, _version(item.etag, item.last_modified))
        if not answer.next_token:
            return
        request.continuation_token = answer.next_token


def head(path: str, client: Any = None) -> dict[str, Any] | None:
    """What the store says of an object; None where there is none."""
    bucket, key = _parts(path)
    try:
        with _telling(path):
            found: dict[str, Any] = (client or _client()).head_object(Bucket=bucket, Key=key)
    except NoSuchObject:
        return None
    return found


def info(path: str) -> FileInfo | None:
    found = head(path)
    if found is None:
        return None
    return FileInfo(path, found["ContentLength"], _version(found.get("ETag", ""), found["LastModified"]))


def _version(tag: str, written: datetime) -> str:
    """A gateway over a file system has no etag of files that came there past it."""
    return tag.strip('"') or f"{written.timestamp()}"


def age(path: str) -> float | None:
    """Seconds since an object was written, both by the clock of the store; None where there is no such object."""
    found = head(path)
    if found is None:
        return None
    written: datetime = found["LastModified"]
    date = found["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(date) if date else datetime.now(written.tzinfo)
    return (now - written).total_seconds()


def read(path: str) -> tuple[bytes, str] | None:
    """An object and the tag of this version of it; None where there is none."""
    bucket, key = _parts(path)
    try:
        with _telling(path):
            answer = _client().get_object(Bucket=bucket, Key=key)
            return answer["Body"].read(), answer.get("ETag", "")
    except NoSuchObject:
        return None


def write(path: str, body: IO[bytes], size: int, condition: str | None = None) -> str:
    """Write an object whole or not at all; gives the tag of this version.

    `condition` is "*" for an object that must not be there yet, or the tag of the version to replace; where it does
    not hold the error's kind is TAKEN. The length is told beforehand, so a store that gets less keeps nothing.
    """
    bucket, key = _parts(path)
    under: dict[str, Any] = {}
    if condition is not None:
        under = {"IfNoneMatch": "*"} if condition == "*" else {"IfMatch": condition}
    client = _client()
    with _telling(path):
        if size <= PART_BYTES:
            answer = client.put_object(Bucket=bucket, Key=key, Body=body.read(size), ContentLength=size, **under)
            return str(answer.get("ETag", ""))
        return _write_parts(client, {"Bucket": bucket, "Key": key}, body, size, under)


def _write_parts(client: Any, where: dict[str, str], body: IO[bytes], size: int, under: dict[str, Any]) -> str:
    part_bytes = max(PART_BYTES, -(-size // MOST_PARTS))
    upload = client.create_multipart_upload(**where)["UploadId"]
    try:
        parts: list[dict[str, Any]] = []
        left = size
        while left:
            piece = body.read(min(part_bytes, left))
            if not piece:
                raise _Told(f"s3://{where['Bucket']}/{where['Key']}", "what was to be written ended early", FAILED)
            number = len(parts) + 1
            answer = client.upload_part(**where, UploadId=upload, PartNumber=number, Body=piece)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            left -= len(piece)
        done = client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts}, **under)
        return str(done.get("ETag", ""))
    except BaseException:  # an interrupt, too: parts that nobody completes are kept and billed
        with contextlib.suppress(Exception):
            client.abort_multipart_upload(**where, UploadId=upload)
        raise


_BROKEN_OFF = (
    failures.ResponseStreamingError,
    failures.IncompleteReadError,
    failures.ReadTimeoutError,
)
_SILENT = (failures.HTTPClientError, failures.ConnectionError, failures.EndpointConnectionError, *_BROKEN_OFF)
_NO_CREDENTIALS = (
    failures.NoCredentialsError,
    failures.PartialCredentialsError,
    failures.CredentialRetrievalError,
    failures.TokenRetrievalError,
)


@contextlib.contextmanager
def _telling(path: str) -> Iterator[None]:
    """Turns what boto raises into a `StoreError`."""
    try:
        yield
    except StoreError:
        raise
    except failures.ClientError as error:
        _tell_answer(path, error)
    except _NO_CREDENTIALS as error:
        problem = f"no credentials that can be used ({error}); set AWS_PROFILE, or what else boto3 looks for"
        raise _Told(path, problem, DENIED) from error
    except failures.ConnectTimeoutError as error:
        raise _Told(path, f"the store cannot be reached within {CONNECT_SECONDS} seconds", SILENT) from error
    except failures.ReadTimeoutError as error:
        raise _Told(path, f"the store did not answer within {patience()} seconds", SILENT) from error
    except _SILENT as error:
        reason = str(error).split("\n")[0]
        raise _Told(path, f"the store does not answer ({reason})", SILENT) from error
    except failures.ParamValidationError as error:
        reason = " ".join(str(error).split())
        raise _Told(path, f"is no path of an object ({reason})", FAILED) from error
    except Exception as error:  # whatever else it is, Beam would try it again for ten minutes
        raise _Told(path, f"{type(error).__name__}: {error}", FAILED) from error


_KINDS = {
    "NoSuchKey": MISSING,
    "NoSuchBucket": NO_BUCKET,
    "PreconditionFailed": TAKEN,
    "ConditionalRequestConflict": TAKEN,
    "NotImplemented": UNSUPPORTED,
    "ExpiredToken": DENIED,
    "InvalidToken": DENIED,
    "AuthorizationHeaderMalformed": DENIED,
}
_KINDS_BY_STATUS = {401: DENIED, 403: DENIED, 404: MISSING, 409: TAKEN, 412: TAKEN, 429: SILENT, 501: UNSUPPORTED}
_WORDS = {
    MISSING: "no such object",
    NO_BUCKET: "the bucket does not exist",
    DENIED: "the store denies access",
    TAKEN: "another writer was first",
    UNSUPPORTED: "the store cannot do this",
    SILENT: "the store failed",
    FAILED: "the store refused",
}


def _tell_answer(path: str, error: Any) -> NoReturn:
    answer = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    kind = _KINDS.get(code) or _KINDS_BY_STATUS.get(status) or (SILENT if status >= 500 else FAILED)
    said = ", ".join(filter(None, (f"{status}" if status else "", code if code != str(status) else "")))
    words = answer.get("Error", {}).get("Message", "")
    detail = f"{said}: {words}" if words and words != code else said
    raise _failure(path, f"{_WORDS[kind]} ({detail})", kind) from error
