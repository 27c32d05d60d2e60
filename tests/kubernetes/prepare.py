"""What a cluster needs before a user can submit to it: the image on every node, and the role. For tests and benchmarks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cluster import Cluster
from handed import ROOT
from support import IMAGE


def load_image(cluster: Cluster, folder: Path) -> None:
    """The image of the wheel that this interpreter has, on every node. `folder` is empty."""
    told = os.environ.get("BRIDGEHEAD_TEST_ROOTFS")
    root = Path(told) if told else folder
    if not told:
        wheels = sorted((ROOT / "target/wheels").glob("bridgehead-*.whl"), key=lambda path: path.stat().st_mtime)
        pip = Path(sys.prefix, "bin/pip")
        subprocess.run([ROOT / "deploy/image/rootfs", pip, wheels[-1], root], check=True, timeout=280)
    cluster.tool("image", "--onto-base", IMAGE, root)


def give_roles(cluster: Cluster, namespaces: tuple[str, ...], accounts: tuple[str, ...]) -> None:
    """The role of those who submit, in each of the namespaces, to accounts of `hpc`."""
    role = (ROOT / "deploy/kubernetes/role.yaml").read_text()
    for namespace in namespaces:
        cluster.kubectl("apply", "-n", namespace, "-f", "-", text=role)
        for account in accounts:
            words = ["create", "rolebinding", f"bridgehead-{account}", "-n", namespace, "--role=bridgehead-submitter"]
            cluster.kubectl(*words, f"--serviceaccount=hpc:{account}", ok=False)
