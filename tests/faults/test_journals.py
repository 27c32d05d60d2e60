"""Laws of a damaged run folder: what can be kept is kept and the rest reported; what cannot be understood is refused
untouched; two heads never write the same segment."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import bridgehead as bh
import pytest
from support import PROGRAM, bridgehead, journal, processes_of, wait_gone, wait_until

HEADER = 16
"""Bytes before a segment's first record."""


@bh.task
def note(folder: str, x: int, *needs: int) -> int:
    with open(os.path.join(folder, str(x)), "a") as out:
        out.write("x")
    return x + sum(needs)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten tasks that has finished; tests work on copies."""
    ran = tmp_path_factory.mktemp("ran")
    p = bh.Pipeline("whole")
    nodes = [p.add(note, str(ran), x) for x in range(9)]
    p.add(note, str(ran), 100, *nodes)
    with p.run(cpus=1) as run:
        assert run.phase == "finished"
    wait_gone(run.folder)
    return run.folder


@pytest.fixture
def copy(ended: Path) -> Iterator[Path]:
    """A copy of the run among the runs, under its own name."""
    folder = ended.with_name(f"copy-{os.urandom(4).hex()}")
    shutil.copytree(ended, folder)
    config = json.loads((folder / "run.json").read_text())
    config["run"] = folder.name
    (folder / "run.json").write_text(json.dumps(config))
    yield folder
    wait_gone(folder)


def segment(folder: Path, attempt: int = 1) -> Path:
    return folder / "journal" / f"{attempt:06}.bhj"


def finished(folder: Path) -> list[int | None]:
    return [task for _, event, task, _, _ in journal(folder) if event == "task-finished"]


def records(data: bytes) -> list[int]:
    """Where each record ends."""
    ends, at = [], HEADER
    while at < len(data):
        at += 8 + struct.unpack_from("<I", data, at)[0]
        ends.append(at)
    return ends


def unfinish(folder: Path) -> None:
    """Takes the run's end out of its journal: it was killed just before."""
    data = segment(folder).read_bytes()
    segment(folder).write_bytes(data[: records(data)[-2]])


def check_resumes(folder: Path) -> str:
    """The run finishes with the right answer, and what the damaged journal still says finished does not run again."""
    kept = finished(folder)
    done = bridgehead("resume", folder)
    assert done.returncode == 0, done
    again = [task for _, event, task, attempt, _ in journal(folder) if event == "task-assigned"]
    assert all(again.count(task) == kept.count(task) for task in kept), (kept, again)
    assert bh.connect(str(folder)).results() == {"test_journals.note": 100 + sum(range(9))}
    return done.stderr


def test_every_cut_of_the_last_record_keeps_the_rest(copy: Path) -> None:
    data = segment(copy).read_bytes()
    ends = records(data)
    whole = journal(copy)
    for cut in range(ends[-2], ends[-1]):
        segment(copy).write_bytes(data[:cut])
        assert journal(copy) == whole[:-1]
    assert "are dropped" in check_resumes(copy)


def test_a_cut_anywhere_is_reported_and_the_run_goes_on(copy: Path, seed: int) -> None:
    data = segment(copy).read_bytes()
    cut = random.Random(seed).randrange(HEADER, len(data))
    ends = records(data)
    segment(copy).write_bytes(data[:cut])
    assert len(journal(copy)) == sum(end <= cut for end in ends)
    told = check_resumes(copy)
    assert ("are dropped" in told) == (cut not in [HEADER, *ends]), (cut, told)
    if told:
        assert "dropped the damaged tail" in (copy / "logs/head.log").read_text()


def test_flipped_bytes_anywhere_cost_only_what_stands_behind_them(copy: Path, seed: int) -> None:
    data = bytearray(segment(copy).read_bytes())
    ends = records(data)
    whole = journal(copy)
    rng = random.Random(seed)
    places = sorted(rng.sample(range(HEADER, len(data)), rng.randint(1, 5)))
    for place in places:
        data[place] ^= rng.randint(1, 255)
    segment(copy).write_bytes(data)
    before = sum(end <= places[0] for end in ends)
    assert journal(copy) == whole[:before], f"flipped {places}"
    assert "are dropped" in check_resumes(copy)


def check_refused(folder: Path, *words: str) -> None:
    """Neither resume nor a head touches the journal; both say why, with the documented exit codes."""
    before = {file: file.read_bytes() for file in (folder / "journal").iterdir()}
    done = bridgehead("resume", folder)
    assert done.returncode == 6, done
    for word in words:
        assert word in done.stderr
    head = bridgehead("head", "--run-dir", folder)
    assert head.returncode == 70 and words[0] in head.stderr, head
    assert {file: file.read_bytes() for file in (folder / "journal").iterdir()} == before


def test_a_newer_version_is_refused_untouched(copy: Path) -> None:
    data = bytearray(segment(copy).read_bytes())
    data[8:10] = (2).to_bytes(2, "little")
    segment(copy).write_bytes(data)
    check_refused(copy, "version 2", "000001.bhj", "newer")


def test_a_foreign_file_is_refused_by_name(copy: Path) -> None:
    segment(copy).write_bytes(b"GIF89a" + bytes(100))
    check_refused(copy, "000001.bhj", "not a journal")


def test_an_empty_segment_counts_as_an_attempt_that_did_nothing(copy: Path) -> None:
    unfinish(copy)
    segment(copy, 2).write_bytes(b"")
    check_resumes(copy)
    assert segment(copy, 3).exists()


@pytest.mark.parametrize("name", ["run.json", "spec.json"])
@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"version": 99}'])
def test_a_damaged_document_is_refused_by_name(copy: Path, name: str, damage: bytes) -> None:
    unfinish(copy)  # A run that has finished needs no document.
    (copy / name).write_bytes(damage)
    done = bridgehead("resume", copy)
    assert done.returncode in (4, 6, 70), done
    assert name in done.stderr and "panicked" not in done.stderr, done


def test_damaged_arguments_are_refused_and_not_run(ended: Path) -> None:
    p = bh.Pipeline("blob")
    p.add(bh.task(len), bytes(200_000))
    with p.run() as run:
        pass
    wait_gone(run.folder)
    segment(run.folder).write_bytes(segment(run.folder).read_bytes()[:HEADER])
    blob = next(f for f in (run.folder / "blobs").iterdir() if f.stat().st_size > 100_000)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    done = bridgehead("resume", run.folder)
    assert done.returncode != 0 and blob.name in done.stderr and "damaged" in done.stderr, done


def test_damaged_code_fails_its_tasks_by_name(copy: Path) -> None:
    segment(copy).unlink()
    for blob in (copy / "blobs").iterdir():
        blob.write_bytes(b"x" + blob.read_bytes()[1:])
    done = bridgehead("resume", copy)
    assert done.returncode == 1, done
    error = bh.connect(str(copy))._futures[0].exception(0)
    assert "damaged" in str(error) and "note" in str(error)


def hang(file: str) -> None:
    import threading

    open(file, "w").close()
    threading.Event().wait()


def test_a_second_head_refuses_while_the_first_one_works(tmp_path: Path) -> None:
    p = bh.Pipeline("two-heads")
    p.add(bh.task(hang), str(tmp_path / "begun"))
    run = p.submit()
    wait_until((tmp_path / "begun").exists, "the task runs")
    first = processes_of(run.folder, "head")
    done = bridgehead("head", "--run-dir", run.folder)
    assert done.returncode == 70 and str(first[0]) in done.stderr and "at work" in done.stderr, done
    assert bridgehead("resume", run.folder).returncode == 4
    assert processes_of(run.folder, "head") == first and list((run.folder / "journal").iterdir()) == [
        segment(run.folder)
    ]
    assert run.status()["phase"] == "running"
    run.cancel()
    assert run.wait(60) == "cancelled"
    run.close()
    wait_gone(run.folder)


def test_heads_that_start_together_write_segments_of_their_own(copy: Path) -> None:
    segment(copy).unlink()
    config = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**config, "attached": False}))
    pipe = subprocess.PIPE
    heads = [subprocess.Popen([PROGRAM, "head", "--run-dir", copy], stderr=pipe, text=True) for _ in range(4)]
    told = [head.communicate(timeout=100)[1] for head in heads]
    assert any(head.returncode == 0 for head in heads), told
    for head, text in zip(heads, told, strict=True):
        assert head.returncode == 0 or "another head runs" in text or "at work" in text, text
    for file in (copy / "journal").iterdir():
        data = file.read_bytes()
        assert records(data)[-1] == len(data), f"{file} was torn by two writers"
    check_resumes(copy)
