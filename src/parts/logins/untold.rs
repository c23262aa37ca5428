//! Whose clients may still be shown a former login: his must not end. Of each user by himself, so that what is wrong with one login, or with one pull Secret,
//! keeps nobody else's former password alive. Pure.

use std::collections::BTreeSet;

/// Users whose present login not all clients are known to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::parts) enum Untold {
    /// These.
    These(BTreeSet<String>),
    /// It cannot be said of anybody.
    Everybody,
    /// All but these, of whom it is known.
    AllBut(BTreeSet<String>),
}

/// Nothing is known before somebody looked.
impl Default for Untold {
    fn default() -> Self {
        Self::Everybody
    }
}

impl Untold {
    /// All clients are shown what they are to be.
    pub(super) fn nobody() -> Self {
        Self::These(BTreeSet::new())
    }

    pub(super) fn has(&self, user: &str) -> bool {
        match self {
            Self::These(users) => users.contains(user),
            Self::Everybody => true,
            Self::AllBut(known) => !known.contains(user),
        }
    }

    /// Those of either.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Everybody, _) | (_, Self::Everybody) => Self::Everybody,
            (Self::These(mut users), Self::These(more)) => {
                users.extend(more);
                Self::These(users)
            }
            (Self::AllBut(known), Self::AllBut(others)) => Self::AllBut(known.intersection(&others).cloned().collect()),
            (Self::AllBut(known), Self::These(users)) | (Self::These(users), Self::AllBut(known)) => {
                Self::AllBut(known.difference(&users).cloned().collect())
            }
        }
    }
}

/// What is known of copies in other namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copies {
    /// All of them are as wanted, but those that somebody refuses: that counts for nobody.
    Written,
    /// Not all could be looked at, or it cannot be said which there are to be: any of them may be as it was.
    Unclear,
}

/// An entry of the manifest by which logins are copied: whose, and whether it is not known at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) user: String,
    pub(super) is_open: bool,
}

/// Whose copies may show a former login, and whose logins there may be in copies from now on. `before`: the latter as it was; `None`: nobody knows.
pub(super) fn elsewhere(
    before: Option<&BTreeSet<String>>,
    entries: &[Entry],
    copies: Copies,
) -> (Untold, Option<BTreeSet<String>>) {
    let named: BTreeSet<String> = entries.iter().map(|entry| entry.user.clone()).collect();
    let open: BTreeSet<String> = entries.iter().filter(|entry| entry.is_open).map(|entry| entry.user.clone()).collect();
    if copies == Copies::Written && open.is_empty() {
        return (Untold::nobody(), Some(named));
    }
    let shown: Option<BTreeSet<_>> = before.map(|before| before.union(&named).cloned().collect());
    let untold = match (copies, &shown) {
        (Copies::Unclear, None) => Untold::Everybody,
        (Copies::Unclear, Some(shown)) => Untold::These(shown.clone()),
        // Copies of an entry whose login is not known stay, and may show somebody whom the manifest named there before.
        (Copies::Written, None) => Untold::AllBut(named.difference(&open).cloned().collect()),
        (Copies::Written, Some(shown)) => {
            let former = shown.difference(&named).cloned();
            Untold::These(open.into_iter().chain(former).collect())
        }
    };
    (untold, shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Entries; of those with a mark at their end the login is not known.
    fn entries(names: &[&str]) -> Vec<Entry> {
        let entry = |name: &&str| Entry { user: name.trim_end_matches('?').to_owned(), is_open: name.ends_with('?') };
        names.iter().map(entry).collect()
    }

    #[test]
    fn copies_keep_only_those_former_logins_that_they_may_show() {
        use Copies::{Unclear, Written};
        let these = |names: &[&str]| Untold::These(users(names));
        for (before, named, copies, untold, shown) in [
            (None, &["ann"][..], Written, these(&[]), Some(users(&["ann"]))),
            (Some(users(&["ann", "ben"])), &["ben"], Written, these(&[]), Some(users(&["ben"]))),
            (Some(users(&["ann"])), &[], Written, these(&[]), Some(users(&[]))),
            // One login is not known: its copies stay, whoever they show.
            (Some(users(&["ann", "ben"])), &["ann", "ben?"], Written, these(&["ben"]), Some(users(&["ann", "ben"]))),
            (Some(users(&["ann"])), &["ben?"], Written, these(&["ann", "ben"]), Some(users(&["ann", "ben"]))),
            (None, &["ann", "ben?"], Written, Untold::AllBut(users(&["ann"])), None),
            // It cannot be said which namespaces are meant, as with a wrong selector, which is none of the entries.
            (Some(users(&["ann"])), &[], Unclear, these(&["ann"]), Some(users(&["ann"]))),
            (Some(users(&["ann"])), &["ben"], Unclear, these(&["ann", "ben"]), Some(users(&["ann", "ben"]))),
            (None, &["ann"], Unclear, Untold::Everybody, None),
        ] {
            assert_eq!(elsewhere(before.as_ref(), &entries(named), copies), (untold, shown), "{before:?} {named:?}");
        }
    }

    #[test]
    fn who_is_untold_by_one_is_untold() {
        let these = |names: &[&str]| Untold::These(users(names));
        let all_but = |names: &[&str]| Untold::AllBut(users(names));
        for (one, other, both) in [
            (these(&["a"]), these(&["b"]), these(&["a", "b"])),
            (these(&["a"]), Untold::Everybody, Untold::Everybody),
            (these(&["a"]), all_but(&["a", "b"]), all_but(&["b"])),
            (all_but(&["a", "b"]), all_but(&["b", "c"]), all_but(&["b"])),
            (Untold::nobody(), Untold::nobody(), these(&[])),
        ] {
            for (one, other) in [(one.clone(), other.clone()), (other, one)] {
                let said = one.clone().or(other.clone());
                assert_eq!(said, both);
                for user in ["a", "b", "c", "d"] {
                    assert_eq!(said.has(user), one.has(user) || other.has(user), "{user}");
                }
            }
        }
        assert!(Untold::default().has("a") && !Untold::nobody().has("a"));
    }
}
