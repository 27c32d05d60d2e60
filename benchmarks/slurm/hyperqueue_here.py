"""HyperQueue's turn inside a batch job: `hyperqueue_here.py N CORES` runs N times `true` and prints the seconds from the
submission to the end of the last. The wheel from PyPI has a server with workers in its own process and no `hq` program, so it
is measured on one node."""

from __future__ import annotations

import sys
import tempfile
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

number, cores = map(int, sys.argv[1:])
with tempfile.TemporaryDirectory() as folder, LocalCluster(folder, WorkerConfig(cores=cores)) as cluster:
    client = cluster.client()
    job = Job(folder, max_fails=0)
    for _ in range(number):
        job.program(["true"], stdout=None, stderr=None)
    began = time.monotonic()
    client.wait_for_jobs([client.submit(job)])
    print(time.monotonic() - began)
