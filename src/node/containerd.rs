//! Where containerd looks for the folders of hosts, as its own configuration says. It takes a text that is not meant for it, or is meant for
//! another version, without a word, so a file is read here as that version would read it.

use std::path::{Component, Path, PathBuf};

use toml::{Table, Value};

/// The folder that containerd is documented to read.
pub const DOCUMENTED: &str = "/etc/containerd/certs.d";
/// What containerd from 2.2 on reads without configuration: its default is a list, which its usual puller takes for one name
/// (<https://github.com/containerd/containerd/issues/12808>).
pub const UNCONFIGURED: &str = "/etc/containerd/certs.d:/etc/docker/certs.d";
/// The first version that looks anywhere without being told to.
const HAS_DEFAULT: Version = Version(2, 2);

/// Major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32);

/// What counts of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configuration {
    imports: Vec<String>,
    /// Whether it speaks of images at all.
    has_section: bool,
    config_path: Option<String>,
    has_mirrors: bool,
}

impl Version {
    /// From what a node says of its runtime, such as `containerd://2.3.4` or `containerd://1.6.20~ds1`; `None` if that is another one.
    #[must_use]
    pub fn of_node(runtime: &str) -> Option<Self> {
        let text = runtime.strip_prefix("containerd://")?;
        let mut numbers = text.trim_start_matches('v').split(|letter: char| !letter.is_ascii_digit());
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl Configuration {
    /// Reads one file.
    ///
    /// # Errors
    /// It is no TOML. The text is not quoted: it may hold logins.
    pub fn read(text: &str) -> Result<Self, String> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("is not TOML (line {line})")
        })?;
        let imports = table.get("imports").and_then(Value::as_array);
        let imports = imports.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let plugins = table.get("plugins").and_then(Value::as_table);
        let section = plugins.and_then(|plugins| names(&table).iter().find_map(|name| plugins.get(*name)?.as_table()));
        let registry = section.and_then(|section| section.get("registry")?.as_table());
        let value = |key: &str| registry.and_then(|registry| registry.get(key));
        let config_path = value("config_path").and_then(Value::as_str).filter(|path| !path.is_empty());
        Ok(Self {
            imports,
            has_section: section.is_some(),
            config_path: config_path.map(str::to_owned),
            has_mirrors: value("mirrors").and_then(Value::as_table).is_some_and(|mirrors| !mirrors.is_empty()),
        })
    }

    /// The files that it wants read after itself: paths, from its own folder or from the root, of which the last name may hold `*`.
    #[must_use]
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// Where it says hosts are to be looked for: one folder, or a list with colons.
    #[must_use]
    pub fn config_path(&self) -> Option<&str> {
        self.config_path.as_deref()
    }

    /// What this and a file that is read after it say together.
    #[must_use]
    pub fn then(self, later: Self, version: Option<Version>) -> Self {
        let imports = [self.imports, later.imports].concat();
        // Before 2.0, the section of a later file takes the place of the whole section of an earlier one.
        if later.has_section && version.is_some_and(|version| version < Version(2, 0)) {
            return Self { imports, ..later };
        }
        Self {
            imports,
            has_section: self.has_section || later.has_section,
            config_path: later.config_path.or(self.config_path),
            has_mirrors: self.has_mirrors || later.has_mirrors,
        }
    }

    /// The folders in which those of hosts must lie so that containerd finds them. `home` is the folder of its configuration, which is all that
    /// can be written to; `version` is `None` where the kubelet uses another runtime.
    ///
    /// # Errors
    /// Why it finds nothing there, and what to do.
    pub fn folders(&self, version: Option<Version>, home: &Path) -> Result<Vec<PathBuf>, String> {
        let home_shown = home.display();
        let list = match &self.config_path {
            Some(list) => list,
            None if self.has_mirrors => {
                return Err(format!(
                    "containerd has no config_path, and registry.mirrors in {home_shown}/config.toml: set config_path to {home_shown}/certs.d \
                     instead of them and restart containerd"
                ));
            }
            None if version.is_some_and(|version| version < HAS_DEFAULT) => {
                return Err(format!(
                    "containerd has no config_path: set it to {home_shown}/certs.d in {home_shown}/config.toml and restart containerd"
                ));
            }
            None => UNCONFIGURED,
        };
        let places = places(list);
        match places.iter().find(|place| !is_below(place, home)) {
            Some(outside) => Err(format!(
                "containerd looks for hosts in {}, and only {home_shown} may be written to: set the chart's nodeTrust.paths.containerd to the \
                 folder above it, or containerd's config_path to {home_shown}/certs.d",
                outside.display()
            )),
            None => Ok(places),
        }
    }
}

fn is_below(place: &Path, home: &Path) -> bool {
    place.starts_with(home) && place != home && !place.components().any(|part| part == Component::ParentDir)
}

/// The places that one `config_path` may stand for: of a list, older pullers look into each folder, and newer ones take it for one name.
pub(super) fn places(list: &str) -> Vec<PathBuf> {
    match list.split_once(':') {
        Some((first, _)) => vec![first.into(), list.into()],
        None => vec![list.into()],
    }
}

/// What the section about images is called in a file of this version.
fn names(table: &Table) -> &'static [&'static str] {
    match table.get("version").and_then(Value::as_integer).unwrap_or(1) {
        ..=1 => &["cri"],
        // The newer name counts, too, but not where the older one is given.
        2 => &["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"],
        _ => &["io.containerd.cri.v1.images"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Option<Version> {
        Version::of_node(text)
    }

    fn folders(config: &str, runtime: &str, home: &str) -> Result<Vec<String>, String> {
        let found = Configuration::read(config).unwrap().folders(version(runtime), Path::new(home));
        found.map(|places| places.iter().map(|place| place.display().to_string()).collect())
    }

    #[test]
    fn a_nodes_version_is_read_whoever_packed_it() {
        for (text, expected) in [
            ("containerd://2.3.4", Some(Version(2, 3))),
            ("containerd://1.6.20~ds1", Some(Version(1, 6))),
            ("containerd://v2.2.0-rc.1", Some(Version(2, 2))),
            ("containerd://2.1-dev", Some(Version(2, 1))),
            ("containerd://", None),
            ("containerd://two", None),
            ("cri-o://1.33.0", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn each_version_of_the_file_has_its_name_for_the_section_and_no_other_is_heeded() {
        let with = |version: &str, section: &str| {
            Configuration::read(&format!(
                "{version}\n[plugins.{section}.registry]\nconfig_path = '/etc/containerd/certs.d'\n"
            ))
            .unwrap()
        };
        let (first, second, third) = ("cri", "'io.containerd.grpc.v1.cri'", "'io.containerd.cri.v1.images'");
        for (file, section, is_heeded) in [
            ("", first, true),
            ("version = 1", first, true),
            ("", second, false),
            ("version = 2", first, false),
            ("version = 2", second, true),
            ("version = 2", third, true),
            ("version = 3", second, false),
            ("version = 3", third, true),
            ("version = 4", third, true),
        ] {
            let found = with(file, section);
            assert_eq!(found.config_path(), is_heeded.then_some(DOCUMENTED), "{file} {section}");
        }
    }

    #[test]
    fn what_containerd_ignores_is_told_with_what_to_do() {
        let (one, other) = (DOCUMENTED.to_owned(), UNCONFIGURED.to_owned());
        let at = |path: &str| {
            format!("version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '{path}'\n")
        };
        let mirrors =
            "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'docker.io']\nendpoint = []\n";
        for (config, runtime, home, expected) in [
            ("", "containerd://2.3.4", "/etc/containerd", Ok(vec![one.clone(), other.clone()])),
            ("", "cri-o://1.33.0", "/etc/containerd", Ok(vec![one.clone(), other.clone()])),
            (&at(DOCUMENTED), "containerd://1.6.20", "/etc/containerd", Ok(vec![one.clone()])),
            (&at(UNCONFIGURED), "containerd://1.7.0", "/etc/containerd", Ok(vec![one, other])),
            (
                &at("/var/lib/k3s/etc/certs.d"),
                "containerd://2.3.4",
                "/var/lib/k3s/etc",
                Ok(vec!["/var/lib/k3s/etc/certs.d".to_owned()]),
            ),
            (
                "",
                "containerd://2.1.0",
                "/etc/containerd",
                Err("containerd has no config_path: set it to /etc/containerd/certs.d in"),
            ),
            ("", "containerd://1.7.27", "/etc/containerd", Err("restart containerd")),
            (mirrors, "containerd://2.3.4", "/etc/containerd", Err("registry.mirrors")),
            (
                &at("/etc/cri/conf.d/hosts"),
                "containerd://2.3.4",
                "/etc/containerd",
                Err("looks for hosts in /etc/cri/conf.d/hosts"),
            ),
            (&at("/etc/containerd/../shadow.d"), "containerd://2.3.4", "/etc/containerd", Err("looks for hosts in")),
            (&at("/etc/containerd"), "containerd://2.3.4", "/etc/containerd", Err("nodeTrust.paths.containerd")),
            ("", "containerd://2.3.4", "/var/lib/k3s/etc", Err("looks for hosts in /etc/containerd/certs.d")),
        ] {
            let found = folders(config, runtime, home);
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(*found, expected, "{config} {runtime} {home}"),
                (Err(why), Err(words)) => assert!(why.contains(words), "{config} {runtime} {home}: {why}"),
                (found, expected) => panic!("{config} {runtime} {home}: {found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_later_file_wins_and_before_2_0_it_takes_the_place_of_the_whole_section() {
        let file = |text: &str| Configuration::read(text).unwrap();
        let section = "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\n";
        let main = || {
            file(&format!("imports = ['conf.d/*.toml']\n{section}registry.config_path = '/etc/containerd/certs.d'\n"))
        };
        assert_eq!(main().imports(), ["conf.d/*.toml"]);
        let without = || file(section);
        let with = || file(&format!("{section}registry.config_path = '/elsewhere'\n"));
        for (later, runtime, expected) in [
            (with(), "containerd://1.7.0", Some("/elsewhere")),
            (with(), "containerd://2.3.4", Some("/elsewhere")),
            (without(), "containerd://1.7.0", None),
            (without(), "containerd://2.3.4", Some(DOCUMENTED)),
            (file("version = 2\n"), "containerd://1.7.0", Some(DOCUMENTED)),
        ] {
            assert_eq!(main().then(later, version(runtime)).config_path(), expected, "{runtime}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_quoted() {
        let why = Configuration::read("version = 3\npassword = \"hunter2\n").unwrap_err();
        assert_eq!(why, "is not TOML (line 2)");
    }
}
