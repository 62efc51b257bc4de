"""A store to test against: moto's S3 server on the loopback, and a proxy before it that fails on request."""

from __future__ import annotations

import http.client
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUCKET = "mixes"
URL = f"s3://{BUCKET}"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": "test-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def moto_server() -> Iterator[str]:
    """The URL of an empty store of this process."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@dataclass
class Request:
    """What a fault may look at: the method, the path with its query, and how many like it came before."""

    method: str
    path: str
    body: bytes
    before: int


Fault = Callable[["_Handler", Request], None]
"""Answers in the place of the store, or does not answer at all."""


@dataclass
class Rule:
    method: str
    pattern: str
    fault: Fault
    first: int = 0  # requests that pass before the fault begins
    times: int | None = None  # how often it happens; None: from then on
    seen: int = 0

    def applies(self, method: str, path: str) -> bool:
        if method != self.method or not re.search(self.pattern, path):
            return False
        number = self.seen - self.first
        self.seen += 1
        return number >= 0 and (self.times is None or number < self.times)


@dataclass
class Proxy:
    """Passes requests on to a store, but for those that a rule fails."""

    upstream: str
    rules: list[Rule] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, method: str, pattern: str, fault: Fault, first: int = 0, times: int | None = None) -> None:
        self.rules.append(Rule(method, pattern, fault, first, times))

    def heal(self) -> None:
        self.rules.clear()
        self.log.clear()

    def fault_of(self, method: str, path: str) -> Rule | None:
        with self._lock:
            self.log.append((method, path))
            return next((rule for rule in list(self.rules) if rule.applies(method, path)), None)

    def count(self, method: str, pattern: str) -> int:
        return sum(verb == method and bool(re.search(pattern, path)) for verb, path in self.log)

    @contextmanager
    def serving(self) -> Iterator[Proxy]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.daemon_threads = True
        server.proxy = self  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _pass_on(self) -> None:
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        if self.headers.get("Expect"):
            self.send_response_only(100)
            self.end_headers()
        body = self._body()
        rule = proxy.fault_of(self.command, self.path)
        if rule is not None:
            rule.fault(self, Request(self.command, self.path, body, rule.seen))
            return
        status, headers, answer = self.ask_store(body)
        self.answer(status, headers, answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

    def handle_expect_100(self) -> bool:
        return True  # said in `_pass_on`

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def ask_store(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        connection = http.client.HTTPConnection(proxy.upstream.removeprefix("http://"), timeout=60)
        headers = {n: v for n, v in self.headers.items() if n.lower() not in ("connection", "expect")}
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            headers = {n: v for n, v in headers.items() if n.lower() != "transfer-encoding"}
            headers["Content-Length"] = str(len(body))
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), data

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes, cut: int | None = None) -> None:
        self.send_response_only(status)
        length = next((v for n, v in headers if n.lower() == "content-length"), str(len(body)))
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)


def status(code: int, word: str) -> Fault:
    """An error of the store, in its own words."""

    def fault(handler: _Handler, request: Request) -> None:
        body = b"" if request.method == "HEAD" else f"<Error><Code>{word}</Code><Message>no</Message></Error>".encode()
        handler.answer(code, [("Content-Type", "application/xml")], body)

    return fault


def silence(seconds: float) -> Fault:
    """No answer for a while, and then none either."""

    def fault(handler: _Handler, _: Request) -> None:
        time.sleep(seconds)
        handler.hang_up()

    return fault


def hang_up(handler: _Handler, _: Request) -> None:
    handler.hang_up()


def cut_answer(handler: _Handler, request: Request) -> None:
    """The first half of what the store says."""
    code, headers, body = handler.ask_store(request.body)
    handler.answer(code, headers, body, cut=len(body) // 2)


def forget_answer(handler: _Handler, request: Request) -> None:
    """The store does as it is told, and its answer is lost."""
    handler.ask_store(request.body)
    handler.hang_up()


def lie(handler: _Handler, _: Request) -> None:
    """The store says that it took what it did not take."""
    handler.answer(200, [("ETag", '"00000000000000000000000000000000"')], b"")


def everything_below(url: str) -> dict[str, bytes]:
    from transforms import files, stores

    return {entry.path[len(url) + 1 :]: files.read_bytes(entry.path) for entry in stores.listed(f"{url}/")}
