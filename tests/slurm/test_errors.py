"""Laws of what cannot be submitted: one message that names the thing and the way out, a documented exit code, and no job; and of
answers that are lost: the job that was made is found, and none is made twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, wait_until
from support import SCRIPT, User, check

REFUSED, UNREACHABLE, DENIED, USAGE = 7, 8, 9, 2
REST = ["--slurm-door", "rest", "--rest-url", "http://ctl:6820"]


def check_refused(user: User, code: int, *options: object, says: tuple[str, ...], **env: str) -> None:
    """The submission fails so, and nothing was submitted."""
    jobs = {job["JobId"] for job in user.cluster.jobs()}
    words = ["submit", "--on", "slurm", *options, SCRIPT, "gates", user.new_notes(), 1]
    user.check(*words, code=code, err=says, **env)
    # The walltime run's follow-up jobs, which come by themselves, are the only new ones.
    new = [job for job in user.cluster.jobs() if job["JobId"] not in jobs and job["Partition"] != "short"]
    assert new == []
    assert "gates" not in [row["name"] for row in user.json("ps") if row["phase"] in ("queued", "running")]


@pytest.mark.parametrize("door", ["rest", "cli"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--partition", "nowhere"], ("nowhere", "main")),
        (["--nodes", 99], ("99", "4")),
        (["--nodes", 1, "--cpus", 1000], ("1000", "8")),
        (["--nodes", 1, "--memory", "900GiB"], ("921600", "16000")),
        (["--nodes", 1, "--gpus", 64], ("64", "2")),
        (["--partition", "short", "--time", "2h"], ("short", "1")),
        (["--partition", "closed", "--account", "chemistry"], ("closed", "physics")),
    ],
    ids=["partition", "nodes", "cpus", "memory", "gpus", "time", "account"],
)
def test_what_no_node_can_give_is_refused(user: User, door: str, options: list[object], says: tuple[str, ...]) -> None:
    way = [*REST, "--token-file", user.token] if door == "rest" else ["--slurm-door", "cli"]
    check_refused(user, REFUSED, *way, *options, says=says)


def test_an_option_that_makes_no_sense_is_named(user: User) -> None:
    check_refused(user, USAGE, "--slurm", "nodez=3", says=("nodez", "nodes"))
    check_refused(user, USAGE, "--time", "soon", says=("soon",))
    check_refused(user, USAGE, "--memory", "much", says=("much",))


def test_an_expired_token_is_named_with_the_way_to_a_new_one(user: User, cluster: Cluster) -> None:
    token = user.new_notes() / "token"
    done = user.run("scontrol", "token", "lifespan=1")
    private(token, done.out.removeprefix("SLURM_JWT="))
    url = f"{cluster.rest_url}/slurm/v0.0.38/ping"
    headers = ["-H", f"X-SLURM-USER-NAME: {user.name}", "-H", f"X-SLURM-USER-TOKEN: {token.read_text().strip()}"]
    wait_until(lambda: user.run("curl", "-sf", *headers, url).code != 0, "the token has expired")
    check_refused(user, DENIED, *REST, "--token-file", token, says=(str(token), "scontrol token"))


def private(path: Path, text: str) -> None:
    """A file as a user writes it who wants it for himself."""
    path.touch(mode=0o600)
    path.write_text(text)
    shutil.chown(path, "hpcuser")


def test_what_is_no_token_is_named(user: User) -> None:
    empty, missing, garbage, public = (user.new_notes() / name for name in ("empty", "missing", "garbage", "public"))
    private(empty, "")
    private(garbage, "not a token")
    private(public, user.token.read_text())
    public.chmod(0o644)
    for token, says in ((empty, "token"), (missing, "token"), (garbage, "scontrol token"), (public, "chmod 600")):
        check_refused(user, DENIED, *REST, "--token-file", token, says=(str(token), says))


def test_a_rest_service_that_cannot_be_reached_is_named(user: User) -> None:
    url = "http://127.0.0.1:9"
    way = ["--slurm-door", "rest", "--rest-url", url, "--token-file", user.token]
    check_refused(user, UNREACHABLE, *way, says=(url, 'door="cli"'))


def test_commands_that_are_not_there_are_named(user: User) -> None:
    check_refused(
        user, UNREACHABLE, "--slurm-door", "cli", says=("sbatch",), PATH=str(Path(user.env["PATH"].split(":")[0]))
    )


SWALLOWS = '''
"""Hands requests on to slurmrestd; the answer to the first submission is lost."""
import socket, sys, threading

def pump(source, target):
    while data := source.recv(65536):
        target.sendall(data)

lost = []
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    client, _ = server.accept()
    def serve(client=client):
        upstream = socket.create_connection(("ctl", 6820))
        asked = client.recv(65536)
        upstream.sendall(asked)
        if b"job/submit" in asked and not lost:
            lost.append(1)
            # The rest of the request, then the whole answer, which nobody gets.
            client.settimeout(1)
            try:
                while data := client.recv(65536):
                    upstream.sendall(data)
            except OSError:
                pass
            upstream.recv(65536)
            upstream.close()
            client.close()
            return
        threading.Thread(target=pump, args=(client, upstream), daemon=True).start()
        try:
            pump(upstream, client)
        except OSError:
            pass
        client.close()
    threading.Thread(target=serve, daemon=True).start()
'''


@pytest.fixture
def swallower(user: User) -> Iterator[str]:
    """A way to slurmrestd on which the answer to the first submission is lost."""
    script = user.new_notes() / "swallow.py"
    script.write_text(SWALLOWS)
    process = user.start("python", script)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.communicate()


def test_a_submission_whose_answer_is_lost_finds_its_job(user: User, cluster: Cluster, swallower: str) -> None:
    way = ["--slurm-door", "rest", "--rest-url", swallower, "--token-file", user.token]
    run = user.submit("sweep", 2, 0.1, on=[*way, "--nodes", 1, "--cpus", 1, "--time", "10m"])
    check(run)
    assert len(cluster.jobs(run.id)) == 1


SBATCH = """#!/bin/sh
# The first job is made, and the answer is lost, as a busy controller does.
if mkdir "$LOST" 2>/dev/null; then
  /usr/bin/sbatch "$@" >/dev/null
  echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
  exit 1
fi
exec /usr/bin/sbatch "$@"
"""


def test_a_submission_by_command_whose_answer_is_lost_finds_its_job(user: User, cluster: Cluster) -> None:
    folder = user.new_notes()
    (folder / "sbatch").write_text(SBATCH)
    (folder / "sbatch").chmod(0o755)
    env = {"PATH": f"{folder}:{user.env['PATH']}", "LOST": str(folder / "lost")}
    on = ["--slurm-door", "cli", "--nodes", 1, "--cpus", 1, "--time", "10m"]
    run = user.submit("sweep", 2, 0.1, on=on, **env)
    check(run)
    assert (folder / "lost").exists()
    assert len(cluster.jobs(run.id)) == 1


def test_a_controller_that_is_away_is_named_and_nothing_is_lost(cluster: Cluster, user: User) -> None:
    with cluster.fault("stop-slurmctld", "ctl"):
        words = ["submit", "--on", "slurm", "--slurm-door", "cli", "--nodes", 1, SCRIPT, "gates", user.new_notes(), 1]
        user.check(*words, code=UNREACHABLE, err=("controller", "scontrol ping"))
