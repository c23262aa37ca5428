//! Since when something is missing: what fails for a moment is told nobody, and what is there again is well at once.

use std::time::{Duration, Instant};

use crate::access::report::Standing;

/// How long something fails before it counts as missing: a network that is just coming up, an API server that is being replaced.
const SURE: Duration = Duration::from_secs(25);

/// What is missing, and since when.
#[derive(Debug, Default)]
pub(super) struct Lack(Option<(Instant, Standing)>);

impl Lack {
    /// Takes in what a look has found.
    pub(super) fn learn(&mut self, standing: Standing, now: Instant) {
        self.0 = match (standing.is_lack(), &self.0) {
            (true, Some((since, _))) => Some((*since, standing)),
            (true, None) => Some((now, standing)),
            (false, _) => None,
        };
    }

    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// What is told of it.
    pub(super) fn told(&self, now: Instant) -> Standing {
        match self.0 {
            None => Standing::Good,
            Some((since, _)) if now.saturating_duration_since(since) < SURE => Standing::Pending,
            Some((_, standing)) => standing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_for_a_moment_is_not_missing_and_what_is_back_is_well_at_once() {
        let (mut lack, begin) = (Lack::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(lack.told(begin), Standing::Good);
        lack.learn(Standing::Unreachable, begin);
        assert_eq!(lack.told(after(24)), Standing::Pending);
        // Another word for it begins nothing anew.
        lack.learn(Standing::Untrusted, after(20));
        assert_eq!(lack.told(after(25)), Standing::Untrusted);
        lack.learn(Standing::Good, after(26));
        assert_eq!(lack.told(after(26)), Standing::Good);
        lack.learn(Standing::Unreachable, after(30));
        assert_eq!(lack.told(after(50)), Standing::Pending);
    }
}
