//! Amounts as people write them: `8GiB`, `500MB`, `30m`, `1.5s`. Owns the two grammars and the printed form of memory;
//! exact integer arithmetic, because a rounded limit is a wrong limit.

use std::time::Duration;
use thiserror::Error;

/// A text that is no duration or no amount of memory.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("{text:?} is no {what}: {reason}")]
pub struct UnitError {
    text: String,
    what: &'static str,
    reason: String,
}

const DURATION_UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

const MEMORY_UNITS: [(&str, u64); 10] = [
    ("B", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Reads a duration: numbers with the units ns, ms, s, m, h, d, such as `30m`, `1.5s` or `1h30m`.
///
/// # Errors
/// No number, no or another unit, or more than u64 nanoseconds (584 years).
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let refuse = |reason: String| UnitError {
        text: text.to_owned(),
        what: "duration",
        reason,
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(refuse("write a number and a unit, such as 30m, 2h or 1.5s".to_owned()));
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let (nanos, tail) = term(rest, &DURATION_UNITS, "ns, ms, s, m, h or d").map_err(refuse)?;
        total = total
            .checked_add(nanos)
            .ok_or_else(|| refuse("it is too long".to_owned()))?;
        rest = tail.trim_start();
    }
    Ok(Duration::from_nanos(total))
}

/// Reads an amount of memory in bytes: a number and one of B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers
/// of 1024), such as `8GiB`, `500MB` or `1.5 GiB`. A part of a byte is dropped.
///
/// # Errors
/// No number, no or another unit, or more than u64 bytes.
pub fn parse_memory(text: &str) -> Result<u64, UnitError> {
    let refuse = |reason: String| UnitError {
        text: text.to_owned(),
        what: "amount of memory",
        reason,
    };
    let trimmed = text.trim();
    if let Some(letter @ ('k' | 'K' | 'm' | 'M' | 'g' | 'G' | 't' | 'T')) = trimmed.chars().last() {
        let (number, big) = (trimmed.trim_end_matches(letter), letter.to_ascii_uppercase());
        return Err(refuse(format!(
            "{letter} may mean powers of 1000 or of 1024; write {number}{big}iB (1024) or {number}{big}B (1000)"
        )));
    }
    let (bytes, tail) = term(trimmed, &MEMORY_UNITS, "B, kB, MB, GB, TB, KiB, MiB, GiB or TiB").map_err(refuse)?;
    if tail.is_empty() {
        Ok(bytes)
    } else {
        Err(refuse(format!("{tail:?} follows the unit")))
    }
}

/// One number with its unit at the start of `text`: its value in the smallest unit, and what follows.
fn term<'a>(text: &'a str, units: &[(&str, u64)], valid: &str) -> Result<(u64, &'a str), String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.is_empty() || fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(format!("a number is expected at {text:?}"));
    }
    let Some(&(_, scale)) = units.iter().find(|(name, _)| *name == unit) else {
        let found = if unit.is_empty() {
            "the unit is missing".to_owned()
        } else {
            format!("{unit:?} is no unit")
        };
        return Err(format!("{found}; use {valid}"));
    };
    scaled(whole, fraction, scale)
        .map(|value| (value, rest))
        .ok_or_else(|| "it is too large".to_owned())
}

/// `whole.fraction * scale`, rounded down; `None` when it does not fit.
fn scaled(whole: &str, fraction: &str, scale: u64) -> Option<u64> {
    let digits = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.parse::<u64>().ok()
        }
    };
    // 18 digits decide more than any unit can show, and keep the product within 128 bits.
    let fraction = fraction.get(..fraction.len().min(18))?;
    let part = u128::from(digits(fraction)?) * u128::from(scale) / 10u128.pow(u32::try_from(fraction.len()).ok()?);
    u64::try_from(u128::from(digits(whole)?) * u128::from(scale) + part).ok()
}

/// Memory for people: the largest unit of 1024 that it fills, with one digit where it is not whole; `8 GiB`, `1.5 GiB`.
#[must_use]
pub fn format_memory(bytes: u64) -> String {
    for (unit, scale) in [
        ("TiB", 1u64 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ] {
        if bytes >= scale {
            let tenths = (bytes % scale) * 10 / scale;
            let whole = bytes / scale;
            return if tenths == 0 {
                format!("{whole} {unit}")
            } else {
                format!("{whole}.{tenths} {unit}")
            };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact() {
        for (text, nanos) in [
            ("30m", 1_800_000_000_000u64),
            ("2h", 7_200_000_000_000),
            ("1.5s", 1_500_000_000),
            ("1h30m", 5_400_000_000_000),
            (" 250 ms ", 250_000_000),
            ("0.1s", 100_000_000),
            ("1d", 86_400_000_000_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn memory_is_exact() {
        for (text, bytes) in [
            ("8GiB", 8u64 << 30),
            ("500MB", 500_000_000),
            ("1.5 GiB", 3 << 29),
            ("64B", 64),
            ("2kB", 2000),
            ("2KB", 2000),
            ("3TiB", 3 << 40),
        ] {
            assert_eq!(parse_memory(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refusals_name_the_text_and_the_way_out() {
        let refused = |text: &str, expected: &str| {
            let memory = parse_memory(text).err().map(|e| e.to_string());
            let duration = parse_duration(text).err().map(|e| e.to_string());
            assert!(
                [memory, duration].iter().flatten().any(|m| m.contains(expected)),
                "{text}: {expected}"
            );
        };
        refused("8G", "write 8GiB (1024) or 8GB (1000)");
        refused("12", "the unit is missing; use B, kB");
        refused("12", "the unit is missing; use ns, ms");
        refused("5 years", "\"years\" is no unit");
        refused("1.2.3s", "a number is expected");
        refused(".s", "a number is expected");
        refused("-4GiB", "a number is expected");
        refused("99999999999TiB", "too large");
        refused("99999999999d", "too large");
        refused("1GiB 2", "follows the unit");
        refused("", "30m, 2h or 1.5s");
        refused("1é", "unit");
    }

    #[test]
    fn printed_memory_is_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (3 << 29, "1.5 GiB"),
            (8 << 30, "8 GiB"),
        ] {
            assert_eq!(format_memory(bytes), text);
        }
    }
}
