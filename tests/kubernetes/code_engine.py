"""A rehearsal of Code Engine on this machine: an API server that takes a job run and its Secrets and has nothing else, and pods that are
processes with a file system and a network of their own. It stands in for the service as far as its documents show it; the service
itself is not here."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

GROUP = "codeengine.cloud.ibm.com"
IMAGE = Path("/image")
"""Where pods see the virtual environment of the tests, whoever may read the folders above it; its Python is where it was."""
UID = 1000730001
"""A user that no image knows; its group is 0."""
_START = """
set -eu
user=$1 new=$2 base=$3; shift 3
mount -t tmpfs none "$new"
mkdir "$new/dev" "$new/proc"
for at in /bin /sbin /lib /lib64 /usr /etc; do
  if [ -L "$at" ]; then cp -P "$at" "$new$at"; elif [ -d "$at" ]; then mkdir "$new$at"; mount --rbind "$at" "$new$at"; fi
done
case $base in /usr | /usr/*) ;; *) mkdir -p "$new$base"; mount --bind "$base" "$new$base" ;; esac
mount -t tmpfs none "$new/dev"
for at in null zero full random urandom; do : > "$new/dev/$at"; mount --bind "/dev/$at" "$new/dev/$at"; done
mount -t proc none "$new/proc"
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir -p "$new$2"; else : > "$new$2"; fi
  mount --bind "$1" "$new$2"
  shift 2
done
shift
exec /usr/sbin/chroot --userspec=$user:0 --groups= "$new" "$@"
"""


def _status(code: int) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "not here"}


class Service:
    """The API server. `objects` has what was made, by path."""

    def __init__(self, folder: Path) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "{}")
                code, found = service.answer(self.command, self.path.split("?")[0], body)
                text = json.dumps(found).encode()
                self.send_response(code)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PATCH = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.kubeconfig = folder / "kubeconfig"
        cluster = {"name": "rehearsal", "cluster": {"server": f"http://127.0.0.1:{self._server.server_port}"}}
        context = {"name": "rehearsal", "context": {"cluster": "rehearsal", "user": "me", "namespace": "project"}}
        user = {"name": "me", "user": {}}
        config = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "rehearsal"}
        self.kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **config}))

    def answer(self, verb: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/apis":
            version = {"version": "v1beta1", "resources": [{"resource": "jobruns"}]}
            group = {"metadata": {"name": GROUP}, "versions": [version]}
            return 200, {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": [group]}
        if path.endswith("/selfsubjectrulesreviews"):
            everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            return 201, {**body, "status": {"incomplete": False, "nonResourceRules": [], "resourceRules": [everything]}}
        if verb == "GET":
            return (200, self.objects[path]) if path in self.objects else (404, _status(404))
        if verb == "POST":
            path = f"{path}/{body['metadata']['name']}"
        elif path in self.objects:
            was = self.objects[path]
            body = {**was, **body, "metadata": {**was["metadata"], **body["metadata"]}}
        body["metadata"].setdefault("uid", "00000000-0000-4000-8000-000000000001")
        self.objects[path] = body
        return (201 if verb == "POST" else 200), body

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [made for path, made in self.objects.items() if f"/{kind}/" in path]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Pod:
    """A pod of an array: started, and started again by `retry` as the service does with one that failed."""

    def __init__(self, place: Place, run: dict[str, Any], index: int, indices: str | None) -> None:
        self._place, self._run, self.index, self._indices = place, run, index, indices
        self.tries = 0
        self.retry()

    def retry(self) -> None:
        self.volumes = self._place.folder / f"pod-{self.index}-{self.tries}"
        (container,) = self._run["template"]["containers"]
        mounts: list[object] = [sys.prefix, IMAGE, self.volumes / "end", "/dev/termination-log"]
        places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        for volume in self._run["template"]["volumes"]:
            self._fill(volume, self.volumes / volume["name"])
            mounts += [self.volumes / volume["name"], places[volume["name"]]]
        (self.volumes / "end").touch()
        (self.volumes / "end").chmod(0o666)
        (self.volumes / "root").mkdir()
        named = {
            "status.podIP": "127.0.0.1",
            "metadata.name": f"{self._place.name}-{self.index}-{self.tries}",
        }
        env = {
            one["name"]: one["value"] if "value" in one else named[one["valueFrom"]["fieldRef"]["fieldPath"]]
            for one in container["env"]
        }
        env |= {"PATH": f"{IMAGE}/bin:/usr/bin:/bin", "JOB_INDEX": str(self.index), "JOB_RETRY_INDEX": str(self.tries)}
        if self._indices:
            env["BRIDGEHEAD_INDICES"] = self._indices
        self.tries += 1
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        start = ["sh", "-c", _START, "pod", str(UID), self.volumes / "root", sys.base_prefix, *mounts, "--"]
        with (self.volumes / "out").open("w") as out:
            self.process = subprocess.Popen(
                [*self._place.enter, *own, *start, *container["command"]],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def _fill(self, volume: dict[str, Any], folder: Path) -> None:
        """What the volume holds, as any user of group 0 may read it."""
        folder.mkdir(parents=True)
        sources = [{"secret": {"name": volume["secret"]["secretName"]}}] if "secret" in volume else []
        for source in volume.get("projected", {}).get("sources", sources):
            for name, text in self._place.secrets[source["secret"]["name"]].items():
                (folder / name).write_bytes(base64.b64decode(text))
                (folder / name).chmod(0o440)
        if "emptyDir" in volume:
            folder.chmod(0o777)

    @property
    def runs(self) -> Path:
        return self.volumes / "runs"

    def said(self) -> str:
        return (self.volumes / "out").read_text(errors="replace")

    def kill(self) -> None:
        """Ends every process of the pod at once: the first one of its namespace takes all with it."""
        parent = self.process.pid
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        self.process.wait()


class Place:
    """One network for the pods of a gang, in which nothing but they is reached."""

    def __init__(self, folder: Path, service: Service) -> None:
        (self.run,) = service.of("jobruns")
        self.name = self.run["metadata"]["name"]
        self.folder = folder
        self.secrets = {secret["metadata"]["name"]: secret["data"] for secret in service.of("secrets")}
        self._pods: list[Pod] = []
        self._net = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._net.stdout and self._net.stdout.readline() == b"up\n"
        self.enter = ["nsenter", f"--net=/proc/{self._net.pid}/ns/net"]

    def pod(self, index: int, indices: str | None = None) -> Pod:
        """Starts the pod of an index. With `indices` they are what the array was started with, else what the job run has."""
        self._pods.append(Pod(self, self.run["spec"]["jobDefinitionSpec"], index, indices))
        return self._pods[-1]

    def close(self) -> None:
        for pod in self._pods:
            if pod.process.poll() is None:
                pod.kill()
        self._net.kill()
        self._net.communicate()


@contextlib.contextmanager
def service(folder: Path) -> Iterator[Service]:
    made = Service(folder)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def place(folder: Path, made: Service) -> Iterator[Place]:
    found = Place(folder, made)
    try:
        yield found
    finally:
        found.close()
