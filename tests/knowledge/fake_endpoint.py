"""An OpenAI-compatible server of a test's own, which answers as it is told and remembers what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SENTENCE = "On a brain MRI with a glioma, an irregular mass is bright on T2-weighted images, with edema around it ({})."


def chat(text: str | None, **more: Any) -> bytes:
    """The body of a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    told = {"model": "served-7b", "system_fingerprint": "fp_1", "usage": {"total_tokens": 60}}
    return json.dumps({"choices": [choice], **told, **more}).encode()


@dataclass
class Reply:
    """How a request is answered, after `wait` seconds.

    Attributes:
        length: the length that the headers tell, where it isn't the body's.
        endless: the body never ends.
        drip: seconds between the bytes of a long header.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    endless: bool = False
    wait: float = 0.0
    drip: float = 0.0


@dataclass
class Server:
    """What the server was asked: of each request its headers and its body; and where it listens."""

    url: str
    requests: list[tuple[dict[str, str], dict[str, Any], str]] = field(default_factory=list)

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies."""
        return [body for _, body, _ in self.requests]


Answering = Callable[[int, dict[str, Any]], Reply]


def say(number: int, body: dict[str, Any]) -> Reply:
    """A new sentence each time that something else is asked."""
    return Reply(chat(SENTENCE.format(f"{body['seed']}")))


@contextmanager
def serving(answer: Answering = say) -> Iterator[Server]:
    """Run a server that answers the n-th request, from 0, with `answer(n, body)`."""
    lock, stopped = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                number = len(server.requests)
                server.requests.append((dict(self.headers), json.loads(raw), self.path))
            reply = answer(number, server.requests[number][1])
            stopped.wait(reply.wait)
            try:
                self._send(reply)
            except OSError:  # the client has had enough
                self.close_connection = True

        def _send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            length = len(reply.body) if reply.length is None else reply.length
            self.send_header("Content-Length", str(10**12 if reply.endless else length))
            if reply.drip:
                self.flush_headers()
                for letter in b"X-Slow: " + b"x" * 100:
                    stopped.wait(reply.drip)
                    self.wfile.write(bytes([letter]))
                self.wfile.write(b"\r\n")
            self.end_headers()
            self.wfile.write(reply.body)
            while reply.endless and not stopped.is_set():
                self.wfile.write(b" " * 65536)
            if reply.length is not None:
                self.close_connection = True

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_address[1]}/v1")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        stopped.set()
        http.shutdown()
        http.server_close()
        thread.join()
