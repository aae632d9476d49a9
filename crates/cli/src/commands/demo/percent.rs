//! A share in percent, as typed: `20%` or `20`.

use std::fmt;
use std::str::FromStr;

/// 0 to 100 percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Percent(f64);

impl Percent {
    /// `None` if it is not between 0 and 100.
    pub(super) fn new(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then_some(Self(percent))
    }

    pub(super) fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').unwrap_or(text).trim();
        let parsed = number.parse().ok().and_then(Self::new);
        parsed.ok_or_else(|| "expected a share between 0 and 100, such as 20%".into())
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_written_with_or_without_its_sign() {
        let parse = |text: &str| text.parse::<Percent>().map(Percent::get);
        assert_eq!(parse("20%"), Ok(20.0));
        assert_eq!(parse("0.1 %"), Ok(0.1));
        assert_eq!(parse("5"), Ok(5.0));
        for wrong in ["", "%", "-1", "101", "NaN", "inf", "x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
