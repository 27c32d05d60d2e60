"""A gang under the rules of Code Engine: sparse indices, no Service, no token, a random user, pods that are tried again one by one. It is
a rehearsal of what the service's documents say (`code_engine.py`), and needs no cluster."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import code_engine
import pytest
from code_engine import IMAGE, Place, Pod, Service
from handed import BIN, wait_until
from support import SCRIPT

HEAD = "127.0.0.1:7641"
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="a network and a file system of one's own need root")


@pytest.fixture(autouse=True)
def tidy() -> None:
    """Nothing of a cluster is used here, so there is nothing to tidy up in one."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with code_engine.service(tmp_path) as made:
        yield made


def bridgehead(service: Service, *words: object) -> tuple[int, str, str]:
    home = service.kubeconfig.parent
    env = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), "BRIDGEHEAD_HOME": str(home / "bridgehead")}
    env |= {"KUBECONFIG": str(service.kubeconfig), "BRIDGEHEAD_IMAGE": "registry.example/app:1", "LANG": "C.UTF-8"}
    done = subprocess.run(
        [BIN / "bridgehead", *map(str, words)],
        env=env,
        cwd=SCRIPT.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def place(service: Service, tmp_path: Path) -> Iterator[Place]:
    """Two pods' place, after a submission of six arrays that are summed."""
    (tmp_path / "pods").mkdir()
    words = ["submit", "--on", "kubernetes", "--flavor", "code-engine", "--nodes", 2, "--keep", "1s"]
    options = [f"env={json.dumps({'BRIDGEHEAD_HEAD': HEAD})}", f"python={IMAGE}/bin/python"]
    told = [word for option in options for word in ("--kubernetes", option)]
    code, out, err = bridgehead(service, *words, *told, SCRIPT, "arrays", 6, 0.5)
    assert code == 0, (out, err)
    with code_engine.place(tmp_path / "pods", service) as place:
        yield place


def status(head: Pod) -> dict[str, Any]:
    found = list(head.runs.glob("*/status.json"))
    read: dict[str, Any] = json.loads(found[0].read_text()) if found else {"phase": "", "tasks": {}}
    return read


def ended(*pods: Pod) -> list[int]:
    """The exit codes of these pods, once all have ended."""
    said = lambda: "\n".join(pod.said() for pod in pods)  # noqa: E731
    wait_until(lambda: all(pod.process.poll() is not None for pod in pods), "the pods have ended", 120, state=said)
    return [pod.process.returncode for pod in pods]


def test_the_job_run_fits_and_has_no_service_and_no_secret_in_its_variables(place: Place, service: Service) -> None:
    assert len(json.dumps(place.run)) < 10 << 10
    assert service.of("services") == []
    assert "PRIVATE KEY" not in json.dumps(place.run)
    owners = [secret["metadata"]["ownerReferences"][0]["name"] for secret in service.of("secrets")]
    assert set(owners) == {place.name}, "secrets go with the job run"
    spec = place.run["spec"]["jobDefinitionSpec"]
    told = {one["name"]: one.get("value") for one in spec["template"]["containers"][0]["env"]}
    assert told["BRIDGEHEAD_INDICES"] == spec["arraySpec"] == "0-1"


@pytest.mark.parametrize(("indices", "told"), [((0, 1), None), ((4, 7), "4,7")])
def test_a_gang_meets_at_the_heads_address_whatever_its_indices(
    place: Place, indices: tuple[int, int], told: str | None
) -> None:
    head, agent = (place.pod(index, told) for index in indices)
    assert ended(head, agent) == [0, 0], head.said() + agent.said()
    seen = status(head)
    assert (seen["phase"], seen["tasks"]["finished"], len(seen["agents"])) == ("finished", 7, 2), seen
    assert json.loads((head.volumes / "end").read_text())["rank"] == 0
    assert json.loads((agent.volumes / "end").read_text())["rank"] == 1


def test_an_index_that_was_not_announced_is_refused(place: Place) -> None:
    stranger = place.pod(7)
    assert ended(stranger)[0] not in (0, 1, 6), "it may be tried again"
    assert "BRIDGEHEAD_INDICES" in stranger.said()


def test_a_pod_that_is_tried_again_joins_again(place: Place) -> None:
    head, agent = place.pod(0), place.pod(1)
    wait_until(lambda: status(head)["tasks"].get("finished", 0) >= 1, "a task has finished", 60, state=head.said)
    agent.kill()
    agent.retry()
    assert ended(head, agent) == [0, 0], head.said() + agent.said()
    seen = status(head)
    assert (seen["phase"], seen["attempt"], seen["tasks"]["finished"]) == ("finished", 1, 7), seen
