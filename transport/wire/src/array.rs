//! The head of a value that is one plain array (`docs/formats/value.md`, form 3): what its numbers are, its shape, and where
//! they lie. Owns those bytes; moves none of the array's. Hot path: `read`, `write`, once an array.

use std::ops::Range;
use thiserror::Error;

/// First byte of a value that is one array.
pub const ARRAY: u8 = 3;
/// Axes that such an array can have.
pub const MOST_AXES: usize = 32;
/// What the array's bytes are aligned to, counted from the value's first: a cache line, enough for every vector unit.
pub const ARRAY_ALIGN: usize = 64;
/// Bytes before the shape.
const FIXED: usize = 16;
/// The one order of bytes: values travel between machines of one kind.
const LITTLE: u8 = 1;

/// Why bytes are no array.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArrayError {
    /// The value has another form.
    #[error("it is no array: its form is {0}")]
    Form(u8),
    /// Its head or its numbers are not all there, or more than they.
    #[error("its {0} is cut off or too long")]
    Length(&'static str),
    /// Numbers that nobody knows.
    #[error("its numbers are of kind {kind:?} with {size} bytes, which nobody knows")]
    Numbers {
        /// The kind, as numpy names it.
        kind: char,
        /// Bytes of each.
        size: u8,
    },
    /// Another field holds what it cannot.
    #[error("its {0} is out of bounds")]
    Field(&'static str),
}

/// What the numbers of an array are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Numbers {
    /// As numpy names it: `b` truth values, `i` and `u` whole numbers, `f` floating, `c` complex ones.
    pub kind: u8,
    /// Bytes of each.
    pub size: u8,
}

impl Numbers {
    /// Numbers of a kind and a size that there are.
    ///
    /// # Errors
    /// There are none.
    pub fn new(kind: u8, size: u8) -> Result<Self, ArrayError> {
        let known = match kind {
            b'b' => size == 1,
            b'i' | b'u' => matches!(size, 1 | 2 | 4 | 8),
            b'f' => matches!(size, 2 | 4 | 8 | 16),
            b'c' => matches!(size, 8 | 16 | 32),
            _ => false,
        };
        let kind_name = char::from(kind);
        known
            .then_some(Self { kind, size })
            .ok_or(ArrayError::Numbers { kind: kind_name, size })
    }
}

/// What is known of an array: all but its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayHead {
    /// What its numbers are.
    pub numbers: Numbers,
    /// Whether the first axis varies fastest (Fortran's order), else the last one (C's).
    pub fortran: bool,
    /// Its lengths along each axis.
    pub shape: Vec<usize>,
    bytes: usize,
}

impl ArrayHead {
    /// An array of this kind.
    ///
    /// # Errors
    /// It has too many axes, or more bytes than a machine can address.
    pub fn new(numbers: Numbers, fortran: bool, shape: Vec<usize>) -> Result<Self, ArrayError> {
        if shape.len() > MOST_AXES {
            return Err(ArrayError::Field("number of axes"));
        }
        // Also where an axis is empty, the others span what a machine can address: those who read it multiply them.
        let mut lengths = shape.iter().filter(|&&length| length > 0);
        let span = lengths.try_fold(usize::from(numbers.size), |span, &length| span.checked_mul(length));
        let most = isize::MAX as usize - 2 * FIXED - 8 * MOST_AXES - ARRAY_ALIGN;
        let span = span.filter(|&span| span <= most).ok_or(ArrayError::Field("shape"))?;
        let bytes = if shape.contains(&0) { 0 } else { span };
        Ok(Self {
            numbers,
            fortran,
            shape,
            bytes,
        })
    }

    /// Bytes of all its numbers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where its numbers begin in the value.
    #[must_use]
    pub fn offset(&self) -> usize {
        (FIXED + 8 * self.shape.len()).next_multiple_of(ARRAY_ALIGN)
    }

    /// Bytes of the whole value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offset() + self.bytes
    }

    /// Never: a value has a head at least.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Bytes from one number to the next along each axis.
    #[must_use]
    pub fn strides(&self) -> Vec<isize> {
        let mut strides = vec![0; self.shape.len()];
        let mut step = isize::from(self.numbers.size);
        let mut place = |axis: usize| {
            strides[axis] = step;
            // An empty axis has no second number; all others were multiplied in `new`.
            step *= isize::try_from(self.shape[axis].max(1)).unwrap_or(1);
        };
        if self.fortran {
            (0..self.shape.len()).for_each(&mut place);
        } else {
            (0..self.shape.len()).rev().for_each(&mut place);
        }
        strides
    }

    /// Writes the head, up to where the numbers begin. `out` is that long or longer.
    pub fn write(&self, out: &mut [u8]) {
        let offset = self.offset();
        out[..offset].fill(0);
        let axes = u8::try_from(self.shape.len()).unwrap_or(u8::MAX); // Not more than 32: see `new`.
        let order = u8::from(self.fortran);
        out[..6].copy_from_slice(&[ARRAY, self.numbers.kind, self.numbers.size, LITTLE, order, axes]);
        out[8..16].copy_from_slice(&(offset as u64).to_le_bytes());
        for (raw, &length) in out[FIXED..].chunks_exact_mut(8).zip(&self.shape) {
            raw.copy_from_slice(&(length as u64).to_le_bytes());
        }
    }

    /// The head of a value, and where in its bytes the numbers lie.
    ///
    /// # Errors
    /// It is no array, or damaged.
    pub fn read(value: &[u8]) -> Result<(Self, Range<usize>), ArrayError> {
        let head = Self::look(value)?;
        let (offset, end) = (head.offset(), head.len());
        if value.len() != end {
            return Err(ArrayError::Length("numbers"));
        }
        Ok((head, offset..end))
    }

    /// The head alone, from a value's first bytes.
    ///
    /// # Errors
    /// As `read`, but that nobody looks for the numbers.
    pub fn look(value: &[u8]) -> Result<Self, ArrayError> {
        match value.first() {
            Some(&ARRAY) => {}
            Some(&form) => return Err(ArrayError::Form(form)),
            None => return Err(ArrayError::Length("head")),
        }
        let fixed: &[u8; FIXED] = value.first_chunk().ok_or(ArrayError::Length("head"))?;
        let [_, kind, size, little, order, axes, zeros @ ..] = fixed;
        if *little != LITTLE {
            return Err(ArrayError::Field("order of bytes"));
        }
        if *order > 1 || zeros[..2] != [0, 0] {
            return Err(ArrayError::Field("order"));
        }
        let axes = usize::from(*axes);
        if axes > MOST_AXES {
            return Err(ArrayError::Field("number of axes"));
        }
        let raw = value.get(FIXED..FIXED + 8 * axes).ok_or(ArrayError::Length("shape"))?;
        let length = |raw: &[u8]| usize::try_from(u64::from_le_bytes(raw.try_into().expect("eight bytes each")));
        let shape = raw.chunks_exact(8).map(length).collect::<Result<_, _>>();
        let shape = shape.map_err(|_| ArrayError::Field("shape"))?;
        let head = Self::new(Numbers::new(*kind, *size)?, *order == 1, shape)?;
        if zeros[2..] != (head.offset() as u64).to_le_bytes() {
            return Err(ArrayError::Field("offset"));
        }
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOUBLE: Numbers = Numbers { kind: b'f', size: 8 };

    fn packed(fortran: bool, shape: &[usize]) -> Vec<u8> {
        let head = ArrayHead::new(DOUBLE, fortran, shape.to_vec()).unwrap();
        let mut value = vec![7; head.len()];
        head.write(&mut value);
        value
    }

    #[test]
    fn what_was_written_is_read() {
        for shape in [&[][..], &[0], &[3], &[3, 4], &[0, 5, usize::MAX / 128], &[1; MOST_AXES]] {
            for fortran in [false, true] {
                let value = packed(fortran, shape);
                let (head, place) = ArrayHead::read(&value).unwrap();
                assert_eq!((head.shape.as_slice(), head.fortran), (shape, fortran));
                assert_eq!((place.start % ARRAY_ALIGN, place.end), (0, value.len()));
                assert_eq!(place.len(), head.bytes());
            }
        }
    }

    #[test]
    fn strides_follow_the_order() {
        let head = |fortran| ArrayHead::new(DOUBLE, fortran, vec![2, 3, 4]).unwrap().strides();
        assert_eq!(head(false), [96, 32, 8]);
        assert_eq!(head(true), [8, 16, 48]);
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let value = packed(true, &[2, 1]);
        let head = [3, b'f', 8, 1, 1, 2, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(value[..16], head);
        assert_eq!(value[16..32], [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert!(value[32..64].iter().all(|&byte| byte == 0));
        assert_eq!(value.len(), 64 + 16);
    }

    #[test]
    fn what_spans_more_than_a_machine_is_refused() {
        assert!(ArrayHead::new(DOUBLE, false, vec![usize::MAX, 2]).is_err());
        assert!(ArrayHead::new(DOUBLE, false, vec![0, usize::MAX / 8]).is_err());
        assert!(ArrayHead::new(DOUBLE, false, vec![1; MOST_AXES + 1]).is_err());
        assert!(Numbers::new(b'f', 1).is_err() && Numbers::new(b'O', 8).is_err());
    }

    #[test]
    fn damaged_bytes_are_refused_or_stay_in_bounds() {
        let whole = packed(false, &[5, 6]);
        for end in 0..whole.len() {
            assert!(ArrayHead::read(&whole[..end]).is_err(), "cut at {end}");
        }
        let mut random = 0x2545_f491_4f6c_dd1d_u64; // A fixed seed: xorshift.
        for _ in 0..200_000 {
            let mut value = whole.clone();
            for _ in 0..1 + random % 3 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let at = usize::try_from(random >> 8).unwrap_or(0) % 34;
                value[at] = u8::try_from(random & 0xff).unwrap();
            }
            if let Ok((head, place)) = ArrayHead::read(&value) {
                assert!(place.end <= value.len() && place.len() == head.bytes());
                assert_eq!(head.strides().len(), head.shape.len());
            }
        }
    }
}
