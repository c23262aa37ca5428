//! Which state of which object, in little space: of each child that there is, one is in memory.

use kube::core::ObjectMeta;

use super::Live;

/// Which state of which object.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Version {
    /// As Kubernetes writes them, in a fifth of the space.
    Usual { uid: [u8; 16], number: u64 },
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
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}
