//! Who may come in. A password is hashed once; then its login is remembered for some minutes, as a keyed hash. Decides only: the clock's time and the key come
//! from outside, and hashing is done where it holds up nobody.
//!
//! What is remembered covers the user's line in the table: a login is forgotten with the line that it fitted.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::credentials::{BcryptHash, Htpasswd, UserName};
use crate::secret::Sensitive;

/// How long a login is remembered: once or twice this.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Logins that are remembered of such a time. A registry has at most 10,000 users.
const MOST: usize = 10_000;

/// A login, its user's line in the table, and nothing that can be read.
type Mark = [u8; 32];

/// What is known of a login without hashing.
#[derive(Debug)]
pub(super) enum Login {
    /// It was right a short while ago, and its user's line is the same.
    Remembered,
    /// It needs to be hashed.
    New(Check),
    /// There is none, or none of this kind.
    Missing,
}

/// A login that is to be hashed.
#[derive(Debug)]
pub(super) struct Check {
    password: Sensitive<Vec<u8>>,
    hash: BcryptHash,
    is_user: bool,
    mark: Mark,
}

impl Check {
    /// Hashes, which takes two milliseconds or much more. Takes as long for who is no user, so that nobody finds out names by it.
    pub(super) fn is_right(&self) -> bool {
        bcrypt::verify(self.password.expose(), self.hash.expose()).unwrap_or(false) && self.is_user
    }
}

/// The table, and the logins that fitted it lately.
pub(super) struct Logins {
    table: Htpasswd,
    key: hmac::Key,
    /// Those of the present time and of the one before: the older ones go all at once.
    remembered: [BTreeSet<Mark>; 2],
    since: Instant,
}

impl Logins {
    /// Nobody may come in. `key` makes marks worthless outside of this process.
    pub(super) fn new(key: hmac::Key, now: Instant) -> Self {
        Self { table: Htpasswd::default(), key, remembered: Default::default(), since: now }
    }

    /// From now on these are the users.
    pub(super) fn replace(&mut self, table: Htpasswd) {
        self.table = table;
    }

    /// What is known of the login in an `Authorization` header.
    pub(super) fn look_up(&mut self, authorization: &[u8], now: Instant) -> Login {
        if now.duration_since(self.since) >= REMEMBERED {
            self.turn(now);
        }
        let Some((name, password)) = basic(authorization) else { return Login::Missing };
        let line = UserName::new(&name).ok().and_then(|name| self.table.hash(&name));
        let (is_user, hash) = (line.is_some(), line.cloned().unwrap_or_else(|| self.nobody()));
        let mark = self.mark(&hash, password.expose());
        match is_user && self.remembered.iter().any(|marks| marks.contains(&mark)) {
            true => Login::Remembered,
            false => Login::New(Check { password, hash, is_user, mark }),
        }
    }

    /// This login was right.
    pub(super) fn remember(&mut self, check: &Check, now: Instant) {
        if self.remembered[0].len() >= MOST {
            self.turn(now);
        }
        self.remembered[0].insert(check.mark);
    }

    fn turn(&mut self, now: Instant) {
        self.remembered.swap(0, 1);
        self.remembered[0].clear();
        self.since = now;
    }

    /// A hash that no password fits, and as slow as those of users.
    fn nobody(&self) -> BcryptHash {
        let cost = self.table.names().filter_map(|name| self.table.hash(name)).map(BcryptHash::cost).max();
        BcryptHash::new(&format!("$2b${:02}${}", cost.unwrap_or(5), ".".repeat(53))).expect("a hash of this form")
    }

    fn mark(&self, hash: &BcryptHash, password: &[u8]) -> Mark {
        let mut context = hmac::Context::with_key(&self.key);
        // The hash has a fixed length and a salt of its own, so it stands for the user.
        context.update(hash.expose().as_bytes());
        context.update(password);
        context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Name and password of a `Basic` login (RFC 7617).
fn basic(authorization: &[u8]) -> Option<(String, Sensitive<Vec<u8>>)> {
    let (scheme, encoded) = authorization.split_at_checked(6)?;
    let decoded = scheme.eq_ignore_ascii_case(b"Basic ").then(|| STANDARD.decode(encoded))?.ok()?;
    let decoded = Sensitive::new(decoded);
    let colon = decoded.expose().iter().position(|byte| *byte == b':')?;
    let name = str::from_utf8(&decoded.expose()[..colon]).ok()?.to_owned();
    Some((name, decoded.expose()[colon + 1..].to_vec().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(users: &[(&str, &str)]) -> Htpasswd {
        let line = |(name, password): &(&str, &str)| {
            let hash = bcrypt::hash(password, 4).unwrap();
            (UserName::new(name).unwrap(), BcryptHash::new(&hash).unwrap())
        };
        users.iter().map(line).collect()
    }

    fn logins(users: &[(&str, &str)]) -> (Logins, Instant) {
        let now = Instant::now();
        let mut logins = Logins::new(hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]), now);
        logins.replace(table(users));
        (logins, now)
    }

    fn header(login: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(login)).into_bytes()
    }

    /// Comes with a login, and says how it went.
    fn comes(logins: &mut Logins, login: &str, now: Instant) -> &'static str {
        match logins.look_up(&header(login), now) {
            Login::Remembered => "remembered",
            Login::Missing => "missing",
            Login::New(check) if check.is_right() => {
                logins.remember(&check, now);
                "right"
            }
            Login::New(_) => "wrong",
        }
    }

    #[test]
    fn a_password_is_hashed_once_and_a_wrong_one_each_time() {
        let (mut logins, now) = logins(&[("ann", "of:Ann's"), ("ben", "of Ben's")]);
        for (login, how) in [
            ("ann:of:Ann's", "right"),
            ("ann:of:Ann's", "remembered"),
            ("ann:of Ben's", "wrong"),
            ("ben:of:Ann's", "wrong"),
            ("ben:of Ben's", "right"),
            ("ann:of:Ann's", "remembered"),
            ("ann:", "wrong"),
            ("ann:of:Ann's ", "wrong"),
            ("ann:of:Ann's ", "wrong"),
            ("zoe:of:Ann's", "wrong"),
            ("zoe:of:Ann's", "wrong"),
            (":of:Ann's", "wrong"),
            ("ann", "missing"),
        ] {
            assert_eq!(comes(&mut logins, login, now), how, "{login}");
        }
    }

    #[test]
    fn who_leaves_the_table_or_gets_another_password_is_out_at_once() {
        let (mut logins, now) = logins(&[("ann", "of Ann's"), ("ben", "of Ben's")]);
        for login in ["ann:of Ann's", "ben:of Ben's"] {
            assert_eq!(comes(&mut logins, login, now), "right");
        }
        logins.replace(table(&[("ann", "of Ann's second")]));
        for (login, how) in [("ann:of Ann's", "wrong"), ("ben:of Ben's", "wrong"), ("ann:of Ann's second", "right")] {
            assert_eq!(comes(&mut logins, login, now), how, "{login}");
        }
    }

    #[test]
    fn a_login_is_forgotten_in_time_and_as_many_as_may_be_are_remembered() {
        let (mut logins, now) = logins(&[("ann", "of Ann's")]);
        assert_eq!(comes(&mut logins, "ann:of Ann's", now), "right");
        let second = Duration::from_secs(1);
        for (later, how) in [
            (REMEMBERED - second, "remembered"),
            (REMEMBERED, "remembered"),
            (2 * REMEMBERED - second, "remembered"),
            (2 * REMEMBERED, "right"),
        ] {
            assert_eq!(comes(&mut logins, "ann:of Ann's", now + later), how, "{later:?}");
        }
        let Login::New(mut check) = logins.look_up(&header("zoe:any"), now) else { panic!("hashed") };
        for number in 0..3 * MOST as u64 {
            check.mark[..8].copy_from_slice(&number.to_le_bytes());
            logins.remember(&check, now + 2 * REMEMBERED);
        }
        let counts = logins.remembered.each_ref().map(BTreeSet::len);
        assert!(counts.iter().all(|count| *count <= MOST) && counts.iter().sum::<usize>() >= MOST, "{counts:?}");
    }

    #[test]
    fn what_is_no_basic_login_is_none() {
        let (mut logins, now) = logins(&[("ann", "of Ann's")]);
        let encoded = STANDARD.encode("ann:of Ann's");
        for (authorization, is_login) in [
            (format!("Basic {encoded}"), true),
            (format!("bAsIC {encoded}"), true),
            (format!("Bearer {encoded}"), false),
            (format!("Basic{encoded}"), false),
            (format!("Basic  {encoded}"), false),
            ("Basic é".to_owned(), false),
            ("Basic ".to_owned(), false),
            ("Basi".to_owned(), false),
            (String::new(), false),
        ] {
            let login = logins.look_up(authorization.as_bytes(), now);
            assert_eq!(!matches!(login, Login::Missing), is_login, "{authorization:?}: {login:?}");
        }
    }

    #[test]
    fn who_is_no_user_costs_as_much_as_the_dearest_of_them() {
        let (mut logins, now) = logins(&[("ann", "of Ann's")]);
        let dear = BcryptHash::new(&bcrypt::hash("of Ben's", 6).unwrap()).unwrap();
        logins.replace([(UserName::new("ann").unwrap(), dear)].into_iter().collect());
        let Login::New(check) = logins.look_up(&header("zoe:any"), now) else { panic!("hashed") };
        assert_eq!(check.hash.cost(), 6);
        assert!(!check.is_right());
    }

    #[test]
    fn nothing_of_a_login_is_printed() {
        let (mut logins, now) = logins(&[("ann", "planted-secret")]);
        let login = logins.look_up(&header("ann:planted-secret"), now);
        let said = format!("{login:?}");
        assert!(said.contains("is_user") && !said.contains("planted"), "{said}");
    }
}
