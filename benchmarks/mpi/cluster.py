"""Whether the virtual Slurm cluster can be had here. Needs no Bridgehead."""

from __future__ import annotations

import os
import shutil
import subprocess


def missing() -> str | None:
    """Why there can be no cluster here, if there cannot."""
    if os.geteuid() != 0:
        return "the virtual cluster needs root"
    spaces = ("unshare", "--net", "--uts", "--ipc", "--pid", "--fork", "--mount", "true")
    if subprocess.run(spaces, capture_output=True, check=False).returncode != 0:
        return "no namespaces can be made here"
    if shutil.which("apt-get") is None and shutil.which("slurmctld") is None:
        return "Slurm's packages need apt-get"
    return None
