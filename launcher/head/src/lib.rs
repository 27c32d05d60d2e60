//! Drives one run: journal, phases, control service.
