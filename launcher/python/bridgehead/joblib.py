"""Bridgehead as a joblib backend: ``bridgehead.joblib.register()``, then ``with
joblib.parallel_config("bridgehead"):``."""

from __future__ import annotations

from typing import Any


def register(name: str = "bridgehead") -> None:
    """Makes the backend known to joblib under `name`."""
    from joblib import parallel
    from joblib._parallel_backends import AutoBatchingMixin, ParallelBackendBase

    from ._executor import Executor

    class Backend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
        """Batches of calls, each a task of an Executor."""

        supports_retrieve_callback = True
        supports_sharedmem = False
        uses_threads = False

        def effective_n_jobs(self, n_jobs: int | None) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
            from ._launch import cpus_here

            if n_jobs == 0:
                raise ValueError("n_jobs == 0 has no meaning")
            return max(1, cpus_here() + 1 + n_jobs) if n_jobs is not None and n_jobs < 0 else (n_jobs or 1)

        def configure(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, n_jobs: int = 1, parallel: Any = None, **_: Any
        ) -> int:
            self.parallel = parallel
            jobs = self.effective_n_jobs(n_jobs)
            self._executor = Executor(jobs, name="joblib")
            return jobs

        def submit(self, func: Any, callback: Any = None) -> Any:
            future = self._executor.submit(func)
            if callback is not None:
                future.add_done_callback(callback)
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            return out.result()

        def terminate(self) -> None:
            self._executor.shutdown(wait=False, cancel_futures=True)

        def abort_everything(self, ensure_ready: bool = True) -> None:
            self.terminate()
            if ensure_ready:
                self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)

    parallel.register_parallel_backend(name, Backend)
