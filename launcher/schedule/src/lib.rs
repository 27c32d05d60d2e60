//! The in-allocation scheduler, purely: events in, actions out.
