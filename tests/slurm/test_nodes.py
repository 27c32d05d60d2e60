"""Laws of the program on a node as an ordinary user has it, with no scheduler of ours in between: a job's script may run it."""

from __future__ import annotations

from cluster import ROOT, Cluster, wait_until
from support import User


def job_of(user: User, *words: str) -> dict[str, str]:
    """A batch job that runs this command, when it has ended; its output's path is in `StdOut`."""
    where = user.new_notes()
    done = user.run("sbatch", "--parsable", "-n1", "-c2", "-o", where / "out", "--wrap", " ".join(words))
    assert done.code == 0, done

    def ended() -> dict[str, str]:
        rows = [row for row in user.cluster.jobs() if row["JobId"] == done.out.strip()]
        return rows[0] if rows[0]["JobState"] not in ("PENDING", "RUNNING", "COMPLETING") else {}

    job: dict[str, str] = wait_until(ended, f"job {done.out} ends")
    return job


def test_a_job_runs_a_local_pipeline_on_its_node_and_leaves_nothing(cluster: Cluster, user: User) -> None:
    job = job_of(user, "bridgehead run --cpus 2", str(ROOT / "examples/digits.py"))
    with open(job["StdOut"]) as file:
        text = file.read()
    assert job["JobState"] == "COMPLETED", text
    assert "random forest" in text
    wait_until(lambda: not cluster.processes(f"BRIDGEHEAD_HOME={user.home}"), "no process is left")
    assert cluster.memory_left() == []


def test_nodes_have_each_their_own_memory_and_folder_for_sockets(cluster: Cluster, user: User) -> None:
    for host, text in (("n1", "one"), ("n2", "two")):
        done = user.run("sh", "-c", f"echo {text} >/tmp/mark; cat /tmp/mark; rm /tmp/mark; hostname", host=host)
        assert done.out.split() == [text, host], done
