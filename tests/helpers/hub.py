"""A hub on loopback: as much of the Hub's protocol as an upload by huggingface_hub needs."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class Hub(ThreadingHTTPServer):
    """Repositories in memory; used in a `with`.

    Args:
        refuses: a part of the paths that it answers with 403.
    """

    def __init__(self, refuses: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.refuses = refuses
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.tokens: set[str] = set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "Hub":
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin(self) -> tuple[str, bytes]:
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/objects/" not in path:
            self.server.tokens.add(self.headers.get("Authorization", ""))
        return path, body

    def do_GET(self) -> None:
        path, _ = self.begin()
        if path == "/api/whoami-v2":
            self.answer({"name": "me", "type": "user"})
        else:
            self.answer({"error": path}, 404)

    def do_PUT(self) -> None:
        path, body = self.begin()
        self.server.objects[path.rpartition("/")[2]] = body
        self.answer({})

    def do_POST(self) -> None:
        path, body = self.begin()
        if self.server.refuses is not None and self.server.refuses in path:
            self.answer({"error": "not allowed"}, 403)
        elif path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self.answer({"url": f"{self.server.endpoint}/me/gru-back"})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            modes = [
                ("lfs" if each["path"].endswith(".safetensors") else "regular", each["path"])
                for each in json.loads(body)["files"]
            ]
            self.answer({"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for mode, name in modes]})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.server.endpoint}/objects/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            self.commit([json.loads(line) for line in body.splitlines()])
            self.answer({"commitUrl": f"{self.server.endpoint}/me/gru-back/commit/1a2b", "commitOid": "1a2b"})
        else:
            self.answer({"error": path}, 404)

    def commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.objects[value["oid"]]
