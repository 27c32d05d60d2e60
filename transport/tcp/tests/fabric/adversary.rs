//! Garbage, strangers and harm on the way.
