//! How durations and names are written on the command line.

use std::time::Duration;

/// A duration such as `15s`, `1m30s`, `250ms`; must be longer than zero.
///
/// # Errors
/// A sentence for the user, for clap to print.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration =
        text.parse().map_err(|_| "must be a duration such as 15s, 1m30s or 250ms".to_owned())?;
    match Duration::try_from(parsed) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("must be positive".to_owned()),
    }
}

/// A name such as Kubernetes gives to namespaces and Leases, or a DNS domain. A wrong one would fail much later, request by request; an
/// empty namespace would mean all of them in a list and none in a pass.
///
/// # Errors
/// A sentence for the user, for clap to print.
pub fn name(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        label.bytes().all(|byte| inner(byte) || byte == b'-')
            && label.bytes().next().is_some_and(inner)
            && label.bytes().last().is_some_and(inner)
    };
    if text.is_empty() {
        return Err("must not be empty; leave the flag and its variable out for the default".to_owned());
    }
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err("must hold only lower-case letters, digits, '-' and '.', and begin and end with a letter or digit".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kubernetes_takes() {
        for right in ["a", "team-a", "cluster.local", "0-9"] {
            assert_eq!(name(right), Ok(right.to_owned()));
        }
        for wrong in ["", "Team", "a b", " a", "-a", "a-", "a..b", "a_b", "ä", &"a".repeat(254)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "15", "0s", "-3s", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
