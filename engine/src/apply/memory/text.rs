//! What is held of an object, as JSON: a tenth of the space of a tree of maps.

use std::fmt;
use std::sync::Arc;

use hyper::body::Bytes;
use serde_json::Value;

/// JSON text. Cheap to clone. Never printed: it may be of a Secret.
#[derive(Clone)]
pub(super) enum Text {
    /// In memory of its own, for as long as the object is as it is.
    Held(Arc<[u8]>),
    /// A part of the page on which it was listed, until it is compared. As the last of a page's texts goes, all of its memory is given back; texts of
    /// their own would leave holes between what stays.
    Listed(Box<Bytes>),
}

impl Text {
    pub(super) fn of(value: &Value) -> Self {
        Self::Held(value.to_string().into_bytes().into())
    }

    pub(super) fn listed(text: Bytes) -> Self {
        Self::Listed(Box::new(text))
    }

    /// Into memory of its own.
    pub(super) fn leave_page(&mut self) {
        if let Self::Listed(bytes) = self {
            *self = Self::Held(bytes[..].into());
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes().len()
    }

    /// `None`: it is no JSON.
    pub(super) fn parse(&self) -> Option<Value> {
        serde_json::from_slice(self.bytes()).ok()
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Held(bytes) => bytes,
            Self::Listed(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.len())
    }
}
