"""`xargs -P2 -n1`: what a shell user would run programs with."""

from __future__ import annotations

import subprocess

from . import WORKERS, System


class Xargs(System):
    name = "xargs"

    def programs(self, count: int) -> int:
        numbers = "".join(f"{i}\n" for i in range(count))
        subprocess.run(["xargs", f"-P{WORKERS}", "-n1", "/bin/true"], input=numbers, text=True, check=True)
        return count  # It exits with another code than 0 if one of them fails.

    def version(self) -> str:
        return subprocess.run(["xargs", "--version"], capture_output=True, text=True).stdout.split("\n")[0]


SYSTEM = Xargs
