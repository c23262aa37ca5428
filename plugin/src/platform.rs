//! Platforms as people name them: `linux/amd64`, `linux/arm/v7`.

/// A platform that was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) os: String,
    pub(crate) architecture: String,
    pub(crate) variant: Option<String>,
}

/// What containers on this machine run.
pub(crate) fn here() -> String {
    match std::env::consts::ARCH {
        "x86_64" => "linux/amd64".to_owned(),
        "aarch64" => "linux/arm64".to_owned(),
        other => format!("linux/{other}"),
    }
}

/// Reads a platform on the command line.
pub(crate) fn parse(text: &str) -> Result<Named, String> {
    let is_word =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let parts: Vec<_> = text.split('/').collect();
    let (os, architecture, variant) = match parts[..] {
        [os, architecture] => (os, architecture, None),
        [os, architecture, variant] => (os, architecture, Some(variant)),
        _ => return Err("a platform is OS/ARCHITECTURE, such as linux/arm64".to_owned()),
    };
    if ![os, architecture].into_iter().chain(variant).all(is_word) {
        return Err("a platform has small letters and digits, such as linux/arm/v7".to_owned());
    }
    Ok(Named { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read() {
        assert!(parse(&here()).is_ok());
        let read = parse("linux/arm/v7").unwrap();
        assert_eq!(
            (read.os.as_str(), read.architecture.as_str(), read.variant.as_deref()),
            ("linux", "arm", Some("v7"))
        );
        for text in ["", "linux", "linux/", "Linux/amd64", "linux/amd64/v1/x", "linux/a\"b", "amd64/"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
