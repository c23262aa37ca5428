//! Kubernetes quantities as exact numbers, so that `1000m` and `1`, or `1Gi` and `1024Mi`, are seen to be the same. Pure.

use std::fmt;

/// A quantity in billionths: the finest that the API server keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Quantity(i128);

const NANO: i128 = 1_000_000_000;

impl Quantity {
    /// `None` if `text` is no quantity, or too large to be one. The grammar is that of `k8s.io/apimachinery/pkg/api/resource`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let digits_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let decimals = u32::try_from(fraction.len()).ok()?;

        let (numerator, denominator) = scale(suffix)?;
        let numerator = mantissa.checked_mul(numerator)?.checked_mul(NANO)?;
        let denominator = 10_i128.checked_pow(decimals)?.checked_mul(denominator)?;
        let nanos = numerator / denominator + i128::from(numerator % denominator != 0);
        Some(Self(if negative { -nanos } else { nanos }))
    }
}

impl Quantity {
    /// The smallest whole number that is more.
    pub(super) fn next_whole(self) -> Self {
        Self((self.0.div_euclid(NANO) + 1) * NANO)
    }
}

impl fmt::Display for Quantity {
    /// In whole units; what is less than one counts as one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.div_euclid(NANO) + i128::from(self.0.rem_euclid(NANO) != 0))
    }
}

/// What a suffix multiplies by, as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let decimal = |exponent: u32| Some((10_i128.checked_pow(exponent)?, 1));
    let binary = |exponent: u32| Some((1_i128 << exponent, 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_amount_are_equal() {
        for (a, b) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "0.5"),
            ("1.", "1"),
            ("1Gi", "1024Mi"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1k"),
            ("1E3", "1000"),
            ("1E", "1000P"),
            ("12e-1", "1.2"),
            ("+5", "5"),
            ("0.1n", "1n"),
            ("8Ei", "8192Pi"),
        ] {
            assert_eq!(Quantity::parse(a).expect(a), Quantity::parse(b).expect(b), "{a} {b}");
        }
    }

    #[test]
    fn different_amounts_are_ordered() {
        for (less, more) in [("1G", "1Gi"), ("999m", "1"), ("-1", "0"), ("10Gi", "0.01Ti")] {
            assert!(Quantity::parse(less) < Quantity::parse(more), "{less} {more}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_not_guessed() {
        for text in ["", "-", ".", "1.2.3", "1gb", "Gi", "1 Gi", "1e", "e3", "0x10", "1KiB"] {
            assert_eq!(Quantity::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,24}") {
            let _ = Quantity::parse(&text);
        }

        #[test]
        fn milli_and_kilo_are_a_thousand(n in 0_i64..1_000_000_000) {
            prop_assert_eq!(Quantity::parse(&format!("{n}000m")), Quantity::parse(&n.to_string()));
            prop_assert_eq!(Quantity::parse(&format!("{n}k")), Quantity::parse(&format!("{n}000")));
        }
    }
}
