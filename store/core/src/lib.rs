//! Decisions of the store: objects, leases, admission, eviction; moves no data.
