"""When pods run and when they are gone, as the API server tells it the moment it knows: a watch by plain HTTPS, whose times are
this machine's. Owns the connection of the ordinary user; what is made with it is the caller's."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from handed import wait_until


class Api:
    """The API server as the user of a cluster's state folder sees it."""

    def __init__(self, state: Path, namespace: str) -> None:
        told = dict(line.removeprefix("export ").split("=", 1) for line in (state / "env.sh").read_text().splitlines())
        self.host = told["TESTKUBE_API"].removeprefix("https://")
        self.tls = ssl.create_default_context(cafile=told["TESTKUBE_CA"])
        token = Path(told["TESTKUBE_USER_TOKEN_FILE"]).read_text().strip()
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self.namespace = namespace

    def open(self, method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPSConnection(self.host, context=self.tls, timeout=300)
        connection.request(method, path, None if body is None else json.dumps(body), self.headers)
        answer = connection.getresponse()
        assert answer.status < 300, (method, path, answer.status, answer.read())
        return answer

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        with self.open(method, path, body) as answer:
            return json.load(answer)

    def jobs(self) -> str:
        return f"/apis/batch.volcano.sh/v1alpha1/namespaces/{self.namespace}/jobs"

    def pods(self, **query: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods?{urlencode(query)}"


class Pods:
    """Watches the pods with this label from now on, until it is left."""

    def __init__(self, api: Api, label: str) -> None:
        since = api.ask("GET", api.pods(labelSelector=label))["metadata"]["resourceVersion"]
        self.running: dict[str, float] = {}
        """When each pod was told to run, in seconds since the epoch."""
        self.seen: dict[str, dict[str, Any]] = {}
        self.there: set[str] = set()
        self.answer = api.open("GET", api.pods(labelSelector=label, watch="1", resourceVersion=since))
        self.thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The watch ends with the process: nobody but the server can end its answer."""

    def _read(self) -> None:
        for line in self.answer:
            now, event = time.time(), json.loads(line)
            pod = event["object"]
            name = pod["metadata"]["name"]
            self.seen[name] = pod
            if event["type"] == "DELETED":
                self.there.discard(name)
                continue
            self.there.add(name)
            if pod["status"].get("phase") == "Running":
                self.running.setdefault(name, now)

    def wait_running(self, number: int) -> float:
        """Waits until so many have run; when the last of them began."""
        wait_until(lambda: len(self.running) >= number, f"{number} pods run", 180, every=0.02, state=lambda: self.seen)
        return max(self.running.values())

    def wait_gone(self) -> None:
        wait_until(lambda: not self.there, "the pods are gone", 180, every=0.02, state=lambda: sorted(self.there))
