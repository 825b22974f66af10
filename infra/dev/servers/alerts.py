"""A webhook for tests: appends the JSON of each POST to a file, one per line. Usage: alerts.py PORT FILE"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Recorder(BaseHTTPRequestHandler):
    """Answers GET with 200 and keeps what is posted."""

    file: Path

    def do_GET(self) -> None:
        """Say that the server is up."""
        self._answer(200)

    def do_POST(self) -> None:
        """Keep the body if it is JSON."""
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            alert = json.loads(text)
        except ValueError:
            self._answer(400)
            return
        with self.file.open("a") as output:
            output.write(json.dumps(alert) + "\n")
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    Recorder.file = Path(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Recorder).serve_forever()
