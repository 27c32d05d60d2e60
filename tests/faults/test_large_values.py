"""Laws of large values under faults: they arrive whole or fail by name, lost ones are made again, memory comes back."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
import pytest
import support
from support import journal, kill, processes_of, script, wait_gone, wait_until, workers_of

MIB = 1 << 20
SLACK = 5 * MIB
"""What each process of a node may keep granted for small values to come."""


def block(seed: int, size: int) -> Any:
    """Numbers that no other seed gives, `size` bytes of them."""
    return np.arange(size // 8, dtype=np.uint64) * np.uint64(2 * seed + 1) + np.uint64(seed)


def mix(first: Any, second: Any) -> Any:
    length = min(len(first), len(second))
    return first[:length] ^ (second[:length] + np.uint64(1))


def fold(array: Any) -> int:
    return int(np.bitwise_xor.reduce(array)) ^ len(array)


def check(value: Any, expected: Any) -> None:
    """A large value arrived whole."""
    assert np.array_equal(value, expected)


def used(folder: Path) -> int:
    """Bytes in the stores of a run, as its status says."""
    return sum(agent["store"]["used"] for agent in status(folder)["agents"])


def status(folder: Path) -> Any:
    return json.loads((folder / "status.json").read_text())


def joined(folder: Path) -> bool:
    return any(event == "agent-joined" and number == 1 for _, event, _, number, _ in journal(folder))


def strike(folder: Path, pause: float, number: int = signal.SIGKILL) -> list[int]:
    """Signals agent 1 once the gang is whole and `pause` is over; its process id, if it was still there."""
    wait_until(lambda: joined(folder), "both agents have joined")
    time.sleep(pause)  # The random moment; nothing is waited for.
    agents = processes_of(folder, "agent")
    for pid in agents:
        kill(pid, number)
    return agents


def crossing(
    sizes: list[int], fold_at: int = 3
) -> tuple[bh.Pipeline, list[bh.Node[Any]], list[bh.Node[int]], list[int]]:
    """A pipeline in which every value is taken twice, so that many cross: it, large values, small ones, the small ones' truth."""
    p = bh.Pipeline("crossing")
    count = len(sizes)
    retries = bh.Retries(lost_node=5)
    made = [p.add(bh.task(block, retries=retries), seed, size) for seed, size in enumerate(sizes)]
    pairs = [(i, (i + fold_at) % count) for i in range(count)]
    mixed = [p.add(bh.task(mix, retries=retries), made[i], made[j]) for i, j in pairs]
    again = [p.add(bh.task(mix, retries=retries), mixed[i], mixed[j]) for i, j in pairs]
    folded = [p.add(bh.task(fold, retries=retries), node) for node in again]
    first = [block(seed, size) for seed, size in enumerate(sizes)]
    second = [mix(first[i], first[j]) for i, j in pairs]
    truth = [fold(mix(second[i], second[j])) for i, j in pairs]
    return p, mixed, folded, truth


@pytest.mark.timeout(120)
def test_an_agent_killed_among_large_transfers_costs_time_only(seed: int) -> None:
    rng = random.Random(seed)
    sizes = [rng.choice([300 << 10, MIB, 4 * MIB, 16 * MIB, 30 * MIB]) for _ in range(10)]
    p, _, folded, truth = crossing(sizes)
    with p.run(agents=2, cpus=2) as run:
        struck = strike(run.folder, rng.uniform(0.0, 1.2))
        assert [run[node].result(90) for node in folded] == truth
    wait_gone(run.folder)
    assert not (run.folder / "spill").exists()
    lost = sum(event == "agent-lost" for _, event, _, _, _ in journal(run.folder))
    assert lost <= len(struck)


@pytest.mark.timeout(120)
def test_values_of_a_killed_agent_are_there_or_fail_by_name(seed: int) -> None:
    rng = random.Random(seed)
    p, mixed, folded, truth = crossing([2 * MIB] * 12)
    with p.run(agents=2, cpus=2) as run:
        strike(run.folder, rng.uniform(0.0, 0.8))
        assert [run[node].result(60) for node in folded] == truth
        for number, node in enumerate(mixed):
            try:
                value = run[node].result(30)
            except bh.ResultLost as error:
                assert "mix" in str(error) or "object" in str(error)
            else:
                check(value, mix(block(number, 2 * MIB), block((number + 3) % 12, 2 * MIB)))


@pytest.mark.timeout(120)
def test_an_agent_that_stands_still_for_a_while_costs_time_only() -> None:
    p, _, folded, truth = crossing([8 * MIB] * 10)
    with p.run(agents=2, cpus=2) as run:
        for pid in strike(run.folder, 0.2, signal.SIGSTOP):
            time.sleep(3)  # How long it stands still; nothing is waited for.
            kill(pid, signal.SIGCONT)
        assert [run[node].result(90) for node in folded] == truth


@pytest.mark.timeout(180)
def test_two_small_stores_carry_a_working_set_of_many_times_their_size() -> None:
    p, _, folded, truth = crossing([3 * MIB] * 16, fold_at=7)
    with p.run(agents=2, cpus=2, store="16MiB") as run:
        assert [run[node].result(150) for node in folded] == truth
        folder = run.folder
    wait_gone(folder)
    assert not (folder / "spill").exists()


@pytest.mark.timeout(120)
def test_workers_killed_while_they_write_or_read_leave_no_memory_taken(seed: int) -> None:
    rng = random.Random(seed)
    task = bh.task(retries=bh.Retries(lost_node=50))(block)
    twice = bh.task(retries=bh.Retries(lost_node=50))(mix)
    with bh.Executor(2, store="512MiB") as pool:
        futures = [pool.submit(task, seed, 24 * MIB) for seed in range(4)]
        mixed = [pool.submit(twice, futures[i], futures[i - 1]) for i in range(4)]
        for _ in range(5):
            time.sleep(rng.uniform(0.2, 0.6))  # The random moment; nothing is waited for.
            for pid in workers_of(pool.folder.name)[:1]:
                kill(pid)
        for i, future in enumerate(mixed):
            check(future.result(60), mix(block(i, 24 * MIB), block((i - 1) % 4, 24 * MIB)))
        del futures, mixed, future
        wait_until(lambda: used(pool.folder) <= 3 * SLACK, f"memory comes back, of {used(pool.folder)} bytes", 20)


@pytest.mark.timeout(120)
def test_results_whose_node_died_after_the_end_are_made_again_or_read_from_the_run_folder(seed: int) -> None:
    p = bh.Pipeline("late")
    leaves = [p.add(bh.task(block), number, 2 * MIB) for number in range(8)]
    with p.run(agents=2, cpus=2) as run:
        if seed % 2:
            assert run.wait(60) == "finished"
        strike(run.folder, 0.0 if seed % 2 else seed / 30)
        for number, node in enumerate(leaves):
            check(run[node].result(60), block(number, 2 * MIB))
        assert run.wait(60) == "finished"
    wait_gone(run.folder)
    past = bh.connect(str(run.folder))
    for number, node in enumerate(leaves):
        check(past[node].result(10), block(number, 2 * MIB))


def put_and_fold(seed: int) -> int:
    refs = [bh.put(block(seed + i, 3 * MIB)) for i in range(4)]
    children = [bh.submit(bh.task(fold), ref) for ref in refs]
    larger = bh.submit(bh.task(block), seed, 3 * MIB)
    return sum(child.result() for child in children) + fold(larger.result()) + sum(fold(bh.get(ref)) for ref in refs)


@pytest.mark.timeout(120)
def test_tasks_that_put_and_add_tasks_survive_a_killed_agent(seed: int) -> None:
    rng = random.Random(seed)
    p = bh.Pipeline("growing")
    nodes = [p.add(bh.task(put_and_fold, retries=bh.Retries(lost_node=9)), 10 * i) for i in range(6)]
    with p.run(agents=2, cpus=2) as run:
        strike(run.folder, rng.uniform(0.0, 1.0))
        for i, node in enumerate(nodes):
            folds = [fold(block(10 * i + k, 3 * MIB)) for k in range(4)]
            assert run[node].result(60) == 2 * sum(folds) + folds[0]
    wait_gone(run.folder)


@pytest.mark.timeout(120)
def test_two_of_three_agents_may_die(seed: int) -> None:
    rng = random.Random(seed)
    p, _, folded, truth = crossing([rng.choice([MIB, 6 * MIB]) for _ in range(12)])
    with p.run(agents=3, cpus=3) as run:
        wait_until(lambda: len([e for e in journal(run.folder) if e[1] == "agent-joined"]) == 3, "the gang is whole")
        for pid in processes_of(run.folder, "agent"):
            time.sleep(rng.uniform(0.0, 0.6))  # The random moment; nothing is waited for.
            kill(pid)
        assert [run[node].result(90) for node in folded] == truth
    wait_gone(run.folder)


HOLDER = """
import sys, time
import bridgehead as bh
import numpy as np

if __name__ == "__main__":
    if len(sys.argv) > 1 or DETACHED:
        run = bh.connect(FOLDER)
        views = [run._futures[0].result(60)]
    else:
        pool = bh.Executor(2)
        print(pool.folder, flush=True)
        views = [pool.submit(np.ones, 2 << 20).result()]
    refs = [bh.put(np.zeros(2 << 20)) for _ in range(4)]
    views += [bh.get(ref) for ref in refs]
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_killed_driver_of_an_executor_leaves_nothing(tmp_path: Path) -> None:
    driver = script(tmp_path, "DETACHED = False\n" + HOLDER)
    assert driver.stdout is not None
    folder = Path(driver.stdout.readline().strip())
    assert driver.stdout.readline().strip() == "ready"
    driver.kill()
    driver.wait()
    wait_gone(folder)
    close(driver)


def close(driver: subprocess.Popen[str]) -> None:
    for pipe in (driver.stdout, driver.stderr):
        if pipe is not None:
            pipe.close()


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.02)


def test_memory_that_a_killed_driver_held_in_a_detached_run_comes_back(tmp_path: Path) -> None:
    p = bh.Pipeline("detached")
    p.add(bh.task(block), 1, 16 * MIB)
    p.add(bh.task(wait_for), str(tmp_path / "go"))
    run = p.submit(cpus=2)
    driver = script(tmp_path, f"DETACHED, FOLDER = True, {str(run.folder)!r}\n" + HOLDER)
    assert driver.stdout is not None and driver.stderr is not None
    assert driver.stdout.readline().strip() == "ready", driver.stderr.read()
    wait_until(lambda: used(run.folder) >= 80 * MIB, "the puts are seen")
    driver.kill()
    driver.wait()
    wait_until(lambda: used(run.folder) <= 16 * MIB + 2 * SLACK, "what the driver held is free", 20)
    (tmp_path / "go").touch()
    assert run.wait(60) == "finished"
    run.close()
    wait_gone(run.folder)
    close(driver)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("agents", [1, 2])
def test_thousands_of_values_leave_no_memory_taken(agents: int) -> None:
    rng = random.Random(1)
    sizes = [rng.randrange(20 << 10, 200 << 10) for _ in range(500)]
    with bh.Executor(2, agents=agents, store="256MiB") as pool:
        low = []
        for _ in range(4):
            refs = [bh.put(block(i, size)) for i, size in enumerate(sizes)]
            folded = [pool.submit(fold, ref) for ref in refs]
            back = [pool.submit(block, i, size) for i, size in enumerate(sizes[:100])]
            assert [f.result(60) for f in folded] == [fold(block(i, size)) for i, size in enumerate(sizes)]
            for i, future in enumerate(back):
                check(future.result(60), block(i, sizes[i]))
            del refs, folded, back, future
            wait_until(lambda: used(pool.folder) <= 3 * SLACK, "memory comes back", 20)
            low.append(used(pool.folder))
        assert max(low) <= 3 * SLACK, low


def test_one_reference_serves_five_hundred_tasks_on_both_nodes() -> None:
    array = block(3, 24 * MIB)
    with bh.Executor(2, agents=2) as pool:
        ref = bh.put(array)
        futures = [pool.submit(fold, ref) for _ in range(500)]
        del ref
        assert {f.result(60) for f in futures} == {fold(array)}
        del futures
        wait_until(lambda: used(pool.folder) <= 4 * SLACK, "memory comes back", 20)


def same(array: Any) -> Any:
    return array


def test_a_value_that_a_task_hands_on_lives_as_long_as_anybody_needs_it() -> None:
    array = block(5, 3 * MIB)
    with bh.Executor(2, agents=2, store="64MiB") as pool:
        ref = bh.put(array)
        future = pool.submit(same, ref)
        for _ in range(10):
            future = pool.submit(same, future)
        del ref
        view = future.result(60)
        del future
        for seed in range(30):
            pool.submit(block, seed, 8 * MIB).result(60)
        check(view, array)


def test_results_that_are_kept_outlive_the_run() -> None:
    p, mixed, folded, truth = crossing([MIB] * 6)
    with p.run(agents=2, cpus=2) as run:
        assert [run[node].result(60) for node in folded] == truth
        views = [run[node].result(60) for node in mixed]
    wait_gone(run.folder)
    for i, view in enumerate(views):
        check(view, mix(block(i, MIB), block((i + 3) % 6, MIB)))


def test_threads_get_at_once_what_has_gone_to_disk() -> None:
    with bh.Executor(1, store="24MiB") as pool:
        refs = [bh.put(block(seed, 2 * MIB)) for seed in range(24)]
        sums = [fold(block(seed, 2 * MIB)) for seed in range(24)]
        wrong: list[int] = []

        def read(start: int) -> None:
            for i in [(start + 5 * step) % 24 for step in range(24)]:
                if fold(bh.get(refs[i])) != sums[i]:
                    wrong.append(i)

        with concurrent.futures.ThreadPoolExecutor(6) as threads:
            list(threads.map(read, range(6)))
        assert wrong == []
        assert pool.submit(fold, refs[0]).result(60) == sums[0]


def _in_child(refs: list[Any], views: list[Any], sums: list[int], answer: Any) -> None:
    """What a forked child does with what it inherited: looks at it, drops it, and tries to read more."""
    said = [fold(view) for view in views] == sums[: len(views)]
    views.clear()
    try:
        read = fold(bh.get(refs[-1])) == sums[-1]
    except bh.BridgeheadError as error:
        read = "fork" in str(error) or "process" in str(error)
    refs.clear()
    answer.put((said, read))


def test_a_forked_child_takes_nothing_from_its_parent() -> None:
    fork = multiprocessing.get_context("fork")
    with bh.Executor(1, store="32MiB") as pool:
        refs = [bh.put(block(seed, 3 * MIB)) for seed in range(4)]
        sums = [fold(block(seed, 3 * MIB)) for seed in range(4)]
        views = [bh.get(ref) for ref in refs[:3]]
        for _ in range(3):
            answer = fork.SimpleQueue()
            child = fork.Process(target=_in_child, args=(refs, views, sums, answer))
            child.start()
            child.join(30)
            assert child.exitcode == 0
            assert answer.get() == (True, True)
        for seed in range(20):
            pool.submit(block, seed, 3 * MIB).result(60)
        assert [fold(view) for view in views] == sums[:3]
        assert [fold(bh.get(ref)) for ref in refs] == sums
        assert [pool.submit(fold, ref).result(60) for ref in refs] == sums
        del views, refs
        wait_until(lambda: used(pool.folder) <= 3 * SLACK, "memory comes back", 20)


def made_at(seed: int, size: int) -> tuple[int, Any]:
    time.sleep(0.02)
    return bh.current().node, block(seed, size)


def fold_made(made: tuple[int, Any]) -> int:
    return fold(made[1])


@pytest.mark.timeout(120)
def test_values_of_an_executor_whose_node_died_fail_by_name() -> None:
    with bh.Executor(2, agents=2) as pool:
        futures = [pool.submit(made_at, seed, MIB) for seed in range(40)]
        concurrent.futures.wait(futures, 60)
        strike(pool.folder, 0.0)
        wait_until(lambda: any(e == "agent-lost" for _, e, _, _, _ in journal(pool.folder)), "the death is noticed")
        lost = 0
        for seed, future in enumerate(futures):
            try:
                _, value = future.result(20)
            except (bh.ResultLost, bh.TaskError) as error:
                assert not isinstance(error, TimeoutError)
                lost += 1
            else:
                check(value, block(seed, MIB))
        later = [pool.submit(fold_made, future) for future in futures]
        for seed, answer in enumerate(later):
            error = answer.exception(30)
            assert isinstance(error, bh.TaskError | bh.ResultLost | None), repr(error)
            if error is None:
                assert answer.result() == fold(block(seed, MIB))
        support.check_still_works(pool)
    print(f"  {lost} of 40 values were lost")
