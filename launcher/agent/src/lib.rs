//! One node of a run: workers, programs, store, logs.
