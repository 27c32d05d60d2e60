"""Laws of the sockets that listen: what is no message is refused and logged, and the run goes on. (Certificates and
tickets: `launcher/head/tests/channel.rs`.)"""

from __future__ import annotations

import json
import os
import random
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bridgehead as bh
import pytest
from support import processes_of, wait_gone, wait_until

PROTOCOL = 1
CLIENT_KINDS = range(0, 40)


def hold(folder: str, x: int) -> int:
    """Runs until it is let go."""
    import time

    Path(folder, f"begun-{x}").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.005)
    return x * x


@pytest.fixture
def run(tmp_path: Path) -> Iterator[bh.Run]:
    """A run with two agents in the middle of its tasks; afterwards it must finish as if nothing had been."""
    p = bh.Pipeline("listens")
    nodes = [p.add(bh.task(hold), str(tmp_path), x) for x in range(2)]
    run = p.run(agents=2, cpus=2, wait=False)
    for x in range(2):
        wait_until(lambda x=x: (tmp_path / f"begun-{x}").exists(), f"task {x} has begun")
    before = processes_of(run.folder, "head") + processes_of(run.folder, "agent")
    yield run
    assert processes_of(run.folder, "head") + processes_of(run.folder, "agent") == before, log(run)
    (tmp_path / "go").touch()
    assert run.wait(60) == "finished"
    assert [run[node].result(60) for node in nodes] == [0, 1]
    assert "panicked" not in log(run)
    assert not [event for event in run.events() if event["event"] in ("agent-lost", "task-retried")]
    run.close()
    wait_gone(run.folder)


def log(run: bh.Run) -> str:
    return (run.folder / "logs/head.log").read_text()


def connect(run: bh.Run, where: str) -> socket.socket:
    info = json.loads((run.folder / "head.json").read_text())
    if where == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(info["socket"])
    else:
        host, _, port = info["address"].rpartition(":")
        sock = socket.create_connection((host, int(port)))
    sock.settimeout(30)
    return sock


def send(sock: socket.socket, data: bytes) -> None:
    """Sends to a peer that may have closed already."""
    try:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError, OSError):
        pass


def check_closed(sock: socket.socket) -> None:
    """The other side closes, whatever it says before."""
    with sock:
        try:
            while sock.recv(65536):
                pass
        except ConnectionResetError:
            pass


def frame(kind: int, body: bytes, protocol: int = PROTOCOL, length: int | None = None) -> bytes:
    return struct.pack("<IHH", len(body) if length is None else length, kind, protocol) + body


@pytest.mark.parametrize("where", ["unix", "tls"])
def test_random_bytes_are_refused(run: bh.Run, where: str, seed: int) -> None:
    rng = random.Random(seed)
    for size in (1, 7, 8, 9, 64, 5000, 200_000):
        sock = connect(run, where)
        send(sock, rng.randbytes(size))
        check_closed(sock)
    assert "refused" in log(run) or "no message" in log(run)


def test_frames_of_random_bodies_are_refused(run: bh.Run, seed: int) -> None:
    rng = random.Random(seed)
    for kind in CLIENT_KINDS:
        sock = connect(run, "unix")
        send(sock, frame(kind, rng.randbytes(rng.randrange(0, 300))))
        check_closed(sock)


@pytest.mark.parametrize(
    "data",
    [
        frame(1, b"", length=0xFFFF_FFFF),
        frame(1, b"", length=(64 << 20) + 1),
        frame(1, b"", protocol=99),
        frame(0xFFFF, b""),
        frame(1, b"half", length=1000),
        frame(1, b"")[:5],
        frame(1, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    ],
    ids=[
        "longest",
        "too long",
        "another protocol",
        "unknown kind",
        "half a body",
        "half a header",
        "bad length inside",
    ],
)
def test_a_broken_frame_closes_its_connection_only(run: bh.Run, data: bytes) -> None:
    sock = connect(run, "unix")
    send(sock, data)
    check_closed(sock)


def test_messages_before_the_greeting_change_nothing(run: bh.Run) -> None:
    """`Cancel(all)` from one that has not said which run it means."""
    for kind in CLIENT_KINDS:
        sock = connect(run, "unix")
        send(sock, frame(kind, b"\x10\x01"))  # Field 2, a true flag.
        check_closed(sock)
    assert run.phase == "running"


def join(run: bh.Run, tmp_path: Path, change: bytes = b"") -> bytes:
    """Joins as agent 1 with its own ticket, `change` put over the first bytes of the secret; what the head answers."""
    ticket = json.loads((run.folder / "tls/agent-1.json").read_text())
    for name in ("authority", "certificate", "key"):
        (tmp_path / name).write_text(ticket[name])
    context = ssl.create_default_context(cafile=str(tmp_path / "authority"))
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    context.set_alpn_protocols(["bridgehead-agent/1"])
    secret = change + bytes(ticket["secret"])[len(change) :]
    name = run.id.encode()
    body = b"\x08\x01" + b"\x12\x20" + secret + b"\x3a" + bytes([len(name)]) + name
    answer = b""
    with context.wrap_socket(connect(run, "tls"), server_hostname="head.bridgehead.internal") as sock:
        sock.sendall(frame(1, body))
        while data := sock.recv(65536):
            answer += data
    return answer


def test_an_agent_that_comes_twice_is_refused_and_the_first_one_stays(run: bh.Run, tmp_path: Path) -> None:
    assert b"is here already" in join(run, tmp_path)
    assert "its rank is here already" in log(run)
    assert [agent["agent"] for agent in run.status()["agents"]] == [0, 1]


def test_an_agent_with_a_wrong_ticket_is_told_why(run: bh.Run, tmp_path: Path) -> None:
    assert b"not one of this attempt" in join(run, tmp_path, b"wrong")
    assert "not one of this attempt" in log(run)


def test_slow_and_silent_peers_keep_nobody_out(run: bh.Run) -> None:
    slow = [connect(run, where) for where in ("unix", "tls") for _ in range(20)]
    for sock in slow:
        sock.sendall(b"\x16" if sock.family != socket.AF_UNIX else b"\0")
    assert bh.connect(run.id).status()["phase"] == "running"
    for sock in slow:
        sock.close()


def test_a_tls_port_that_is_spoken_to_in_plain_is_logged(run: bh.Run) -> None:
    sock = connect(run, "tls")
    send(sock, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    check_closed(sock)
    wait_until(lambda: "no valid certificate of this run" in log(run), "the refusal is logged")


STRANGER = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(30)
try:
    sock.connect(sys.argv[1])
except PermissionError:
    sys.exit("no entry")
try:
    sock.sendall(bytes.fromhex(sys.argv[2]))
    print(len(sock.recv(1000)))
except (BrokenPipeError, ConnectionResetError):
    print(0)
"""


def stranger(path: str) -> subprocess.CompletedProcess[str]:
    """Somebody of another user greets the socket at `path`; prints how much was answered."""
    words = [sys.executable, "-c", STRANGER, path, frame(1, b"").hex()]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_kept_out_by_the_folder_and_refused_by_the_head(run: bh.Run) -> None:
    path = Path(json.loads((run.folder / "head.json").read_text())["socket"])
    assert stranger(str(path)).stderr.strip() == "no entry"
    opened = [path.parent, path.parent.parent, path.parent.parent.parent]
    modes = [folder.stat().st_mode & 0o7777 for folder in opened]
    try:
        for folder in opened:
            folder.chmod(0o755)
        path.chmod(0o777)
        done = stranger(str(path))
    finally:
        for folder, mode in zip(opened, modes, strict=True):
            folder.chmod(mode)
    assert (done.stdout.strip(), done.stderr) == ("0", "")
    wait_until(lambda: "refused a client of another user" in log(run), "the refusal is logged")


def test_sockets_and_secrets_are_for_their_owner_only(run: bh.Run) -> None:
    info = json.loads((run.folder / "head.json").read_text())
    assert Path(info["socket"]).parent.stat().st_mode & 0o077 == 0
    assert run.folder.stat().st_mode & 0o077 == 0
    tickets = list((run.folder / "tls").iterdir())
    assert tickets and all(ticket.stat().st_mode & 0o177 == 0 for ticket in tickets)
    secret = bytes(json.loads(tickets[0].read_text())["secret"])
    for pid in processes_of(run.folder, "head") + processes_of(run.folder, "agent"):
        for part in ("cmdline", "environ"):
            data = Path("/proc", str(pid), part).read_bytes()
            assert secret not in data and secret.hex().encode() not in data


def test_a_damaged_request_in_the_mailbox_is_removed_and_logged(run: bh.Run) -> None:
    for name, data in (("a.json", b"{"), ("b.json", b"\xff"), ("c.json", b'{"kind":"dance","reason":""}')):
        (run.folder / "mailbox" / name).write_bytes(data)
    wait_until(lambda: not list((run.folder / "mailbox").glob("*.json")), "the requests are taken")
    wait_until(lambda: "no request" in log(run), "it is logged")
    assert run.phase == "running"
