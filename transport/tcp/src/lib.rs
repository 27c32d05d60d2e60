//! The fabric over plain TCP sockets.
