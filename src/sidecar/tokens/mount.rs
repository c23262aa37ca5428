//! A push that would rather have a layer from another repository than send it (`mount` and `from` in the query). Who may not read the other repository
//! uploads; the registry alone would refuse the push, and some clients then fail.

/// The repository that a query wants a layer from; `None`: it asks for no mount.
pub(super) fn source(query: &str) -> Option<String> {
    let value = |wanted: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
    };
    value("mount")?;
    value("from").or(Some(String::new()))
}

/// The query without a mount, as it was written otherwise.
pub(super) fn without(query: &str) -> String {
    let is_of_it = |pair: &&str| {
        let name = form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name.into_owned());
        !matches!(name.as_deref(), Some("mount" | "from"))
    };
    query.split('&').filter(is_of_it).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_and_taken_out() {
        for (query, from, left) in [
            ("mount=sha256:0&from=red/app", Some("red/app"), ""),
            ("from=red%2Fapp&mount=sha256%3A0&digest=x", Some("red/app"), "digest=x"),
            ("mount=sha256:0", Some(""), ""),
            ("%6dount=sha256:0&fro%6d=a", Some("a"), ""),
            ("from=a", None, ""),
            ("digest=sha256%3A0&a=b", None, "digest=sha256%3A0&a=b"),
            ("", None, ""),
        ] {
            assert_eq!((source(query).as_deref(), without(query).as_str()), (from, left), "{query}");
        }
    }
}
