"""What a user asked of the API server, by the server's own log of requests (`up --audit`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Audit:
    """The requests of one user of the cluster whose state lies in this folder."""

    def __init__(self, state: Path, user: str) -> None:
        self.log, self.user = state / "log/audit.log", user

    def __bool__(self) -> bool:
        """Whether the cluster writes such a log."""
        return self.log.exists()

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """Counts what is asked within, as `verb resource`; the counts are there when it ends. The server writes a line before
        it answers, and of a watch or a forwarded port one as it opens and one as it ends, which count once."""
        counts: Counter[str] = Counter()
        began = self.log.stat().st_size
        yield counts
        seen: set[str] = set()
        with self.log.open() as file:
            file.seek(began)
            for line in file:
                event = json.loads(line)
                if event["user"]["username"] == self.user and event["auditID"] not in seen:
                    seen.add(event["auditID"])
                    counts[_words(event)] += 1


def _words(event: dict[str, object]) -> str:
    """A request in words: `get pods/log`, or `get /apis` for what is no object."""
    about = event.get("objectRef")
    if not isinstance(about, dict):
        return f"{event['verb']} {event['requestURI']}"
    part = f"/{about['subresource']}" if "subresource" in about else ""
    return f"{event['verb']} {about['resource']}{part}"
