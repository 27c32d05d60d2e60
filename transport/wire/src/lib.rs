//! Messages and frames between the processes of a run: bytes and meanings, no sockets.
