//! Values of the command line that clap has no parser for, and numbers in words.

use clap::builder::RangedI64ValueParser;
use indicatif::HumanCount;

/// Parses a number of rounds, or of peers.
pub(crate) fn up_to_1000() -> RangedI64ValueParser<usize> {
    RangedI64ValueParser::new().range(1..=1000)
}

/// Parses a number of threads.
pub(crate) fn threads() -> RangedI64ValueParser<usize> {
    RangedI64ValueParser::new().range(1..=64)
}

/// Parses a number of objects.
pub(crate) fn objects(text: &str) -> Result<usize, String> {
    const MOST: usize = 100_000_000;
    let (digits, unit) = match text.to_ascii_lowercase() {
        it if it.ends_with('k') => (&text[..text.len() - 1], 1_000),
        it if it.ends_with('m') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    let number = digits.replace('_', "").parse::<usize>().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .filter(|number| (1..=MOST).contains(number))
        .ok_or_else(|| "valid is 1 to 100000000; 500k and 4M are understood".to_owned())
}

/// Parses a share in percent, as the number from 0 to 1.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .map(|number| number / 100.0)
        .ok_or_else(|| "valid is 0 to 100".to_owned())
}

/// Writes `1 round`, `2 rounds`, `1,000 rounds`.
pub(crate) fn counted(number: impl TryInto<u64>, one: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    let many = match one.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{one}s"),
    };
    format!("{} {}", HumanCount(number), if number == 1 { one } else { &many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_objects_have_units_and_a_range() {
        for (text, value) in [("1", 1), ("4M", 4_000_000), ("2_5k", 25_000), ("100m", 100_000_000)]
        {
            assert_eq!(objects(text), Ok(value), "{text}");
        }
        for text in ["0", "", "M", "-1", "100000001", "101M", "99999999999999999999M", "1.5", "é"]
        {
            assert!(objects(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percents_end_at_0_and_100() {
        for (text, value) in [("0", 0.0), ("12.5", 0.125), ("100%", 1.0)] {
            assert_eq!(percent(text), Ok(value), "{text}");
        }
        for text in ["-1", "100.1", "NaN", "inf", "", "half"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(counted(1_u64, "directory"), "1 directory");
        assert_eq!(counted(0_u64, "directory"), "0 directories");
        assert_eq!(counted(1_000_usize, "round"), "1,000 rounds");
    }
}
