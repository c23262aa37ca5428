//! Computes the hashes that a plan asks for. Slow on purpose (2 ms at cost 5, doubling with each step): run it on a thread
//! for blocking work. The salts are random; everything else is decided before.

use std::time::Instant;

use bcrypt::Version;
use jiff::Timestamp;

use super::plan::{self, Entry, Plan, Table, UserFact, Work};
use super::{BcryptHash, Password};

/// Carries the plan out, but computes nothing after `deadline`. Costs nothing for hashes that stay. Returns how many users are left out of the table
/// because their password is not hashed yet; planning again with the table goes on where this ended.
///
/// Whoever is in the table already and whose source changed stays with the stored hash until it is verified; first come those, then new users. A user's
/// `changed_at` is `now` if the hash is new, otherwise what it was. Somebody whose hash cannot be made is left out and told; the others are not kept waiting.
#[must_use]
pub fn advance(plan: Plan, now: Timestamp, deadline: Instant) -> (Table, usize) {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let Plan { entries, mut problems, cost, .. } = plan;

    let mut users = Vec::with_capacity(entries.len());
    let mut left = 0;
    let (new, known): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(_, entry)| matches!(entry.work, Work::Hash(_)));
    for (name, Entry { mut source, changed_at, work, .. }) in known.into_iter().chain(new) {
        let is_late = Instant::now() >= deadline;
        let (hash, is_new) = match work {
            Work::Keep(hash) => (hash, false),
            Work::Take(hash) => (hash, true),
            Work::VerifyOrHash(stored, ..) if is_late => {
                // Remembered as not verified.
                source.version.clear();
                left += 1;
                (stored, false)
            }
            Work::Hash(_) if is_late => {
                left += 1;
                continue;
            }
            Work::VerifyOrHash(stored, _, password) if verifies(&password, &stored) => (stored, false),
            Work::VerifyOrHash(_, Some(moved), password) if verifies(&password, &moved) => (moved, false),
            Work::VerifyOrHash(_, _, password) | Work::Hash(password) => match hash(&password, cost) {
                Ok(hash) => (hash, true),
                Err(why) => {
                    problems.push(plan::unhashed(&name, source, &why));
                    continue;
                }
            },
        };
        let changed_at = changed_at.filter(|_| !is_new).unwrap_or(now);
        users.push((UserFact { name, source, changed_at }, hash));
    }
    users.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    (plan::table(users, problems), left)
}

// Not bcrypt's functions that refuse to truncate: they refuse 72 bytes too, counting the closing NUL. `Password` has seen to
// the length.

fn verifies(password: &Password, stored: &BcryptHash) -> bool {
    // An error means that the stored text is no hash after all (stray bits in its last character): then it must go.
    stored.is_of(password)
}

/// Or what bcrypt said; never the password.
fn hash(password: &Password, cost: u32) -> Result<BcryptHash, String> {
    let made = bcrypt::hash_with_result(password.expose(), cost).map_err(|error| error.to_string())?;
    let made = BcryptHash::new(&made.format_for_version(Version::TwoB));
    made.ok_or_else(|| "bcrypt gave an unknown form".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::plan::{Stored, plan};
    use crate::credentials::{Htpasswd, Login, Source, SourceKind, UserName, Wanted};

    const COST: u32 = 5;

    /// Everything at once.
    fn complete(plan: Plan, now: Timestamp) -> Table {
        let (table, left) = advance(plan, now, Instant::now() + std::time::Duration::from_secs(60));
        assert_eq!(left, 0);
        table
    }

    #[test]
    fn what_is_not_hashed_yet_keeps_no_removed_user_in_and_follows_later() {
        let table = first(vec![user("ann", "ann-password"), user("ben", "ben-password")]);
        let wanted = vec![touched("ben", "ben-password"), user("eve", "eve-password")];

        let (hurried, left) = advance(again(wanted.clone(), COST, &table), at(1), Instant::now());
        assert_eq!(hurried.users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["ben"], "ann is out");
        assert_eq!(left, 2, "ben is not verified, eve not hashed");

        let finished = complete(again(wanted.clone(), COST, &hurried), at(2));
        assert!(lets_in(&finished, "ben", "ben-password") && lets_in(&finished, "eve", "eve-password"));
        assert!(again(wanted, COST, &finished).is_settled());
    }

    fn at(minute: i8) -> Timestamp {
        format!("2026-11-21T12:{minute:02}:00Z").parse().unwrap()
    }

    fn user(name: &str, password: &str) -> Wanted {
        Wanted {
            name: name.into(),
            source: Source {
                kind: SourceKind::Users,
                secret: format!("{name}-login"),
                key: "password".into(),
                uid: format!("uid-of-{name}-login"),
                version: "1".into(),
            },
            login: Login::Password(password.as_bytes().to_vec().into()),
        }
    }

    /// A user who brings the hash of a password.
    fn bringing(name: &str, hash: &BcryptHash) -> Wanted {
        Wanted { login: Login::Hash(hash.clone()), ..user(name, "") }
    }

    fn touched(name: &str, password: &str) -> Wanted {
        let mut user = user(name, password);
        user.source.version = "2".into();
        user
    }

    fn first(wanted: Vec<Wanted>) -> Table {
        complete(plan(wanted, COST, Stored::default()), at(0))
    }

    fn again(wanted: Vec<Wanted>, cost: u32, table: &Table) -> Plan {
        plan(wanted, cost, Stored { file: Some(table.file.expose()), memory: Some(&table.memory) })
    }

    fn hash_of(table: &Table, name: &str) -> BcryptHash {
        Htpasswd::parse(table.file.expose()).unwrap().hash(&UserName::new(name).unwrap()).unwrap().clone()
    }

    fn lets_in(table: &Table, name: &str, password: &str) -> bool {
        let hash = Htpasswd::parse(table.file.expose()).unwrap().hash(&UserName::new(name).unwrap()).cloned();
        hash.is_some_and(|hash| bcrypt::verify(password, hash.expose()).unwrap())
    }

    #[test]
    fn a_new_user_is_let_in_with_exactly_the_password() {
        let longest = "x".repeat(72);
        let table = first(vec![user("ann", "ann-password"), user("ben", &longest)]);

        assert!(lets_in(&table, "ann", "ann-password"));
        assert!(!lets_in(&table, "ann", "ann-passwore"));
        assert!(lets_in(&table, "ben", &longest));
        assert!(!lets_in(&table, "ben", &longest[1..]));
        assert!(table.file.expose().starts_with("ann:$2b$05$"));
        assert_eq!(table.users.iter().map(|user| user.changed_at).collect::<Vec<_>>(), [at(0), at(0)]);
    }

    #[test]
    fn nothing_is_computed_while_nothing_changes() {
        let wanted = vec![user("ann", "ann-password"), user("ben", "ben-password")];
        let table = first(wanted.clone());

        let plan = again(wanted, COST, &table);
        assert!(plan.is_settled());
        assert_eq!(complete(plan, at(9)), table);
    }

    #[test]
    fn a_touched_secret_with_the_same_password_keeps_its_hash() {
        let table = first(vec![user("ann", "ann-password")]);
        let touched = touched("ann", "ann-password");

        let plan = again(vec![touched.clone()], COST, &table);
        assert!(!plan.is_settled());
        let next = complete(plan, at(9));

        assert_eq!(next.file, table.file);
        assert_eq!(next.users[0].changed_at, at(0));
        assert!(again(vec![touched], COST, &next).is_settled(), "the new version is remembered");
    }

    #[test]
    fn a_changed_password_gives_a_new_hash_and_leaves_the_others() {
        let table = first(vec![user("ann", "ann-password"), user("ben", "ben-password")]);

        let next =
            complete(again(vec![touched("ann", "new-password"), user("ben", "ben-password")], COST, &table), at(9));

        assert!(lets_in(&next, "ann", "new-password") && !lets_in(&next, "ann", "ann-password"));
        assert_eq!(hash_of(&next, "ben"), hash_of(&table, "ben"));
        assert_eq!(next.users.iter().map(|user| user.changed_at).collect::<Vec<_>>(), [at(9), at(0)]);
    }

    #[test]
    fn two_passwords_of_a_user_change_places_with_their_hashes() {
        let one_of_two = |name: &str, other: &str, password: &str| Wanted {
            login: Login::OneOfTwo { password: password.as_bytes().to_vec().into(), other: other.into() },
            source: Source { version: password.into(), ..user("robot", "").source },
            ..user(name, "")
        };
        let both = |first: &str, second: &str| {
            vec![one_of_two("robot", "robot.2", first), one_of_two("robot.2", "robot", second)]
        };
        let table = first(both("first-password", "second-password"));
        let [one, two] = ["robot", "robot.2"].map(|name| hash_of(&table, name));
        let wanted = both("second-password", "first-password");
        let swapped = complete(again(wanted.clone(), COST, &table), at(9));
        assert!(hash_of(&swapped, "robot") == two && hash_of(&swapped, "robot.2") == one);
        assert!(again(wanted.clone(), COST, &swapped).is_settled());
        let (hurried, left) = advance(again(wanted.clone(), COST, &table), at(9), Instant::now());
        assert_eq!((left, &hurried.file.expose()), (0, &swapped.file.expose()), "never one without the other");
        let stored = |table: &Table, user: &Wanted| {
            let stored = Stored { file: Some(table.file.expose()), memory: Some(&table.memory) };
            crate::credentials::plan::stored_since(user, COST, stored)
        };
        assert_eq!(stored(&swapped, &wanted[1]), Some(at(0)));
        assert_eq!(stored(&table, &wanted[1]), None, "another password has the line");

        let third = complete(again(both("third-password", "second-password"), COST, &swapped), at(10));
        assert!(lets_in(&third, "robot", "third-password") && hash_of(&third, "robot.2") == two);
        assert_eq!(third.users[0].changed_at, at(10));
    }

    #[test]
    fn another_key_of_the_same_secret_is_another_password() {
        let table = first(vec![user("ann", "ann-password")]);
        let mut moved = user("ann", "new-password");
        moved.source.key = "other".into();

        let next = complete(again(vec![moved], COST, &table), at(9));
        assert!(lets_in(&next, "ann", "new-password") && !lets_in(&next, "ann", "ann-password"));
    }

    #[test]
    fn a_secret_made_again_under_the_same_name_is_looked_at() {
        let table = first(vec![user("ann", "ann-password")]);
        let mut remade = user("ann", "new-password");
        remade.source.uid = "another".into();

        let next = complete(again(vec![remade], COST, &table), at(9));
        assert!(lets_in(&next, "ann", "new-password") && !lets_in(&next, "ann", "ann-password"));
    }

    #[test]
    fn another_cost_gives_a_new_hash() {
        let table = first(vec![user("ann", "ann-password")]);

        let next = complete(again(vec![user("ann", "ann-password")], 6, &table), at(9));
        assert_eq!(hash_of(&next, "ann").cost(), 6);
        assert!(lets_in(&next, "ann", "ann-password"));
        assert_eq!(next.users[0].changed_at, at(9));
    }

    #[test]
    fn a_line_that_somebody_else_wrote_does_not_stay() {
        let table = first(vec![user("ann", "ann-password")]);
        let intruder = first(vec![user("ann", "intruder-password"), user("eve", "intruder-password")]);
        let tampered = Table { file: intruder.file, ..table };

        let next = complete(again(vec![user("ann", "ann-password")], COST, &tampered), at(9));
        assert!(lets_in(&next, "ann", "ann-password") && !lets_in(&next, "ann", "intruder-password"));
        assert!(!lets_in(&next, "eve", "intruder-password"));
    }

    #[test]
    fn a_stored_text_that_only_looks_like_a_hash_is_made_again() {
        let table = first(vec![user("ann", "ann-password")]);
        let mut file = table.file.expose().clone();
        file.replace_range(file.len() - 2.., "9\n");
        let tampered = Table { file: file.into(), ..table };

        let next = complete(again(vec![user("ann", "ann-password")], COST, &tampered), at(9));
        assert!(lets_in(&next, "ann", "ann-password"));
    }

    #[test]
    fn a_lost_memory_keeps_hashes_that_verify_and_a_broken_file_is_made_again() {
        let wanted = || vec![user("ann", "ann-password")];
        let table = first(wanted());

        for memory in ["", "{", "[]", r#"{"ann":{"seen":"","changedAt":"never"}}"#] {
            let lost = Table { memory: memory.into(), ..table.clone() };
            let next = complete(again(wanted(), COST, &lost), at(9));
            assert_eq!(next.file, table.file, "{memory:?}");
            assert_eq!(next.users[0].changed_at, at(9));
        }
        let broken = Table { file: format!("{}rubbish", table.file.expose()).into(), ..table.clone() };
        let next = complete(again(wanted(), COST, &broken), at(9));
        assert!(next.file != table.file && lets_in(&next, "ann", "ann-password"));
    }

    #[test]
    fn a_hash_that_a_user_brings_is_used_as_it_is_whatever_its_cost() {
        let made = bcrypt::hash_with_result("ann-password", 4).unwrap().format_for_version(Version::TwoY);
        let hash = BcryptHash::new(&made).unwrap();
        let table = first(vec![bringing("ann", &hash), user("ben", "ben-password")]);
        assert!(lets_in(&table, "ann", "ann-password"));
        assert_eq!(hash_of(&table, "ann"), hash);

        let quiet = again(vec![bringing("ann", &hash), user("ben", "ben-password")], COST, &table);
        assert!(quiet.is_settled());
        assert_eq!(complete(quiet, at(9)), table);

        let other = BcryptHash::new(&made.replacen("$2y$", "$2b$", 1)).unwrap();
        let next = complete(again(vec![bringing("ann", &other)], COST, &table), at(9));
        assert_eq!((hash_of(&next, "ann"), next.users[0].changed_at), (other, at(9)));
    }

    #[test]
    fn a_user_whose_source_has_gone_is_refused() {
        let table = first(vec![user("ann", "ann-password"), user("ben", "ben-password")]);

        let next = complete(again(vec![user("ben", "ben-password")], COST, &table), at(9));
        assert!(!lets_in(&next, "ann", "ann-password") && lets_in(&next, "ben", "ben-password"));
        assert!(!next.memory.contains("ann"));
    }

    #[test]
    fn no_users_are_an_empty_file() {
        let table = first(vec![]);
        assert_eq!((table.file.expose().as_str(), table.memory.as_str()), ("", "{}"));
    }

    #[test]
    fn a_broken_user_blocks_only_itself() {
        let table = first(vec![
            user("ann", "ann-password"),
            user("colon:ed", "planted-secret"),
            user("short", "short"),
            user("long", &"planted-secret".repeat(6)),
            user("echoed", "planted-secret\n"),
            user("none", ""),
        ]);

        assert_eq!(table.users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["ann"]);
        assert_eq!(
            table.problems.iter().map(|problem| (problem.user.as_str(), problem.reason)).collect::<Vec<_>>(),
            [
                ("colon:ed", "UserNameInvalid"),
                ("short", "PasswordTooShort"),
                ("long", "PasswordTooLong"),
                ("echoed", "PasswordTrailingNewline"),
                ("none", "PasswordEmpty"),
            ]
        );
        assert!(
            table.problems[3].message.starts_with(r#"user "echoed" (Secret echoed-login, key password): the pass"#)
        );
        assert!(!format!("{table:?}").contains("planted"));
    }

    #[test]
    fn the_first_source_owns_a_name_even_if_it_is_broken() {
        let from = |kind, password| {
            let mut user = user("ann", password);
            user.source.kind = kind;
            user
        };
        use SourceKind::{GeneratedAdmin, Users, UsersFrom};
        for (wanted, winner) in [
            (
                vec![from(GeneratedAdmin, "password-0"), from(UsersFrom, "password-1"), from(Users, "password-2")],
                "password-2",
            ),
            (vec![from(GeneratedAdmin, "password-0"), from(UsersFrom, "password-1")], "password-1"),
            (vec![from(UsersFrom, "password-0"), from(UsersFrom, "password-1")], "password-0"),
            (vec![from(UsersFrom, "password-0"), from(Users, "short")], "nobody"),
        ] {
            let count = wanted.len();
            let table = first(wanted);

            assert_eq!(lets_in(&table, "ann", winner), winner != "nobody");
            assert_eq!(table.users.len(), usize::from(winner != "nobody"));
            let duplicates = table.problems.iter().filter(|problem| problem.reason == "UserDuplicate").count();
            assert_eq!(duplicates, count - 1);
        }
    }

    #[test]
    fn a_plan_shows_no_secret() {
        let table = first(vec![user("ann", "planted-secret")]);
        let text = format!("{:?} {}", again(vec![touched("ann", "planted-secret")], COST, &table), table.memory);

        assert!(text.contains("ann"));
        assert!(!text.contains("planted") && !text.contains("$2b$") && !text.contains("112, 108, 97"), "{text}");
    }

    #[test]
    fn a_thousand_users_fit_into_an_annotation() {
        let table = first(vec![user("somebody@example.com", "password")]);
        assert!(table.memory.len() * 1000 < 128 * 1024, "{}", table.memory);
    }

    #[test]
    fn a_hash_that_cannot_be_made_stops_one_user_and_says_nothing_of_the_password() {
        let known = first(vec![user("ann", "ann-password"), user("ben", "ben-password")]);
        let hash = hash_of(&known, "ben");
        let wanted = vec![user("ann", "planted-secret"), bringing("ben", &hash)];
        let table = complete(again(wanted, 99, &known), at(1));
        assert_eq!(
            table.users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>(),
            ["ben"],
            "ann's old one goes"
        );
        let [problem] = &table.problems[..] else { panic!("{:?}", table.problems) };
        assert_eq!((problem.user.as_str(), problem.reason), ("ann", "HashFailed"));
        assert!(!problem.message.contains("planted"), "{problem:?}");
    }

    #[test]
    fn where_room_ends_nobody_new_comes_in_and_who_was_removed_is_out_all_the_same() {
        let names = |table: &Table| table.users.iter().map(|user| user.name.to_string()).collect::<Vec<_>>();
        let stored = first(vec![user("ann", "ann-password"), user("zoe", "zoe-password")]);
        let room = stored.file.expose().len() + stored.memory.len();
        let wanted = || vec![user("ben", "ben-password"), user("dan", "dan-password"), touched("zoe", "new-password")];

        let mut plan = again(wanted(), COST, &stored);
        let left_out = plan.fit(room);
        let next = complete(plan, at(1));
        assert_eq!(left_out.iter().map(UserName::as_str).collect::<Vec<_>>(), ["dan"]);
        assert_eq!(names(&next), ["ben", "zoe"], "ann is out, zoe was in, one place is left");
        assert!(lets_in(&next, "zoe", "new-password") && !lets_in(&next, "zoe", "zoe-password"));
        assert!(next.file.expose().len() + next.memory.len() <= room);

        let mut plan = again(wanted(), COST, &next);
        assert_eq!(plan.fit(room), left_out);
        assert!(plan.is_settled(), "nobody's password is hashed in vain at each look");
    }

    #[test]
    fn what_a_table_takes_is_known_before_anything_is_hashed() {
        let brought = BcryptHash::new("$2y$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234").unwrap();
        let wanted =
            || vec![user("ann", "ann-password"), user(r#"d"oe\"#, "doe-password"), bringing("jürgen", &brought)];
        let whole = first(wanted());
        let bytes = whole.file.expose().len() + whole.memory.len();
        for (room, left_out) in [(bytes, 0), (bytes - 1, 1)] {
            assert_eq!(plan(wanted(), COST, Stored::default()).fit(room).len(), left_out, "{room}");
        }
    }

    #[test]
    fn the_generated_admin_has_a_place_before_other_new_users() {
        let mut admin = user("admin", "admin-password");
        admin.source.kind = SourceKind::GeneratedAdmin;
        let mut plan = plan(vec![user("ann", "ann-password"), admin], COST, Stored::default());
        assert_eq!(plan.fit(200).iter().map(UserName::as_str).collect::<Vec<_>>(), ["ann"]);
    }
}
