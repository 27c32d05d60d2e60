//! Memory of this process for a small value, which travels in messages: its first byte is aligned as an object's in the store
//! is. Owns that memory.

use bridgehead_wire::ARRAY_ALIGN;
use std::ops::Range;

/// Aligned bytes.
#[derive(Debug)]
pub(crate) struct Local {
    bytes: Vec<u8>,
    range: Range<usize>,
}

impl Local {
    /// `len` bytes, all 0.
    pub(crate) fn new(len: usize) -> Self {
        let bytes = vec![0; len + ARRAY_ALIGN];
        let start = bytes.as_ptr().align_offset(ARRAY_ALIGN).min(ARRAY_ALIGN);
        let range = start..start + len;
        Self { bytes, range }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.range.clone()]
    }
}
