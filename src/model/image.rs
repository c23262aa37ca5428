//! What the name of an image tells about the registry's version.

use std::cmp::Ordering;

/// Oldest registry without known security faults that the operator would expose.
pub const OLDEST: [u64; 3] = [3, 1, 1];

/// What the name of an image tells about the registry's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The tag says 3.1.1 or newer.
    Supported,
    /// The tag says something older.
    TooOld,
    /// The name does not say: a digest alone, `latest`, a mirror's own tag, or a tag as short as `3`.
    Unverified,
}

/// Reads the tag of `image` (`host:port/path:tag@digest`).
#[must_use]
pub fn version(image: &str) -> Version {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    let Some((_, tag)) = last.split_once(':') else { return Version::Unverified };
    let tag = tag.strip_prefix('v').unwrap_or(tag);
    let release = tag.split(['-', '+']).next().unwrap_or(tag);
    let Ok(parts) = release.split('.').map(str::parse).collect::<Result<Vec<u64>, _>>() else {
        return Version::Unverified;
    };
    // A short tag moves: 3 is whatever 3.x is newest, so only the parts that are there can be judged.
    let compared = parts.iter().zip(OLDEST).map(|(have, need)| have.cmp(&need)).find(|order| order.is_ne());
    match compared {
        Some(Ordering::Less) => Version::TooOld,
        Some(_) => Version::Supported,
        None if parts.len() >= OLDEST.len() => Version::Supported,
        None => Version::Unverified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_decides() {
        for (image, expected) in [
            ("registry:2.8.3", Version::TooOld),
            ("registry:2", Version::TooOld),
            ("registry:3.0.0", Version::TooOld),
            ("registry:3.0", Version::TooOld),
            ("docker.io/library/registry:3.1.0-rc.1", Version::TooOld),
            ("registry:v2.8@sha256:00", Version::TooOld),
            ("registry:3.1.1", Version::Supported),
            ("localhost:5000/registry:v3.2.0-alpine@sha256:00", Version::Supported),
            ("registry:4", Version::Supported),
            ("registry:3", Version::Unverified),
            ("registry:3.1", Version::Unverified),
            ("registry", Version::Unverified),
            ("localhost:2/registry", Version::Unverified),
            ("registry:latest", Version::Unverified),
            ("registry@sha256:2000", Version::Unverified),
        ] {
            assert_eq!(version(image), expected, "{image}");
        }
    }
}
