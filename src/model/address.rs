//! What stands before the first slash of an image name. Kept as it was written: clients compare it letter by letter with the
//! names of their logins and of their trust files, so nothing may be added to it, left out or spelt otherwise.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A host with or without a port, as it stands in an image name: `registry.example.com`, `192.0.2.10:30500`,
/// `[2001:db8::1]:5000`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    text: String,
    host: Host,
    port: Option<u16>,
}

/// The host alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// A DNS name in lower case.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

/// The rule that an address breaks, in words that follow the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The host is neither a name nor an address.
    #[error(
        "is neither a DNS name in lower case, an IPv4 address nor an IPv6 address in brackets, with or without a port"
    )]
    Host,
    /// The port is none.
    #[error("has a port that is not a number from 1 to 65535")]
    Port,
    /// Clients would take it for a path of Docker Hub.
    #[error("needs a dot or a port: clients read registry/app as a path of Docker Hub")]
    Path,
}

impl HostPort {
    /// Reads an address.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.contains('/') {
            return Err(AddressError::Host);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']').ok_or(AddressError::Host)?;
                let address: Ipv6Addr = address.parse().map_err(|_| AddressError::Host)?;
                let port = match rest.strip_prefix(':') {
                    Some(port) => Some(port),
                    None if rest.is_empty() => None,
                    None => return Err(AddressError::Host),
                };
                (Host::Ip(address.into()), port)
            }
            None => {
                let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
                (Host::parse(host)?, port)
            }
        };
        let port = port.map(parse_port).transpose()?;
        let is_path = matches!(&host, Host::Name(name) if !name.contains('.') && name != "localhost");
        if is_path && port.is_none() {
            return Err(AddressError::Path);
        }
        Ok(Self { text: text.to_owned(), host, port })
    }

    /// The address of a host at a port; without it where clients would leave it out.
    #[must_use]
    pub fn at(host: Host, port: Option<u16>) -> Self {
        let text = match port {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        Self { text, host, port }
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, if one is written.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Host {
    fn parse(text: &str) -> Result<Self, AddressError> {
        let is_label = |label: &str| {
            let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            label.len() <= 63
                && label.bytes().all(|byte| inner(byte) || byte == b'-')
                && label.bytes().next().is_some_and(inner)
                && label.bytes().last().is_some_and(inner)
        };
        if let Ok(address) = text.parse::<std::net::Ipv4Addr>() {
            return Ok(Self::Ip(address.into()));
        }
        // Nobody's name ends with a number: such a text is an address with a slip in it.
        let is_numeric = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        if is_numeric || text.len() > 253 || !text.split('.').all(is_label) {
            return Err(AddressError::Host);
        }
        Ok(Self::Name(text.to_owned()))
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let is_plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain).ok_or(AddressError::Port)
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_form_is_read() {
        let name = |name: &str| Host::Name(name.to_owned());
        let ip = |ip: &str| Host::Ip(ip.parse().unwrap());
        for (text, host, port) in [
            ("registry.example.com", name("registry.example.com"), None),
            ("registry.example.com:443", name("registry.example.com"), Some(443)),
            ("registry:5000", name("registry"), Some(5000)),
            ("localhost", name("localhost"), None),
            ("192.0.2.10", ip("192.0.2.10"), None),
            ("192.0.2.10:30500", ip("192.0.2.10"), Some(30500)),
            ("[2001:db8::1]", ip("2001:db8::1"), None),
            ("[2001:DB8:0::1]:5000", ip("2001:db8::1"), Some(5000)),
        ] {
            let read = HostPort::parse(text).unwrap();
            assert_eq!((read.host(), read.port(), read.as_str()), (&host, port, text));
        }
    }

    #[test]
    fn what_no_client_could_use_is_refused_with_its_rule() {
        for (text, rule) in [
            ("", AddressError::Host),
            ("Registry.example.com", AddressError::Host),
            ("a..b", AddressError::Host),
            ("-a.b", AddressError::Host),
            ("a_b.c", AddressError::Host),
            ("300.1.2.3", AddressError::Host),
            ("192.0.2.1/24", AddressError::Host),
            ("https://a.b", AddressError::Host),
            ("2001:db8::1", AddressError::Host),
            ("[2001:db8::1", AddressError::Host),
            ("[192.0.2.1]", AddressError::Host),
            ("[::1]5000", AddressError::Host),
            ("*.example.com", AddressError::Host),
            ("a.b:", AddressError::Port),
            ("a.b:0", AddressError::Port),
            ("a.b:080", AddressError::Port),
            ("a.b:+80", AddressError::Port),
            ("a.b:65536", AddressError::Port),
            ("registry", AddressError::Path),
        ] {
            assert_eq!(HostPort::parse(text), Err(rule), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_as_it_was(
            host in prop_oneof![
                "[a-z]([-a-z0-9]{0,8}[a-z])?(\\.[a-z]([-a-z0-9]{0,8}[a-z])?){1,3}",
                any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
                any::<Ipv6Addr>().prop_map(|ip| format!("[{ip}]")),
                any::<Ipv6Addr>().prop_map(|ip| format!("[{ip}]").to_uppercase()),
            ],
            port in prop::option::of(1_u16..),
        ) {
            let text = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
            let read = HostPort::parse(&text).unwrap();
            prop_assert_eq!(read.to_string(), text);
            prop_assert_eq!(read.port(), port);
            let made = HostPort::at(read.host().clone(), port);
            let again = HostPort::parse(made.as_str());
            prop_assert_eq!(again.as_ref(), Ok(&made));
            prop_assert_eq!(made.host(), read.host());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>(), brackets in "[\\[\\]a-f0-9:.]{0,30}") {
            let _ = HostPort::parse(&text);
            let _ = HostPort::parse(&brackets);
        }
    }
}
