//! Scalars with a rule of their own: durations as Go writes them, quantities as Kubernetes writes them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// A duration as Go writes it (`8760h`, `1h30m`, `90s`). Kept as the user's text; [`GoDuration::seconds`] reads it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct GoDuration(pub String);

impl GoDuration {
    /// Whole seconds; `None` when the text is no duration or negative (admission refuses both).
    #[must_use]
    pub fn seconds(&self) -> Option<u64> {
        let parsed: kube::core::Duration = self.0.parse().ok()?;
        if parsed.is_negative() {
            return None;
        }
        Some(std::time::Duration::from(parsed).as_secs())
    }
}

impl JsonSchema for GoDuration {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "GoDuration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 32, "pattern": r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$"})
    }
}

/// A quantity as Kubernetes writes it (`20Gi`, `500m`, `2`). A bare number is accepted and kept as text.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Quantity(pub String);

impl Quantity {
    /// The value as a number of base units (bytes, cores); `None` when the text is no quantity.
    /// Shape: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        let digits =
            self.0.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-' || c == '+')).unwrap_or(self.0.len());
        let (number, suffix) = self.0.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let factor = match suffix {
            "" => 1.0,
            "n" => 1e-9,
            "u" => 1e-6,
            "m" => 1e-3,
            "k" => 1e3,
            "M" => 1e6,
            "G" => 1e9,
            "T" => 1e12,
            "P" => 1e15,
            "E" => 1e18,
            "Ki" => 1024.0,
            "Mi" => 1024.0_f64.powi(2),
            "Gi" => 1024.0_f64.powi(3),
            "Ti" => 1024.0_f64.powi(4),
            "Pi" => 1024.0_f64.powi(5),
            "Ei" => 1024.0_f64.powi(6),
            exponent => 10_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
        };
        Some(number * factor)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Word(String),
            Whole(i64),
            Fraction(f64),
        }
        Ok(Self(match Text::deserialize(deserializer)? {
            Text::Word(word) => word,
            Text::Whole(number) => number.to_string(),
            Text::Fraction(number) => number.to_string(),
        }))
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 32,
            "pattern": r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|([eE][-+]?[0-9]+))?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_numbers_of_base_units() {
        for (text, value) in [("20Gi", 21_474_836_480.0), ("500m", 0.5), ("2", 2.0), ("1e3", 1000.0), ("1.5k", 1500.0)]
        {
            assert_eq!(Quantity(text.into()).value(), Some(value), "{text}");
        }
        for text in ["", "Gi", "1x", "one"] {
            assert_eq!(Quantity(text.into()).value(), None, "{text}");
        }
    }

    #[test]
    fn a_quantity_may_be_a_bare_number() {
        let both: Vec<Quantity> = serde_json::from_str(r#"["2", 2, 0.5]"#).unwrap();
        assert_eq!(both, ["2", "2", "0.5"].map(|text| Quantity(text.into())));
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, seconds) in
            [("8760h", Some(31_536_000)), ("1h30m", Some(5400)), ("90s", Some(90)), ("-1h", None), ("1d", None)]
        {
            assert_eq!(GoDuration(text.into()).seconds(), seconds, "{text}");
        }
    }
}
