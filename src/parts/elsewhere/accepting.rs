//! Namespaces that accept something of registries elsewhere, as the watch last showed them. Nothing but their labels is read.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::super::locked;
use crate::model::labels::ANY;

/// Label of a namespace: whose bundles it accepts, [`ANY`] or those of one namespace's registries.
pub const ACCEPTS_BUNDLES: &str = "privateregistry.dev/accept-bundles-from";
/// Label of a namespace: whose logins it accepts, likewise. Who takes in what is public has not said that Secrets may come.
pub const ACCEPTS_PULL_SECRETS: &str = "privateregistry.dev/accept-pull-secrets-from";

/// Labels of a namespace.
pub type Labels = BTreeMap<String, String>;

/// Namespaces with one of these labels.
#[derive(Default)]
pub struct Accepting(Mutex<State>);

#[derive(Default)]
struct State {
    known: BTreeMap<String, Labels>,
    /// What a list that is under way has shown.
    listed: Option<BTreeMap<String, Labels>>,
}

impl Accepting {
    /// It is there, with these labels, and not on its way out. Whether that is news.
    pub fn seen(&self, name: &str, labels: &Labels) -> bool {
        if ![ACCEPTS_BUNDLES, ACCEPTS_PULL_SECRETS].iter().any(|label| labels.contains_key(*label)) {
            return self.gone(name);
        }
        let mut state = locked(&self.0);
        if let Some(listed) = &mut state.listed {
            listed.insert(name.to_owned(), labels.clone());
        }
        state.known.insert(name.to_owned(), labels.clone()).as_ref() != Some(labels)
    }

    /// It is gone, or accepts nothing any more. Whether that is news.
    pub fn gone(&self, name: &str) -> bool {
        let mut state = locked(&self.0);
        if let Some(listed) = &mut state.listed {
            listed.remove(name);
        }
        state.known.remove(name).is_some()
    }

    /// A list begins.
    pub fn relist_started(&self) {
        locked(&self.0).listed = Some(BTreeMap::new());
    }

    /// The list is complete: what it did not show is gone. Whether that is news.
    pub fn relisted(&self) -> bool {
        let mut state = locked(&self.0);
        let Some(listed) = state.listed.take() else { return false };
        let is_news = state.known != listed;
        state.known = listed;
        is_news
    }

    /// Those whose `label` says that they accept what it is about from registries in `home`, and of whose labels something is `wanted`. The registry's own
    /// namespace is none of them.
    #[must_use]
    pub fn namespaces<T>(&self, label: &str, home: &str, wanted: impl Fn(&Labels) -> Option<T>) -> Vec<(String, T)> {
        let accepts = |labels: &Labels| labels.get(label).is_some_and(|whose| whose == ANY || whose == home);
        let state = locked(&self.0);
        let accepting = state.known.iter().filter(|(name, labels)| *name != home && accepts(labels));
        accepting.filter_map(|(name, labels)| Some((name.clone(), wanted(labels)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(label: &str, whose: &str) -> Labels {
        Labels::from([(label.to_owned(), whose.to_owned()), ("team".to_owned(), "a".to_owned())])
    }

    fn names(accepting: &Accepting, label: &str) -> Vec<String> {
        accepting.namespaces(label, "registries", |_| Some(())).into_iter().map(|(name, ())| name).collect()
    }

    #[test]
    fn a_namespace_gets_what_it_accepts_and_the_registrys_own_gets_none() {
        let accepting = Accepting::default();
        for (name, whose) in
            [("all", ANY), ("ours", "registries"), ("theirs", "other"), ("any", "any"), ("registries", ANY)]
        {
            assert!(accepting.seen(name, &labels(ACCEPTS_BUNDLES, whose)));
            assert!(!accepting.seen(name, &labels(ACCEPTS_BUNDLES, whose)), "no news");
        }
        assert_eq!(names(&accepting, ACCEPTS_BUNDLES), ["all", "ours"]);
        let of_team_b = |labels: &Labels| (labels["team"] == "b").then_some(());
        assert_eq!(accepting.namespaces(ACCEPTS_BUNDLES, "registries", of_team_b), []);
        assert!(accepting.gone("all"));
        assert!(!accepting.gone("all"));
        assert_eq!(names(&accepting, ACCEPTS_BUNDLES), ["ours"]);
    }

    #[test]
    fn who_accepts_bundles_has_not_accepted_logins() {
        let accepting = Accepting::default();
        accepting.seen("public", &labels(ACCEPTS_BUNDLES, ANY));
        accepting.seen(
            "both",
            &[labels(ACCEPTS_BUNDLES, ANY), labels(ACCEPTS_PULL_SECRETS, ANY)].into_iter().flatten().collect(),
        );
        accepting.seen("logins", &labels(ACCEPTS_PULL_SECRETS, "registries"));
        assert_eq!(names(&accepting, ACCEPTS_BUNDLES), ["both", "public"]);
        assert_eq!(names(&accepting, ACCEPTS_PULL_SECRETS), ["both", "logins"]);
    }

    #[test]
    fn nothing_is_kept_of_a_namespace_that_accepts_nothing() {
        let accepting = Accepting::default();
        assert!(!accepting.seen("silent", &labels("example.com/other", ANY)), "no news");
        assert!(accepting.0.lock().unwrap().known.is_empty());
        assert!(accepting.seen("silent", &labels(ACCEPTS_PULL_SECRETS, ANY)));
        assert!(accepting.seen("silent", &labels("example.com/other", ANY)), "it accepts nothing any more");
        assert_eq!(names(&accepting, ACCEPTS_PULL_SECRETS), Vec::<String>::new());
    }

    #[test]
    fn what_a_complete_list_does_not_show_is_gone_and_not_before() {
        let accepting = Accepting::default();
        let any = labels(ACCEPTS_BUNDLES, ANY);
        for name in ["stays", "goes"] {
            accepting.seen(name, &any);
        }
        accepting.relist_started();
        accepting.seen("stays", &any);
        assert_eq!(names(&accepting, ACCEPTS_BUNDLES), ["goes", "stays"]);
        accepting.seen("late", &any);
        assert!(accepting.relisted());
        assert_eq!(names(&accepting, ACCEPTS_BUNDLES), ["late", "stays"]);
    }
}
