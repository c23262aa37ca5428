//! Namespaces that accept bundles, as the watch last showed them. Nothing else of a namespace is read.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::super::locked;
use crate::model::labels::ANY;

/// Label of a namespace: whose bundles it accepts, [`ANY`] or those of one namespace's registries.
pub const ACCEPTS: &str = "privateregistry.dev/accept-bundles-from";

/// Labels of a namespace.
pub type Labels = BTreeMap<String, String>;

/// Namespaces with the label [`ACCEPTS`].
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

    /// Those that accept bundles of registries in `home`, and whose labels are `wanted`. The registry's own namespace has the bundle itself.
    #[must_use]
    pub fn namespaces(&self, home: &str, wanted: impl Fn(&Labels) -> bool) -> Vec<String> {
        let accepts = |labels: &Labels| labels.get(ACCEPTS).is_some_and(|whose| whose == ANY || whose == home);
        let state = locked(&self.0);
        let wanted = state.known.iter().filter(|(name, labels)| *name != home && accepts(labels) && wanted(labels));
        wanted.map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(whose: &str) -> Labels {
        Labels::from([(ACCEPTS.to_owned(), whose.to_owned()), ("team".to_owned(), "a".to_owned())])
    }

    #[test]
    fn a_namespace_gets_what_it_accepts_and_the_registrys_own_gets_none() {
        let accepting = Accepting::default();
        for (name, whose) in
            [("all", ANY), ("ours", "registries"), ("theirs", "other"), ("any", "any"), ("registries", ANY)]
        {
            assert!(accepting.seen(name, &labels(whose)));
            assert!(!accepting.seen(name, &labels(whose)), "no news");
        }
        assert_eq!(accepting.namespaces("registries", |_| true), ["all", "ours"]);
        assert_eq!(accepting.namespaces("registries", |labels| labels["team"] == "b"), Vec::<String>::new());
        assert!(accepting.gone("all"));
        assert!(!accepting.gone("all"));
        assert_eq!(accepting.namespaces("registries", |_| true), ["ours"]);
    }

    #[test]
    fn what_a_complete_list_does_not_show_is_gone_and_not_before() {
        let accepting = Accepting::default();
        for name in ["stays", "goes"] {
            accepting.seen(name, &labels(ANY));
        }
        accepting.relist_started();
        accepting.seen("stays", &labels(ANY));
        assert_eq!(accepting.namespaces("registries", |_| true), ["goes", "stays"]);
        accepting.seen("late", &labels(ANY));
        assert!(accepting.relisted());
        assert_eq!(accepting.namespaces("registries", |_| true), ["late", "stays"]);
    }
}
