//! The C library: functions of the header `include/bridgehead.h`, on which the Fortran module stands. Owns the border: pointers
//! are checked, panics stay inside, errors become codes. What happens behind it is the crate `guest`'s.

#![allow(non_camel_case_types)] // C's names.

mod array;
mod border;
mod names;
mod status;
mod store;
pub mod types;
