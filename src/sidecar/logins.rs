//! Who may come in. A password is hashed once; then its login is remembered for some minutes, as a keyed hash. Decides only: the clock's time and the key come
//! from outside, and hashing is done where it holds up nobody.
//!
//! What is remembered covers the user's line in the table: a login is forgotten with the line that it fitted.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::credentials::{BcryptHash, DEAREST, Htpasswd, UserName};
use crate::secret::Sensitive;

/// How long a login is remembered: once or twice this.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Logins that are remembered of such a time. A registry has at most 10,000 users.
const MOST: usize = 10_000;
/// What the registry's own stand-in for nobody's hash costs.
const CHEAPEST: u32 = 5;

/// A login, its user's line in the table, and nothing that can be read.
pub(super) type Mark = [u8; 32];

/// What is known of a login without hashing.
#[derive(Debug)]
pub(super) enum Login {
    /// It was right a short while ago, and its user's line is the same.
    Remembered,
    /// It needs to be hashed.
    New(Check),
    /// There is none, none of this kind, or one that is too dear to look at.
    Unclear,
}

/// A login that is to be hashed.
#[derive(Debug)]
pub(super) struct Check {
    password: Sensitive<Vec<u8>>,
    hash: BcryptHash,
    is_user: bool,
    mark: Mark,
    /// What a wrong login costs, whoever it is.
    dearest: u32,
}

impl Check {
    /// What stands for this password of this user.
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// Hashes, which takes two milliseconds or much more. A wrong login takes as long for who is no user, or one with a cheap hash, as for anybody else, so
    /// that nobody finds out names by it. `None`: the hash is one that only the registry understands.
    pub(super) fn is_right(&self) -> Option<bool> {
        let fits = |hash: &BcryptHash| bcrypt::verify(self.password.expose(), hash.expose());
        let is_right = fits(&self.hash).ok()? && self.is_user;
        if !is_right {
            for cost in self.lacking() {
                let _ = fits(&nobodys(cost));
            }
        }
        Some(is_right)
    }

    /// What is hashed besides, so that together with the first hash it is as much as the dearest.
    fn lacking(&self) -> Range<u32> {
        self.hash.cost()..self.dearest
    }
}

/// A hash that no password fits.
fn nobodys(cost: u32) -> BcryptHash {
    BcryptHash::new(&format!("$2b${cost:02}${}", ".".repeat(53))).expect("a hash of this form")
}

/// The table, and the logins that fitted it lately.
pub(super) struct Logins {
    table: Htpasswd,
    /// The dearest hash in it that is computed here.
    dearest: u32,
    key: hmac::Key,
    /// Those of the present time and of the one before: the older ones go all at once.
    remembered: [BTreeSet<Mark>; 2],
    since: Instant,
}

impl Logins {
    /// Nobody may come in. `key` makes marks worthless outside of this process.
    pub(super) fn new(key: hmac::Key, now: Instant) -> Self {
        Self { table: Htpasswd::default(), dearest: CHEAPEST, key, remembered: Default::default(), since: now }
    }

    /// From now on these are the users.
    pub(super) fn replace(&mut self, table: Htpasswd) {
        let costs = table.names().filter_map(|name| table.hash(name)).map(BcryptHash::cost);
        self.dearest = costs.filter(|cost| *cost <= DEAREST).max().unwrap_or(CHEAPEST);
        self.table = table;
    }

    /// What is known of the login in an `Authorization` header.
    pub(super) fn look_up(&mut self, authorization: &[u8], now: Instant) -> Login {
        let Some((name, password)) = basic(authorization) else { return Login::Unclear };
        self.look_up_user(&name, password, now)
    }

    /// The user's line in the table.
    pub(super) fn line(&self, name: &str) -> Option<&BcryptHash> {
        UserName::new(name).ok().and_then(|name| self.table.hash(&name))
    }

    /// What is known of a user with this password.
    pub(super) fn look_up_user(&mut self, name: &str, password: Sensitive<Vec<u8>>, now: Instant) -> Login {
        let age = now.duration_since(self.since);
        if age >= REMEMBERED {
            self.turn(now);
        }
        if age >= 2 * REMEMBERED {
            self.turn(now);
        }
        let line = self.line(name);
        let (is_user, hash) = (line.is_some(), line.cloned().unwrap_or_else(|| nobodys(self.dearest)));
        let mark = self.mark(&hash, password.expose());
        match is_user && self.remembered.iter().any(|marks| marks.contains(&mark)) {
            true => Login::Remembered,
            false if hash.cost() > DEAREST => Login::Unclear,
            false => Login::New(Check { password, hash, is_user, mark, dearest: self.dearest }),
        }
    }

    /// Whether this login has been found right meanwhile.
    pub(super) fn knows(&self, check: &Check) -> bool {
        self.remembered.iter().any(|marks| marks.contains(&check.mark))
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

    fn mark(&self, hash: &BcryptHash, password: &[u8]) -> Mark {
        let mut context = hmac::Context::with_key(&self.key);
        // The hash has a fixed length and a salt of its own, so it stands for the user.
        context.update(hash.expose().as_bytes());
        context.update(password);
        context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Name and password of a `Basic` login (RFC 7617).
pub(super) fn basic(authorization: &[u8]) -> Option<(String, Sensitive<Vec<u8>>)> {
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
            Login::Unclear => "unclear",
            Login::New(check) => match check.is_right() {
                Some(true) => {
                    logins.remember(&check, now);
                    "right"
                }
                Some(false) => "wrong",
                None => "unclear",
            },
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
            ("ann", "unclear"),
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
            // Nobody came meanwhile.
            (4 * REMEMBERED, "right"),
            (6 * REMEMBERED - second, "remembered"),
        ] {
            assert_eq!(comes(&mut logins, "ann:of Ann's", now + later), how, "{later:?}");
        }
        let Login::New(mut check) = logins.look_up(&header("zoe:any"), now) else { panic!("hashed") };
        for number in 0..3 * MOST as u64 {
            check.mark[..8].copy_from_slice(&number.to_le_bytes());
            logins.remember(&check, now + 6 * REMEMBERED);
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
            assert_eq!(!matches!(login, Login::Unclear), is_login, "{authorization:?}: {login:?}");
        }
    }

    #[test]
    fn a_wrong_login_costs_as_much_as_the_dearest_whoever_it_is() {
        let (mut logins, now) = logins(&[]);
        let line = |name: &str, hash: &str| (UserName::new(name).unwrap(), BcryptHash::new(hash).unwrap());
        let hashed = |cost| bcrypt::hash("of everybody's", cost).unwrap();
        // A hash that would take days.
        let days = hashed(4).replace("$04$", "$31$");
        logins
            .replace([line("cheap", &hashed(4)), line("dear", &hashed(6)), line("days", &days)].into_iter().collect());
        for (name, first) in [("cheap", 4), ("dear", 6), ("nobody", 6)] {
            let Login::New(check) = logins.look_up(&header(&format!("{name}:wrong")), now) else { panic!("{name}") };
            assert_eq!((check.hash.cost(), check.is_right()), (first, Some(false)), "{name}");
            let rounds = 1_u32 << first;
            assert_eq!(rounds + check.lacking().map(|cost| 1_u32 << cost).sum::<u32>(), 1 << 6, "{name}");
        }
        assert!(matches!(logins.look_up(&header("days:of everybody's"), now), Login::Unclear));
        assert_eq!(comes(&mut logins, "cheap:of everybody's", now), "right");
        logins.replace([line("days", &days)].into_iter().collect());
        assert_eq!(logins.dearest, CHEAPEST);
    }

    #[test]
    fn a_hash_that_only_the_registry_understands_is_its_affair() {
        let (mut logins, now) = logins(&[]);
        let hash = bcrypt::hash("of Ann's", 4).unwrap();
        // The last letter of a salt has bits that mean nothing, which not every reader takes.
        let strange = format!("{}z{}", &hash[..28], &hash[29..]);
        logins.replace([(UserName::new("ann").unwrap(), BcryptHash::new(&strange).unwrap())].into_iter().collect());
        assert_eq!(comes(&mut logins, "ann:of Ann's", now), "unclear");
    }

    #[test]
    fn nothing_of_a_login_is_printed() {
        let (mut logins, now) = logins(&[("ann", "planted-secret")]);
        let login = logins.look_up(&header("ann:planted-secret"), now);
        let said = format!("{login:?}");
        assert!(said.contains("is_user") && !said.contains("planted"), "{said}");
    }
}
