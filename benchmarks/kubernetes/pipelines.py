"""The pipeline that is measured: one task that waits, so that the run is there to be looked at."""

from __future__ import annotations

import time

import bridgehead as bh


@bh.task(cpus=1)
def wait() -> None:
    time.sleep(600)


p = bh.Pipeline("wait")
p.add(wait)

if __name__ == "__main__":
    p.run()
