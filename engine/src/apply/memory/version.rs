//! Which state of which object, in little space: of each child that there is, one is in memory.

use std::num::NonZeroU64;

use kube::core::ObjectMeta;

use super::Live;

/// Which state of which object.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Version {
    /// As Kubernetes writes them, in a fifth of the space.
    Usual { uid: [u8; 16], number: NonZeroU64 },
    /// uid and resourceVersion in any other form.
    Other(Box<(String, String)>),
}

impl Version {
    pub(super) fn new(uid: &str, resource_version: &str) -> Self {
        match (uuid(uid), number(resource_version)) {
            (Some(uid), Some(number)) => Self::Usual { uid, number },
            _ => Self::Other(Box::new((uid.to_owned(), resource_version.to_owned()))),
        }
    }

    pub(super) fn of_event(metadata: &ObjectMeta) -> Self {
        let uid = metadata.uid.as_deref().unwrap_or_default();
        Self::new(uid, metadata.resource_version.as_deref().unwrap_or_default())
    }

    pub(super) fn of(live: &Live) -> Self {
        Self::new(live.uid(), live.resource_version())
    }

    /// `metadata.uid`
    pub(super) fn uid(&self) -> String {
        let uid = match self {
            Self::Usual { uid, .. } => uid,
            Self::Other(other) => return other.0.clone(),
        };
        let mut text = String::with_capacity(36);
        for (place, byte) in uid.iter().enumerate() {
            if [4, 6, 8, 10].contains(&place) {
                text.push('-');
            }
            text.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
        }
        text
    }

    /// `metadata.resourceVersion`
    pub(super) fn resource_version(&self) -> String {
        match self {
            Self::Usual { number, .. } => number.to_string(),
            Self::Other(other) => other.1.clone(),
        }
    }

    pub(super) fn is_of_the_object_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Usual { uid, .. }, Self::Usual { uid: other, .. }) => uid == other,
            (Self::Other(this), Self::Other(other)) => this.0 == other.0,
            _ => false,
        }
    }

    /// Of one object, versions are numbers that grow. <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        let older = match (self, other) {
            (Self::Usual { number, .. }, Self::Usual { number: other, .. }) => number < other,
            (Self::Other(this), Self::Other(other)) => {
                matches!((this.1.parse::<u64>(), other.1.parse::<u64>()), (Ok(this), Ok(that)) if this < that)
            }
            _ => false,
        };
        older && self.is_of_the_object_of(other)
    }
}

/// `None` if it isn't written in the one way from which the text can be told again.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let mut groups = text.split('-');
    let lengths = [8, 4, 4, 4, 12];
    if !lengths.iter().all(|length| groups.next().is_some_and(|group| group.len() == *length))
        || groups.next().is_some()
    {
        return None;
    }
    let mut digits = text.bytes().filter(|byte| *byte != b'-').map(|byte| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    });
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        *byte = digits.next()?? << 4 | digits.next()??;
    }
    Some(bytes)
}

/// The same of a number.
fn number(text: &str) -> Option<NonZeroU64> {
    text.parse().ok().filter(|number: &NonZeroU64| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_shorter_reads_as_it_was() {
        for (uid, version) in [
            ("0f5a9c3e-7b21-4d68-8a90-123456789abc", "18446744073709551615"),
            ("u", "7"),
            ("", ""),
            ("0f5a9c3e-7b21-4d68-8a90-123456789abc", "0"),
        ] {
            let known = Version::new(uid, version);
            assert_eq!((known.uid().as_str(), known.resource_version().as_str()), (uid, version));
        }
    }
}
