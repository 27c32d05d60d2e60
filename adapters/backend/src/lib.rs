//! The port to a scheduler: render, submit, observe many, cancel, logs.
