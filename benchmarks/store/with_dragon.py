"""Puts and gets of 1 KiB in DragonHPC's DDict; run by its launcher: ``dragon -s with_dragon.py COUNT``."""

import json
import multiprocessing
import statistics
import sys
import time

import dragon
from dragon.data.ddict import DDict


def once(store: DDict, value: bytes) -> float:
    """Seconds of one put and get."""
    begin = time.perf_counter()
    store["key"] = value
    back = store["key"]
    seconds = time.perf_counter() - begin
    assert back == value
    return seconds


def main() -> None:
    """Prints the median as a line of JSON."""
    multiprocessing.set_start_method(dragon.__name__)
    store, value = DDict(1, 1, 64 << 20), bytes(1024)
    try:
        times = [once(store, value) for _ in range(int(sys.argv[1]) + 3)][3:]
        print(json.dumps({"microseconds": statistics.median(times) * 1e6}), flush=True)
    finally:
        store.destroy()


if __name__ == "__main__":
    main()
