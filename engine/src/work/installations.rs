//! Of several installations of one operator, one works on an object: who came first. Copies of one installation elect a leader; two installations do not
//! see each other's Lease, so the objects say who works on them.
//!
//! The name of an installation stands in the object's status. Who finds another one's name asks whether it lives, by writing a question beside it; a
//! living one takes the question away. Installations watch whole namespaces, so one answer counts for all objects of a namespace. Nothing here reads or
//! writes: [`Installations::turn`] says whose turn it is, and the program does it.
//!
//! ```text
//!  no name, or ours ─▶ Work        another's ─▶ Ask ─▶ taken away: Leave, ask again after a wait that doubles
//!                                                  └─▶ stays for the wait: Take, and all others of that namespace
//! ```

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::queue::Key;

/// The longest time between two questions, in waits.
const RARELY: u32 = 60;

/// What an object shows of who works on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shown<'a> {
    /// The installation that works on it.
    pub operator: Option<&'a str>,
    /// An installation that asks whether that one lives.
    pub asked: Option<&'a str>,
    /// Its manifest is newer than what was reported of it: somebody waits.
    pub is_behind: bool,
}

/// Whose turn it is with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Ours.
    Work {
        /// Take away the question, first of all.
        answer: bool,
    },
    /// Write our name as the question, to exactly this version of the object, and say so: [`Installations::asked`].
    Ask,
    /// Another one's, as far as is known: write nothing, and look again.
    Leave {
        /// When to look again.
        after: Duration,
        /// It has just answered for the first time: worth telling.
        is_news: bool,
    },
    /// Another one's, and that one is gone: write our name over it, to exactly this version of the object, and work.
    Take {
        /// The objects of this namespace that were left to it and wait for this; only when it has just been found out.
        others: Vec<Key>,
    },
}

/// What is known of another installation in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// It was asked.
    Asked { at: Key, question: String, since: Instant, answers: u32 },
    /// It lives.
    Answered { answers: u32, since: Instant },
    /// It does not answer.
    Gone { since: Instant },
}

/// What is known of the other installations, and what is left to them.
#[derive(Debug)]
pub struct Installations {
    own: OnceLock<String>,
    wait: Duration,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By namespace and name of the installation.
    known: BTreeMap<Key, Known>,
    left: BTreeMap<Key, Left>,
}

/// An object that is left to another installation.
#[derive(Debug)]
struct Left {
    /// `None`: it shows no name yet.
    to: Option<String>,
    since: Instant,
}

impl Installations {
    /// Knows of no other one. `wait`: how long a living one may need for an answer, longer than any pass.
    #[must_use]
    pub fn new(wait: Duration) -> Self {
        Self { own: OnceLock::new(), wait, table: Mutex::default() }
    }

    /// Our own name, the same after each restart. Only the first call counts.
    pub fn call_ourselves(&self, own: String) {
        let _ = self.own.set(own);
    }

    /// Our own name; `None` before it is known.
    #[must_use]
    pub fn own(&self) -> Option<&str> {
        self.own.get().map(String::as_str)
    }

    /// Whether a status that changed and nothing else is a reason to look: somebody asks, or the object is not ours.
    #[must_use]
    pub fn concerns(&self, shown: &Shown<'_>) -> bool {
        shown.asked.is_some() || shown.operator.is_some_and(|operator| self.own() != Some(operator))
    }

    /// Whose turn it is with the object `key`, which shows this.
    pub fn turn(&self, key: &Key, shown: &Shown<'_>) -> Turn {
        let now = Instant::now();
        let mut table = self.table();
        let turn = table.turn(self.own().unwrap_or_default(), self.wait, key, shown, now);
        match &turn {
            Turn::Leave { .. } | Turn::Ask => {
                let to = shown.operator.map(str::to_owned);
                table.left.entry(key.clone()).or_insert(Left { to: None, since: now }).to = to;
            }
            Turn::Work { .. } | Turn::Take { .. } => _ = table.left.remove(key),
        }
        turn
    }

    /// The question that [`Turn::Ask`] asks for was written.
    pub fn asked(&self, key: &Key, operator: &str) {
        let Some(own) = self.own() else { return };
        self.table().ask(key, operator, own, Instant::now());
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, key: &Key) {
        self.table().left.remove(key);
    }

    /// The objects that are left to other installations, by the names of these.
    #[must_use]
    pub fn left(&self) -> BTreeMap<String, Vec<Key>> {
        let mut left: BTreeMap<String, Vec<Key>> = BTreeMap::new();
        for (key, Left { to, .. }) in &self.table().left {
            if let Some(to) = to {
                left.entry(to.clone()).or_default().push(key.clone());
            }
        }
        left
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn turn(&mut self, own: &str, wait: Duration, key: &Key, shown: &Shown<'_>, now: Instant) -> Turn {
        let Some(operator) = shown.operator.filter(|operator| *operator != own) else {
            return self.turn_without_name(wait, key, shown, now);
        };
        let other = Key::new(key.namespace.clone(), operator);
        let leave = |after: Duration| Turn::Leave { after, is_news: false };
        let left_of = |time: Duration, since: Instant| time.saturating_sub(now - since);
        let (known, turn) = match (self.known.remove(&other), shown.asked) {
            // A question that stands there already will do, whoever asked it.
            (None, Some(question)) => (Some(asked(key, question, now, 0)), leave(wait)),
            (None, None) => (None, Turn::Ask),
            (Some(Known::Asked { at, answers, .. }), None) if at == *key => {
                let answers = answers.saturating_add(1);
                let turn = Turn::Leave { after: pause(wait, answers), is_news: answers == 1 };
                (Some(Known::Answered { answers, since: now }), turn)
            }
            (Some(Known::Asked { at, question, answers, .. }), Some(other)) if at == *key && question != other => {
                (Some(asked(key, other, now, answers)), leave(wait))
            }
            (Some(Known::Asked { at, since, .. }), Some(_)) if at == *key && now - since >= wait => {
                let others = self.left.iter().filter(|(left, to)| {
                    left.namespace == key.namespace && to.to.as_deref() == Some(operator) && *left != key
                });
                let others = others.map(|(left, _)| left.clone()).collect();
                (Some(Known::Gone { since: now }), Turn::Take { others })
            }
            (Some(known @ Known::Asked { since, .. }), _) => {
                // What was asked at may be gone itself.
                let until = if matches!(&known, Known::Asked { at, .. } if at == key) { wait } else { wait * 2 };
                match left_of(until, since) {
                    Duration::ZERO => (None, Turn::Ask),
                    rest => (Some(known), leave(rest)),
                }
            }
            (Some(Known::Answered { answers, since }), question) => {
                let until = if shown.is_behind { wait } else { pause(wait, answers) };
                match (left_of(until, since), question) {
                    (Duration::ZERO, Some(question)) => (Some(asked(key, question, now, answers)), leave(wait)),
                    (Duration::ZERO, None) => (Some(Known::Answered { answers, since }), Turn::Ask),
                    (rest, _) => (Some(Known::Answered { answers, since }), leave(rest)),
                }
            }
            // It may come back, so that is not believed for ever.
            (Some(Known::Gone { since }), _) if now - since < wait => {
                (Some(Known::Gone { since }), Turn::Take { others: Vec::new() })
            }
            (Some(Known::Gone { .. }), _) => (None, Turn::Ask),
        };
        if let Some(known) = known {
            self.known.insert(other, known);
        }
        turn
    }

    /// Who finds no name works, and the first report decides. But where another one is known to live, it came first.
    fn turn_without_name(&self, wait: Duration, key: &Key, shown: &Shown<'_>, now: Instant) -> Turn {
        let work = Turn::Work { answer: shown.asked.is_some() };
        if shown.operator.is_some() {
            return work;
        }
        let lives = |(other, known): (&Key, &Known)| {
            other.namespace == key.namespace && matches!(known, Known::Answered { .. })
        };
        let waited = self.left.get(key).map_or(Duration::ZERO, |left| now - left.since);
        if waited < wait && self.known.iter().any(lives) {
            return Turn::Leave { after: wait - waited, is_news: false };
        }
        work
    }

    fn ask(&mut self, key: &Key, operator: &str, own: &str, now: Instant) {
        let other = Key::new(key.namespace.clone(), operator);
        let answers = match self.known.get(&other) {
            Some(Known::Answered { answers, .. } | Known::Asked { answers, .. }) => *answers,
            Some(Known::Gone { .. }) | None => 0,
        };
        self.known.insert(other, asked(key, own, now, answers));
    }
}

fn asked(key: &Key, question: &str, since: Instant, answers: u32) -> Known {
    Known::Asked { at: key.clone(), question: question.to_owned(), since, answers }
}

/// How long who has answered so often is not asked again.
fn pause(wait: Duration, answers: u32) -> Duration {
    wait * 2_u32.saturating_pow(answers.saturating_sub(1)).min(RARELY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(60);
    const OURS: &str = "b/operator";
    const OTHER: &str = "a/operator";
    const THIRD: &str = "c/operator";

    fn key(name: &str) -> Key {
        Key::new("team", name)
    }

    fn shown<'a>(operator: Option<&'a str>, asked: Option<&'a str>) -> Shown<'a> {
        Shown { operator, asked, is_behind: false }
    }

    fn leave(seconds: u64) -> Turn {
        Turn::Leave { after: Duration::from_secs(seconds), is_news: false }
    }

    fn take() -> Turn {
        Turn::Take { others: Vec::new() }
    }

    /// Name, question, what is known, and for how long → whose turn it is.
    #[test]
    fn whose_turn_it_is() {
        enum Past {
            Nothing,
            Asked(&'static str, &'static str),
            Answered(u32),
            Gone,
        }
        use Past::{Answered, Asked, Gone, Nothing};
        let work = |answer| Turn::Work { answer };
        let table = [
            (None, None, Nothing, 0, work(false)),
            (None, Some(OTHER), Nothing, 0, work(true)),
            (Some(OURS), None, Nothing, 0, work(false)),
            (Some(OURS), Some(OTHER), Nothing, 0, work(true)),
            (Some(OTHER), None, Nothing, 0, Turn::Ask),
            (Some(OTHER), Some(OURS), Nothing, 0, leave(60)),
            (Some(OTHER), Some(THIRD), Nothing, 0, leave(60)),
            (Some(OTHER), Some(OURS), Asked("one", OURS), 59, leave(1)),
            (Some(OTHER), Some(OURS), Asked("one", OURS), 60, take()),
            (Some(OTHER), Some(THIRD), Asked("one", THIRD), 60, take()),
            // Somebody asks anew: the former question may have been answered unseen.
            (Some(OTHER), Some(THIRD), Asked("one", OURS), 60, leave(60)),
            (Some(OTHER), None, Asked("one", OURS), 3, Turn::Leave { after: WAIT, is_news: true }),
            (Some(OTHER), None, Asked("another", OURS), 3, leave(117)),
            (Some(OTHER), None, Asked("another", OURS), 120, Turn::Ask),
            (Some(OTHER), None, Answered(1), 59, leave(1)),
            (Some(OTHER), None, Answered(1), 60, Turn::Ask),
            (Some(OTHER), Some(THIRD), Answered(1), 60, leave(60)),
            (Some(OTHER), None, Answered(4), 60, leave(420)),
            (Some(OTHER), None, Answered(4), 480, Turn::Ask),
            (Some(OTHER), None, Answered(u32::MAX), 3_599, leave(1)),
            (Some(OTHER), None, Answered(u32::MAX), 3_600, Turn::Ask),
            (None, None, Answered(1), 0, leave(60)),
            (Some(OTHER), None, Gone, 59, take()),
            (Some(OTHER), None, Gone, 60, Turn::Ask),
        ];
        let now = Instant::now() + Duration::from_secs(86_400);
        for (number, (operator, question, past, seconds, expected)) in table.into_iter().enumerate() {
            let since = now - Duration::from_secs(seconds);
            let known = match past {
                Nothing => None,
                Asked(at, question) => Some(asked(&key(at), question, since, 0)),
                Answered(answers) => Some(Known::Answered { answers, since }),
                Gone => Some(Known::Gone { since }),
            };
            let known = known.map(|known| (Key::new("team", OTHER), known));
            let mut table = Table { known: known.into_iter().collect(), left: BTreeMap::new() };
            let turn = table.turn(OURS, WAIT, &key("one"), &shown(operator, question), now);
            assert_eq!(turn, expected, "row {number}");
        }
    }

    #[test]
    fn a_manifest_that_nobody_follows_is_asked_about_sooner() {
        let now = Instant::now() + Duration::from_secs(86_400);
        let known = Known::Answered { answers: 5, since: now - WAIT };
        let known = BTreeMap::from([(Key::new("team", OTHER), known)]);
        let mut table = Table { known, left: BTreeMap::new() };
        let mut shown = shown(Some(OTHER), None);
        assert_eq!(table.turn(OURS, WAIT, &key("one"), &shown, now), leave(900));
        shown.is_behind = true;
        assert_eq!(table.turn(OURS, WAIT, &key("one"), &shown, now), Turn::Ask);
    }

    fn installations() -> Installations {
        let installations = Installations::new(WAIT);
        installations.call_ourselves(OURS.to_owned());
        installations
    }

    #[tokio::test(start_paused = true)]
    async fn one_question_counts_for_a_namespace_and_for_no_other() {
        let ours = installations();
        let theirs = shown(Some(OTHER), None);
        assert_eq!(ours.turn(&key("one"), &theirs), Turn::Ask);
        ours.asked(&key("one"), OTHER);
        assert_eq!(ours.turn(&key("two"), &theirs), leave(120));
        assert_eq!(ours.turn(&Key::new("elsewhere", "three"), &theirs), Turn::Ask);

        tokio::time::advance(WAIT).await;
        let asked = shown(Some(OTHER), Some(OURS));
        assert_eq!(ours.turn(&key("one"), &asked), Turn::Take { others: vec![key("two")] });
        assert_eq!(ours.turn(&key("two"), &theirs), take());
        assert_eq!(ours.left(), BTreeMap::from([(OTHER.to_owned(), vec![Key::new("elsewhere", "three")])]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_object_is_left_to_who_was_there_first_and_not_for_ever() {
        let ours = installations();
        assert_eq!(ours.turn(&key("one"), &shown(Some(OTHER), None)), Turn::Ask);
        ours.asked(&key("one"), OTHER);
        let answered = ours.turn(&key("one"), &shown(Some(OTHER), None));
        assert_eq!(answered, Turn::Leave { after: WAIT, is_news: true });

        assert_eq!(ours.turn(&key("new"), &Shown::default()), leave(60));
        assert_eq!(ours.left()[OTHER], [key("one")], "nobody has it yet");
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(ours.turn(&key("new"), &Shown::default()), leave(20));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(ours.turn(&key("new"), &Shown::default()), Turn::Work { answer: false });
    }

    #[tokio::test(start_paused = true)]
    async fn who_lives_is_asked_less_and_less_often_and_told_of_once() {
        let ours = installations();
        let theirs = shown(Some(OTHER), None);
        let mut pauses = Vec::new();
        for round in 0..9 {
            assert_eq!(ours.turn(&key("one"), &theirs), Turn::Ask);
            ours.asked(&key("one"), OTHER);
            let Turn::Leave { after, is_news } = ours.turn(&key("one"), &theirs) else { panic!("it lives") };
            assert_eq!(is_news, round == 0);
            pauses.push(after.as_secs() / 60);
            tokio::time::advance(after).await;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_status_concerns_us_if_somebody_asks_or_works_on_it_instead() {
        let ours = installations();
        for (operator, asked, concerns) in
            [(None, None, false), (Some(OURS), None, false), (Some(OURS), Some(OTHER), true), (Some(OTHER), None, true)]
        {
            assert_eq!(ours.concerns(&shown(operator, asked)), concerns, "{operator:?} {asked:?}");
        }
    }
}
