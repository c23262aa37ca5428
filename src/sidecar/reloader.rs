//! Which certificate the front end serves. Decides only: no clock, no file.

use crate::pki::reading::LeafReading;
use crate::pki::{self, Leaf};

/// What the kubelet shows, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    /// A certificate and its key.
    Good {
        /// A name for exactly this pair.
        checksum: String,
        /// The certificate's serial number.
        serial: String,
    },
    /// What it is instead.
    Bad(&'static str),
}

/// Judges what was read. nginx would take any of it, and fail at each handshake.
pub(super) fn judge(leaf: Option<&Leaf>, reading: &LeafReading) -> Judged {
    match (leaf, reading) {
        (None, _) | (_, LeafReading::Missing) => Judged::Bad("there is none"),
        (_, LeafReading::Unreadable) => Judged::Bad("it is not a certificate with a key"),
        (_, LeafReading::Read { key_fits: false, .. }) => Judged::Bad("the key is not the certificate's"),
        (Some(leaf), LeafReading::Read { facts, .. }) => {
            Judged::Good { checksum: pki::checksum(leaf), serial: facts.serial.clone() }
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Rest,
    /// Serve what is shown.
    Serve {
        /// Its name.
        checksum: String,
        /// Its serial number, for people.
        serial: String,
    },
    /// Say what is wrong, once.
    Complain(&'static str),
}

/// What is served, and what was complained about last.
#[derive(Debug, Default)]
pub(super) struct Reloader {
    served: Option<String>,
    complaint: Option<&'static str>,
}

impl Reloader {
    /// One that finds this pair served.
    pub(super) fn serving(served: Option<String>) -> Self {
        Self { served, complaint: None }
    }

    /// Whether anything is served.
    pub(super) fn serves(&self) -> bool {
        self.served.is_some()
    }

    /// What to do about what is shown. What is bad changes nothing of what is served.
    pub(super) fn step(&mut self, shown: &Judged) -> Step {
        match shown {
            Judged::Bad(why) if self.complaint.replace(why) == Some(why) => Step::Rest,
            Judged::Bad(why) => Step::Complain(why),
            Judged::Good { checksum, .. } if self.served.as_ref() == Some(checksum) => {
                self.complaint = None;
                Step::Rest
            }
            Judged::Good { checksum, serial } => {
                self.complaint = None;
                Step::Serve { checksum: checksum.clone(), serial: serial.clone() }
            }
        }
    }

    /// This pair is served from now on.
    pub(super) fn served(&mut self, checksum: &str) {
        self.served = Some(checksum.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(checksum: &str) -> Judged {
        Judged::Good { checksum: checksum.to_owned(), serial: "01".to_owned() }
    }

    fn serve(checksum: &str) -> Step {
        Step::Serve { checksum: checksum.to_owned(), serial: "01".to_owned() }
    }

    #[test]
    fn a_new_pair_is_served_once_and_a_bad_one_never() {
        let mut reloader = Reloader::default();
        for (shown, step) in [
            (Judged::Bad("broken"), Step::Complain("broken")),
            (Judged::Bad("broken"), Step::Rest),
            (good("a"), serve("a")),
            (good("a"), Step::Rest),
            (Judged::Bad("broken"), Step::Complain("broken")),
            (Judged::Bad("other"), Step::Complain("other")),
            (good("a"), Step::Rest),
            (Judged::Bad("other"), Step::Complain("other")),
            (good("b"), serve("b")),
            (good("a"), serve("a")),
        ] {
            let taken = reloader.step(&shown);
            if let Step::Serve { checksum, .. } = &taken {
                reloader.served(checksum);
            }
            assert_eq!(taken, step, "{shown:?}");
        }
    }

    #[test]
    fn what_could_not_be_written_is_served_at_the_next_look() {
        let mut reloader = Reloader::serving(Some("a".to_owned()));
        assert_eq!(reloader.step(&good("b")), serve("b"));
        assert_eq!(reloader.step(&good("b")), serve("b"));
    }
}
