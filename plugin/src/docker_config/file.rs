//! The text of the file, and how it is read and written.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use private_registry_operator::secret::Sensitive;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::registry_client::Login;

/// Far more than a file of logins has.
const LONGEST: u64 = 4 << 20;
/// Where logins stand.
const AUTHS: &str = "auths";

/// The file, with its logins taken apart.
pub(super) struct Config {
    members: Members<Member>,
    ends_with_break: bool,
}

/// An object of JSON whose members keep their order.
struct Members<T>(Vec<(String, T)>);

enum Member {
    Auths(Members<Box<RawValue>>),
    Other(Box<RawValue>),
}

impl Config {
    /// Nothing at all is a file without logins.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let text = text.trim_start_matches('\u{feff}');
        let ends_with_break = text.is_empty() || text.ends_with('\n');
        if text.trim().is_empty() {
            return Ok(Self { members: Members(Vec::new()), ends_with_break });
        }
        let Members(members) = object(text)?;
        let read = |(name, value): (String, Box<RawValue>)| match name.as_str() {
            AUTHS if value.get() == "null" => Ok((name, Member::Auths(Members(Vec::new())))),
            AUTHS => Ok((name, Member::Auths(object(value.get()).context(AUTHS)?))),
            _ => Ok((name, Member::Other(value))),
        };
        Ok(Self { members: Members(members.into_iter().map(read).collect::<Result<_>>()?), ends_with_break })
    }

    /// The program that keeps the logins of this address, if the file names one.
    pub(super) fn helper(&self, address: &str) -> Result<Option<String>> {
        let other = |wanted: &str| {
            self.members.0.iter().find_map(|(name, member)| match member {
                Member::Other(value) if name == wanted => Some(value.get()),
                _ => None,
            })
        };
        let of_address = match other("credHelpers").filter(|text| *text != "null") {
            Some(text) => object(text).context("credHelpers")?.0.into_iter().find(|(name, _)| name == address),
            None => None,
        };
        let named =
            of_address.map(|(_, value)| value.get().to_owned()).or_else(|| other("credsStore").map(str::to_owned));
        let Some(named) = named.filter(|text| text != "null") else { return Ok(None) };
        let Ok(name) = serde_json::from_str::<String>(&named) else {
            bail!("the name of a credential helper is no text")
        };
        // It becomes the end of a program's name, and must not lead to another folder.
        if name.contains('/') {
            bail!("the credential helper {name:?} has a name with a slash");
        }
        Ok(Some(name).filter(|name| !name.is_empty()))
    }

    /// Keeps a login here, in the place of another one.
    pub(super) fn put(&mut self, address: &str, login: &Login) {
        // Base64 has nothing that JSON would write otherwise.
        self.set(address, &format!("{{\n\t\t\t\"auth\": \"{}\"\n\t\t}}", login.encoded().expose()));
    }

    /// Notes that there is a login, which is kept elsewhere.
    pub(super) fn note(&mut self, address: &str) {
        self.set(address, "{}");
    }

    /// Whether there was one.
    pub(super) fn remove(&mut self, address: &str) -> bool {
        let mut was_there = false;
        for (_, member) in &mut self.members.0 {
            if let Member::Auths(Members(logins)) = member {
                let before = logins.len();
                logins.retain(|(name, _)| name != address);
                was_there |= logins.len() < before;
            }
        }
        was_there
    }

    fn set(&mut self, address: &str, text: &str) {
        let Ok(value) = RawValue::from_string(text.to_owned()) else { return };
        let find = |(_, member): &(String, Member)| matches!(member, Member::Auths(_));
        if !self.members.0.iter().any(find) {
            self.members.0.insert(0, (AUTHS.to_owned(), Member::Auths(Members(Vec::new()))));
        }
        // Of two members of one name, readers take the last.
        for (_, member) in self.members.0.iter_mut().rev() {
            let Member::Auths(Members(logins)) = member else { continue };
            match logins.iter_mut().rev().find(|(name, _)| name == address) {
                Some((_, login)) => *login = value,
                None => logins.push((address.to_owned(), value)),
            }
            return;
        }
    }

    /// Written as docker writes it, with tabs.
    pub(super) fn text(&self) -> Sensitive<String> {
        let mut text = Vec::new();
        let indented = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut writer = serde_json::Serializer::with_formatter(&mut text, indented);
        // Text keys and values that were read: this can't fail.
        let _ = self.members.serialize(&mut writer);
        if self.ends_with_break {
            text.push(b'\n');
        }
        String::from_utf8(text).unwrap_or_default().into()
    }
}

fn object(text: &str) -> Result<Members<Box<RawValue>>> {
    // What is wrong must not be quoted: passwords stand beside it.
    serde_json::from_str(text).map_err(|error| {
        anyhow!("it is not the JSON that docker writes (line {}, column {})", error.line(), error.column())
    })
}

impl<'de> Deserialize<'de> for Members<Box<RawValue>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<Box<RawValue>>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl<T: Serialize> Serialize for Members<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Serialize for Member {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auths(logins) => logins.serialize(serializer),
            Self::Other(value) => value.serialize(serializer),
        }
    }
}

/// The text of the file; empty if it is not there yet.
pub(super) fn read(path: &Path) -> Result<Sensitive<String>> {
    let failed = || format!("read {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new().into()),
        Err(error) => return Err(error).with_context(failed),
    };
    let about = file.metadata().with_context(failed)?;
    if !about.is_file() || about.len() > LONGEST {
        bail!("{} is no file of logins", path.display());
    }
    let mut text = String::new();
    let read = file.take(LONGEST).read_to_string(&mut text);
    let text = Sensitive::new(text);
    read.with_context(failed)?;
    Ok(text)
}

/// Writes it whole, for its owner alone. A link stays one, and what it leads to is written.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    put(path, text).with_context(|| format!("write {}", path.display()))
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    let place = if path.is_symlink() { path.canonicalize()? } else { path.to_owned() };
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // It is made with mode 0600.
    let mut whole = tempfile::Builder::new().prefix(".private-registry-").tempfile_in(folder)?;
    whole.write_all(text.as_bytes())?;
    // Under sudo the file is still whose it was.
    if let Ok(before) = fs::metadata(&place)
        && before.uid() != whole.as_file().metadata()?.uid()
    {
        std::os::unix::fs::fchown(whole.as_file(), Some(before.uid()), Some(before.gid()))?;
    }
    whole.as_file().sync_all()?;
    whole.persist(&place)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use private_registry_operator::credentials::UserName;
    use serde_json::{Value, json};

    use super::*;

    const ADDRESS: &str = "registry.example.com:5000";

    fn login() -> Login {
        Login { user: UserName::new("ann").unwrap(), password: "planted \"ä\\".to_owned().into() }
    }

    fn with_login(text: &str) -> String {
        let mut config = Config::parse(text).unwrap();
        config.put(ADDRESS, &login());
        config.text().expose().clone()
    }

    #[test]
    fn a_login_is_added_and_everything_else_stays_letter_by_letter() {
        let auth = login().encoded().expose().clone();
        let entry = format!("\"{ADDRESS}\": {{\n\t\t\t\"auth\": \"{auth}\"\n\t\t}}");
        for (before, after) in [
            ("", format!("{{\n\t\"auths\": {{\n\t\t{entry}\n\t}}\n}}\n")),
            ("{}", format!("{{\n\t\"auths\": {{\n\t\t{entry}\n\t}}\n}}")),
            ("{\"auths\": null}\n", format!("{{\n\t\"auths\": {{\n\t\t{entry}\n\t}}\n}}\n")),
            (
                "{\n\t\"zeta\": 1.50,\n\t\"auths\": {\n\t\t\"b\": {\"auth\": \"x\"},\n\t\t\"a\": {}\n\t},\n\t\"HttpHeaders\": {\"b\":1,  \"a\":[ ]},\n\t\"big\": 12345678901234567890123\n}",
                format!(
                    "{{\n\t\"zeta\": 1.50,\n\t\"auths\": {{\n\t\t\"b\": {{\"auth\": \"x\"}},\n\t\t\"a\": {{}},\n\t\t{entry}\n\t}},\n\t\"HttpHeaders\": {{\"b\":1,  \"a\":[ ]}},\n\t\"big\": 12345678901234567890123\n}}"
                ),
            ),
            (
                "{\"auths\": {\"registry.example.com:5000\": {\"auth\": \"old\", \"email\": \"a@b\"}, \"registry.example.com\": {}}}",
                format!("{{\n\t\"auths\": {{\n\t\t{entry},\n\t\t\"registry.example.com\": {{}}\n\t}}\n}}"),
            ),
        ] {
            assert_eq!(with_login(before), after, "{before}");
            assert_eq!(with_login(&after), after, "a second time changes nothing");
            let read: Value = serde_json::from_str(&after).unwrap();
            assert_eq!(read["auths"][ADDRESS], json!({"auth": auth}));
        }
    }

    #[test]
    fn a_login_is_taken_out_alone() {
        let before = "{\n\t\"auths\": {\n\t\t\"a\": {}\n\t},\n\t\"credsStore\": \"\"\n}\n";
        let mut config = Config::parse(&with_login(before)).unwrap();
        assert!(config.remove(ADDRESS));
        assert_eq!(config.text().expose(), before);
        assert!(!config.remove(ADDRESS) && !config.remove("registry.example.com"));
    }

    #[test]
    fn what_is_no_file_of_logins_is_refused_without_being_quoted() {
        for text in [
            "planted",
            "[]",
            "{\"auths\": \"planted\"}",
            "{\"auths\": []}",
            "{\"a\": planted}",
            "{} {\"planted\": 1}",
            "{\"auths\":",
        ] {
            let error = format!("{:#}", Config::parse(text).err().unwrap_or_else(|| panic!("{text} was taken")));
            assert!(error.contains("not the JSON that docker writes") && !error.contains("planted"), "{text}: {error}");
        }
    }

    #[test]
    fn the_helper_of_an_address_comes_before_that_of_all() {
        for (text, helper) in [
            ("{}", Ok(None)),
            ("{\"credsStore\": \"desktop\"}", Ok(Some("desktop"))),
            ("{\"credsStore\": \"\"}", Ok(None)),
            ("{\"credsStore\": null, \"credHelpers\": null}", Ok(None)),
            (
                "{\"credsStore\": \"desktop\", \"credHelpers\": {\"registry.example.com:5000\": \"pass\"}}",
                Ok(Some("pass")),
            ),
            (
                "{\"credsStore\": \"desktop\", \"credHelpers\": {\"registry.example.com\": \"pass\"}}",
                Ok(Some("desktop")),
            ),
            ("{\"credsStore\": \"desktop\", \"credHelpers\": {\"registry.example.com:5000\": \"\"}}", Ok(None)),
            ("{\"credsStore\": 7}", Err("is no text")),
            ("{\"credsStore\": \"../../tmp/x\"}", Err("a name with a slash")),
            ("{\"credHelpers\": []}", Err("not the JSON")),
        ] {
            let found = Config::parse(text).unwrap().helper(ADDRESS).map_err(|error| format!("{error:#}"));
            match helper {
                Ok(helper) => assert_eq!(found.unwrap().as_deref(), helper, "{text}"),
                Err(words) => assert!(found.as_ref().is_err_and(|error| error.contains(words)), "{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn the_file_is_for_its_owner_alone_and_a_link_stays_one() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("new/folder/config.json");
        write(&path, "{}").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let link = home.path().join("config.json");
        symlink(&path, &link).unwrap();
        write(&link, "{\"a\": 1}").unwrap();
        assert!(link.is_symlink());
        assert_eq!((read(&path).unwrap().expose().as_str(), mode(&path)), ("{\"a\": 1}", 0o600));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing half-written is left");

        assert_eq!(read(&home.path().join("none")).unwrap().expose(), "");
        assert!(read(home.path()).unwrap_err().to_string().contains("is no file of logins"));
        symlink(home.path().join("nowhere"), home.path().join("dangling")).unwrap();
        assert!(write(&home.path().join("dangling"), "{}").is_err());
    }
}
