//! Who runs: what a program calls itself towards the cluster, in its logs and in its metrics.

/// Who runs. One constant of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// Its name towards the cluster, such as `things-operator`: user agent, default name of the Lease.
    pub name: &'static str,
    /// The name of its crate, such as `things_operator`: the target of its logs, and the prefix of its metrics.
    pub target: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it was built from.
    pub commit: &'static str,
    /// The resources that it works with, (plural, kind): how requests about them are counted.
    pub resources: &'static [(&'static str, &'static str)],
    /// How an administrator brings its definition to the cluster: the end of a sentence.
    pub definition_advice: &'static str,
}

/// What the engine itself asks for.
const OWN: [(&str, &str); 4] = [
    ("events", "Event"),
    ("leases", "Lease"),
    ("pods", "Pod"),
    ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
];

impl Program {
    /// The kind of a resource (its plural), as a word for metrics. Everything unknown is one word, so that their number stays bounded.
    #[must_use]
    pub fn kind_of(&self, resource: &str) -> &'static str {
        let known = self.resources.iter().chain(&OWN).find(|(plural, _)| *plural == resource);
        known.map_or("other", |(_, kind)| kind)
    }
}
