//! Who may come in. A password is hashed once; then its login is remembered for some minutes, as a keyed hash. Decides only: the clock's time and the key come
//! from outside, and hashing is done where it holds up nobody.
//!
//! What is remembered covers the user's line in the table: a login is forgotten with the line that it fitted. A user whose password is being rotated has two
//! lines, the second one under another name, and is the same user with either.

use std::collections::{BTreeMap, BTreeSet};
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
    /// It was right a short while ago, and this line of its user is the same.
    Remembered(BcryptHash),
    /// It needs to be hashed.
    New(Check),
    /// There is none, none of this kind, or one that is too dear to look at.
    Unclear,
}

/// A login that is to be hashed.
#[derive(Debug)]
pub(super) struct Check {
    password: Sensitive<Vec<u8>>,
    /// The user's, or one that no password fits; and what stands for the password at each.
    lines: Vec<(BcryptHash, Mark)>,
    is_user: bool,
    mark: Mark,
    /// What a wrong login costs, whoever it is, in rounds.
    dearest: u32,
}

impl Check {
    /// What stands for this password of this user.
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// Hashes, which takes two milliseconds or much more, and gives the line that the password fits. A wrong login takes as long for who is no user, or one
    /// with a cheap hash, as for anybody else, so that nobody finds out names by it. `None`: the hash is one that only the registry understands.
    pub(super) fn fitting(&self) -> Option<Option<&BcryptHash>> {
        let fits = |hash: &BcryptHash| bcrypt::verify(self.password.expose(), hash.expose());
        for (hash, _) in &self.lines {
            if fits(hash).ok()? && self.is_user {
                return Some(Some(hash));
            }
        }
        for cost in self.lacking() {
            let _ = fits(&nobodys(cost));
        }
        Some(None)
    }

    /// What is hashed besides, so that together with the lines it is as much as the dearest.
    fn lacking(&self) -> impl Iterator<Item = u32> {
        let lacking = self.dearest.saturating_sub(rounds(self.lines.iter().map(|(hash, _)| hash)));
        (0..u32::BITS).filter(move |cost| lacking & (1 << cost) != 0)
    }
}

/// What it takes to hash a password for all of these.
fn rounds<'a>(lines: impl IntoIterator<Item = &'a BcryptHash>) -> u32 {
    lines.into_iter().map(|hash| 1_u32.checked_shl(hash.cost()).unwrap_or(u32::MAX)).fold(0, u32::saturating_add)
}

/// A hash that no password fits.
fn nobodys(cost: u32) -> BcryptHash {
    BcryptHash::new(&format!("$2b${cost:02}${}", ".".repeat(53))).expect("a hash of this form")
}

/// The table, and the logins that fitted it lately.
pub(super) struct Logins {
    table: Htpasswd,
    /// Names of lines that are a second password of a user, and that user.
    second_lines: BTreeMap<String, String>,
    /// The same by user.
    seconds: BTreeMap<String, Vec<String>>,
    /// What it takes at most to find out that a password is wrong, in rounds.
    dearest: u32,
    key: hmac::Key,
    /// Those of the present time and of the one before: the older ones go all at once.
    remembered: [BTreeSet<Mark>; 2],
    since: Instant,
}

impl Logins {
    /// Nobody may come in. `key` makes marks worthless outside of this process.
    pub(super) fn new(key: hmac::Key, now: Instant) -> Self {
        Self {
            table: Htpasswd::default(),
            second_lines: BTreeMap::new(),
            seconds: BTreeMap::new(),
            dearest: 1 << CHEAPEST,
            key,
            remembered: Default::default(),
            since: now,
        }
    }

    /// From now on these are the users.
    pub(super) fn replace(&mut self, table: Htpasswd, second_lines: BTreeMap<String, String>) {
        (self.table, self.second_lines, self.seconds) = (table, second_lines, BTreeMap::new());
        for (line, user) in &self.second_lines {
            self.seconds.entry(user.clone()).or_default().push(line.clone());
        }
        let users: BTreeSet<_> = self.table.names().map(|name| self.user_of(name.as_str())).collect();
        let all = users.into_iter().map(|user| self.lines(user).collect::<Vec<_>>());
        let looked_at = all.filter(|lines| lines.iter().all(|hash| hash.cost() <= DEAREST));
        self.dearest = looked_at.map(rounds).max().unwrap_or(1 << CHEAPEST);
    }

    /// Who comes by this name.
    pub(super) fn user_of<'a>(&'a self, name: &'a str) -> &'a str {
        self.second_lines.get(name).map_or(name, String::as_str)
    }

    /// What is known of the login in an `Authorization` header.
    pub(super) fn look_up(&mut self, authorization: &[u8], now: Instant) -> Login {
        let Some((name, password)) = basic(authorization) else { return Login::Unclear };
        self.look_up_user(&name, password, now)
    }

    /// The user's lines in the table.
    pub(super) fn lines<'a>(&'a self, user: &'a str) -> impl Iterator<Item = &'a BcryptHash> {
        // One that is somebody's second password is no user's.
        let first = (!self.second_lines.contains_key(user)).then_some(user);
        let names = first.into_iter().chain(self.seconds.get(user).into_iter().flatten().map(String::as_str));
        names.filter_map(|name| UserName::new(name).ok()).filter_map(|name| self.table.hash(&name))
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
        let lines: Vec<_> = self.lines(self.user_of(name)).cloned().collect();
        let is_user = !lines.is_empty();
        let lines = if is_user { lines } else { vec![nobodys(self.dearest.ilog2().min(DEAREST))] };
        let mark = self.mark(&lines, password.expose());
        let lines: Vec<_> =
            lines.into_iter().map(|line| (line.clone(), self.mark(&[line], password.expose()))).collect();
        let known = lines.iter().find(|(_, mark)| self.remembered.iter().any(|marks| marks.contains(mark)));
        match known {
            Some((line, _)) if is_user => Login::Remembered(line.clone()),
            _ if lines.iter().any(|(line, _)| line.cost() > DEAREST) => Login::Unclear,
            _ => Login::New(Check { password, lines, is_user, mark, dearest: self.dearest }),
        }
    }

    /// The line that this login was found to fit meanwhile.
    pub(super) fn known_line(&self, check: &Check) -> Option<BcryptHash> {
        let is_known = |mark: &Mark| self.remembered.iter().any(|marks| marks.contains(mark));
        check.lines.iter().find(|(_, mark)| is_known(mark)).map(|(line, _)| line.clone())
    }

    /// This login was right, and fitted this line.
    pub(super) fn remember(&mut self, check: &Check, line: &BcryptHash, now: Instant) {
        let Some((_, mark)) = check.lines.iter().find(|(hash, _)| hash == line) else { return };
        if self.remembered[0].len() >= MOST {
            self.turn(now);
        }
        self.remembered[0].insert(*mark);
    }

    fn turn(&mut self, now: Instant) {
        self.remembered.swap(0, 1);
        self.remembered[0].clear();
        self.since = now;
    }

    fn mark(&self, lines: &[BcryptHash], password: &[u8]) -> Mark {
        let mut context = hmac::Context::with_key(&self.key);
        // A hash has a fixed length and a salt of its own, so it stands for the user. A password never begins like one.
        lines.iter().for_each(|hash| context.update(hash.expose().as_bytes()));
        context.update(b"\0");
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
        logins.replace(table(users), BTreeMap::new());
        (logins, now)
    }

    fn header(login: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(login)).into_bytes()
    }

    /// Comes with a login, and says how it went.
    fn comes(logins: &mut Logins, login: &str, now: Instant) -> &'static str {
        match logins.look_up(&header(login), now) {
            Login::Remembered(_) => "remembered",
            Login::Unclear => "unclear",
            Login::New(check) => match check.fitting() {
                Some(Some(line)) => {
                    logins.remember(&check, line, now);
                    "right"
                }
                Some(None) => "wrong",
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
        logins.replace(table(&[("ann", "of Ann's second")]), BTreeMap::new());
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
            check.lines[0].1[..8].copy_from_slice(&number.to_le_bytes());
            logins.remember(&check, &check.lines[0].0, now + 6 * REMEMBERED);
        }
        let counts = logins.remembered.each_ref().map(BTreeSet::len);
        assert!(counts.iter().all(|count| *count <= MOST) && counts.iter().sum::<usize>() >= MOST, "{counts:?}");
    }

    #[test]
    fn both_passwords_of_a_user_count_by_either_name_and_the_former_one_is_forgotten_with_its_line() {
        let (mut logins, now) = logins(&[]);
        let second = || BTreeMap::from([("ann.2".to_owned(), "ann".to_owned())]);
        let [first, both] = [table(&[("ann", "the first")]), table(&[("ann", "the first"), ("ann.2", "the second")])];
        logins.replace(both, second());
        assert_eq!([logins.user_of("ann.2"), logins.user_of("ann"), logins.user_of("ben")], ["ann", "ann", "ben"]);
        for (login, how) in [
            ("ann:the first", "right"),
            ("ann:the second", "right"),
            ("ann:the second", "remembered"),
            ("ann.2:the second", "remembered"),
            ("ann.2:the first", "remembered"),
            ("ann.2:another", "wrong"),
        ] {
            assert_eq!(comes(&mut logins, login, now), how, "{login}");
        }
        // The second line is nobody's any more.
        logins.replace(first, second());
        for (login, how) in [("ann:the second", "wrong"), ("ann.2:the second", "wrong"), ("ann:the first", "right")] {
            assert_eq!(comes(&mut logins, login, now), how, "{login}");
        }
        assert_eq!(logins.lines("ann").count(), 1);
        assert_eq!(logins.lines("ann.2").count(), 0);
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
        let second = line("cheap.2", &hashed(5));
        let table = [line("cheap", &hashed(4)), line("dear", &hashed(6)), line("days", &days), second];
        let (one_each, two_of_cheap) = (BTreeMap::new(), [("cheap.2".to_owned(), "cheap".to_owned())].into());
        for (second_lines, costs) in [
            (one_each, [("cheap", vec![4]), ("dear", vec![6]), ("nobody", vec![6])]),
            (two_of_cheap, [("cheap", vec![4, 5]), ("dear", vec![6]), ("nobody", vec![6])]),
        ] {
            logins.replace(table.iter().cloned().collect(), second_lines);
            for (name, first) in costs {
                let login = logins.look_up(&header(&format!("{name}:wrong")), now);
                let Login::New(check) = login else { panic!("{name}") };
                assert_eq!(check.lines.iter().map(|(line, _)| line.cost()).collect::<Vec<_>>(), first, "{name}");
                assert!(matches!(check.fitting(), Some(None)), "{name}");
                let all = first.into_iter().chain(check.lacking());
                assert_eq!(all.map(|cost| 1_u32 << cost).sum::<u32>(), 1 << 6, "{name}");
            }
        }
        assert!(matches!(logins.look_up(&header("days:of everybody's"), now), Login::Unclear));
        assert_eq!(comes(&mut logins, "cheap:of everybody's", now), "right");
        logins.replace([line("days", &days)].into_iter().collect(), BTreeMap::new());
        assert_eq!(logins.dearest, 1 << CHEAPEST);
    }

    #[test]
    fn two_of_the_dearest_passwords_of_one_user_make_no_other_name_unclear() {
        let (mut logins, now) = logins(&[]);
        let hash = bcrypt::hash("of everybody's", 4).unwrap().replace("$04$", &format!("${DEAREST}$"));
        let line = |name: &str| (UserName::new(name).unwrap(), BcryptHash::new(&hash).unwrap());
        let second_lines = [("robot.2".to_owned(), "robot".to_owned())].into();
        logins.replace([line("robot"), line("robot.2")].into_iter().collect(), second_lines);
        for name in ["robot", "robot.2", "nobody"] {
            assert!(matches!(logins.look_up(&header(&format!("{name}:wrong")), now), Login::New(_)), "{name}");
        }
    }

    #[test]
    fn a_hash_that_only_the_registry_understands_is_its_affair() {
        let (mut logins, now) = logins(&[]);
        let hash = bcrypt::hash("of Ann's", 4).unwrap();
        // The last letter of a salt has bits that mean nothing, which not every reader takes.
        let strange = format!("{}z{}", &hash[..28], &hash[29..]);
        let table = [(UserName::new("ann").unwrap(), BcryptHash::new(&strange).unwrap())].into_iter().collect();
        logins.replace(table, BTreeMap::new());
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
