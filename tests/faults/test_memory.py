"""Laws of little shared memory: a tiny /dev/shm is no limit, and a full disk under the spill loses nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import bridgehead as bh
import numpy as np
import pytest

SCRIPT = """
import bridgehead as bh, numpy as np, os
assert os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize <= 65536
with bh.Executor(2, agents=2) as pool:
    array = np.arange(2_000_000.0)
    print(pool.submit(np.sum, bh.put(array)).result() == array.sum(), len(pool.submit(np.zeros, 3_000_000).result()))
"""


def test_a_tiny_dev_shm_is_no_limit(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    inside = 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", inside, "sh", sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace can be made here: {done.stderr.strip()}")
    assert (done.stdout, done.stderr) == ("True 3000000\n", "")


def test_a_full_disk_under_the_spill_is_named_and_loses_nothing(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGEHEAD_HOME", str(small_disk))
    with bh.Executor(1, store="8MiB") as pool:
        refs = [bh.put(np.full(250_000, float(i))) for i in range(5)]  # The fifth has moved the first to disk.
        with pytest.raises(bh.StoreFull, match="(?s)moving objects to disk failed: No space left"):
            bh.put(np.zeros(1_000_000))
        assert [float(bh.get(ref)[-1]) for ref in refs] == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert pool.submit(np.sum, refs[4]).result() == 1_000_000.0
