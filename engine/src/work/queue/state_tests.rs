use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn key(name: &str) -> Key {
    Key::new("registries", name)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

struct Bench {
    state: QueueState,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { state: QueueState::new(Settings::default()), now: Instant::now() }
    }

    fn change(&mut self, name: &str) {
        self.state.add(&key(name), Urgency::Change, self.now, self.now);
    }

    fn manifest(&mut self, name: &str) {
        self.state.add(&key(name), Urgency::Manifest, self.now, self.now);
    }

    fn upkeep(&mut self, name: &str) {
        self.state.add(&key(name), Urgency::Upkeep, self.now, self.now);
    }

    fn run(&mut self) -> Option<Grant> {
        match self.state.next(self.now) {
            Next::Run(grant) => Some(grant),
            Next::Until(_) | Next::Idle => None,
        }
    }

    fn finish(&mut self, name: &str, end: End) -> Option<Duration> {
        self.state.finish(&key(name), end, self.now)
    }

    /// The time until the next pass may start; moves the clock there.
    fn skip(&mut self) -> Duration {
        match self.state.next(self.now) {
            Next::Until(due) => {
                let wait = due - self.now;
                self.now = due;
                wait
            }
            other => panic!("expected a wait, got {other:?}"),
        }
    }
}

const SETTLED: End = End::Done { after: Some(Duration::from_secs(600)) };

#[test]
fn the_first_event_after_quiet_runs_at_once() {
    let mut bench = Bench::new();
    bench.change("a");
    assert_eq!(bench.run().map(|grant| grant.waited), Some(Duration::ZERO));
}

#[test]
fn events_during_and_after_a_pass_make_one_more_pass_after_the_debounce() {
    let mut bench = Bench::new();
    bench.change("a");
    bench.run().unwrap();
    for _ in 0..10 {
        bench.now += ms(1);
        bench.change("a");
        assert_eq!(bench.run(), None, "a key never runs twice at once");
    }
    assert_eq!(bench.finish("a", SETTLED), Some(ms(30)));
    bench.now += ms(10);
    bench.change("a");
    assert_eq!(bench.run(), None);
    assert_eq!(bench.skip(), ms(20));
    assert!(bench.run().is_some());
    bench.finish("a", SETTLED);
    assert_eq!(bench.skip(), Duration::from_secs(600), "one pass, then the resync");
}

#[test]
fn the_earliest_wish_wins_and_the_highest_urgency_is_kept() {
    let mut bench = Bench::new();
    let now = bench.now;
    bench.state.add(&key("a"), Urgency::Upkeep, now + ms(500), now);
    bench.state.add(&key("a"), Urgency::Change, now + ms(900), now);
    bench.state.add(&key("a"), Urgency::Upkeep, now + ms(700), now);
    assert_eq!(bench.skip(), ms(500));
    assert_eq!(bench.run().map(|grant| grant.urgency), Some(Urgency::Change));
    assert_eq!(bench.run(), None);
}

#[test]
fn failures_count_up_and_a_success_clears_them() {
    let mut bench = Bench::new();
    bench.change("a");
    let mut last = Duration::ZERO;
    for failures in 0..6 {
        assert_eq!(bench.run().unwrap().failures, failures);
        assert_eq!(bench.state.depth(bench.now).running, 1);
        let wait = bench.finish("a", End::Failed(Class::Transient)).unwrap();
        assert!(wait > last, "{wait:?} after {last:?}");
        assert_eq!(bench.skip(), wait);
        last = wait;
    }
    assert_eq!(bench.state.depth(bench.now).failing, 1);
    bench.run().unwrap();
    bench.finish("a", SETTLED);
    assert_eq!(bench.state.depth(bench.now).failing, 0);
    bench.skip();
    assert_eq!(bench.run().unwrap().failures, 0);
}

#[test]
fn a_change_cuts_a_backoff_short_but_not_below_one_second() {
    let mut bench = Bench::new();
    bench.change("a");
    bench.run().unwrap();
    let wait = bench.finish("a", End::Failed(Class::Bug)).unwrap();
    assert!(wait > Duration::from_secs(200));
    bench.change("a");
    assert_eq!(bench.skip(), Duration::from_secs(1));
    let grant = bench.run().unwrap();
    assert_eq!((grant.urgency, grant.failures), (Urgency::Change, 1));
}

#[test]
fn a_blocked_registry_is_not_failing_and_reacts_to_a_change_at_once() {
    let mut bench = Bench::new();
    bench.change("a");
    bench.run().unwrap();
    let wait = bench.finish("a", End::Failed(Class::Blocked)).unwrap();
    assert!(wait > Duration::from_secs(400), "{wait:?}");
    assert_eq!(bench.state.depth(bench.now), Depth { later: 1, ..Depth::default() });
    bench.now += ms(40);
    bench.change("a");
    assert!(bench.run().is_some());
}

#[test]
fn a_retry_keeps_the_urgency_of_the_pass_that_failed() {
    let mut bench = Bench::new();
    bench.change("changed");
    bench.upkeep("resynced");
    for _ in 0..2 {
        let grant = bench.run().unwrap();
        bench.finish(&grant.key.name, End::Failed(Class::Transient));
    }
    bench.now += Duration::from_secs(10);
    let retries: Vec<_> = [bench.run(), bench.run()].into_iter().flatten().map(|g| (g.key.name, g.urgency)).collect();
    assert_eq!(retries, [("changed".into(), Urgency::Change), ("resynced".into(), Urgency::Upkeep)]);
}

#[test]
fn changes_overtake_the_start_up_load() {
    let mut bench = Bench::new();
    for n in 0..1000 {
        bench.upkeep(&format!("old-{n:04}"));
    }
    bench.now += ms(5);
    bench.change("new");
    assert_eq!(bench.run().unwrap().key, key("new"));
    assert_eq!(bench.run().unwrap().key, key("old-0000"), "then in the order of arrival");
    assert_eq!(bench.run().unwrap().key, key("old-0001"));
}

#[test]
fn the_last_of_many_new_registries_does_not_wait_for_what_the_first_ones_echo() {
    let mut bench = Bench::new();
    for n in 0..100 {
        bench.manifest(&format!("new-{n:03}"));
    }
    let mut passes = 0;
    loop {
        let grant = bench.run().unwrap();
        passes += 1;
        if grant.key == key("new-099") {
            break;
        }
        bench.finish(&grant.key.name, SETTLED);
        bench.change(&grant.key.name);
        bench.now += ms(50);
    }
    assert_eq!(passes, 100 + 100 / 20, "one in twenty for what is less urgent");
}

#[test]
fn a_flood_of_changes_leaves_every_twentieth_pass_to_upkeep() {
    let mut bench = Bench::new();
    for n in 0..100 {
        bench.upkeep(&format!("old-{n:03}"));
        bench.change(&format!("new-{n:03}"));
    }
    let order: Vec<Urgency> = (0..40).map(|_| bench.run().unwrap().urgency).collect();
    for twenty in order.chunks(20) {
        assert_eq!(twenty.iter().filter(|urgency| **urgency == Urgency::Upkeep).count(), 1, "{order:?}");
    }
}

#[test]
fn a_registry_that_is_gone_leaves_nothing_behind() {
    let mut bench = Bench::new();
    bench.change("a");
    bench.run().unwrap();
    assert_eq!(bench.finish("a", End::Done { after: None }), None);
    assert!(bench.state.entries.is_empty());
    assert_eq!(bench.state.next(bench.now), Next::Idle);
}

#[test]
fn a_pass_that_wants_to_be_called_at_once_still_rests() {
    let mut bench = Bench::new();
    bench.change("a");
    bench.run().unwrap();
    assert_eq!(bench.finish("a", End::Done { after: Some(Duration::ZERO) }), Some(ms(30)));
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8, Urgency, u64),
    Run,
    Finish(u8, End),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let urgency = || prop_oneof![Just(Urgency::Manifest), Just(Urgency::Change), Just(Urgency::Upkeep)];
    let end = prop_oneof![
        Just(End::Done { after: None }),
        (0_u64..5000).prop_map(|after| End::Done { after: Some(ms(after)) }),
        Just(End::Failed(Class::Transient)),
        Just(End::Failed(Class::Blocked)),
        Just(End::Failed(Class::InTheWay)),
        Just(End::Failed(Class::Bug)),
    ];
    prop_oneof![
        4 => (0_u8..6, urgency(), prop_oneof![Just(0_u64), 1..20_000_u64]).prop_map(|(k, u, d)| Step::Add(k, u, d)),
        4 => Just(Step::Run),
        3 => (any::<u8>(), end).prop_map(|(k, end)| Step::Finish(k, end)),
        2 => (0_u64..40_000).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens in whatever order: no key runs twice at once, no wish is forgotten, nothing runs before its
    /// time, and what is left when all is over is nothing.
    #[test]
    fn no_key_runs_twice_and_no_wish_is_lost(steps in prop::collection::vec(step(), 1..120)) {
        let mut bench = Bench::new();
        let mut running = BTreeSet::new();
        // Keys that were wished for since their last pass began, with the earliest wish.
        let mut wished: BTreeMap<Key, Instant> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Add(n, urgency, delay) => {
                    let (key, due) = (key(&n.to_string()), bench.now + ms(delay));
                    bench.state.add(&key, urgency, due, bench.now);
                    wished.entry(key).and_modify(|wish| *wish = due.min(*wish)).or_insert(due);
                }
                Step::Run => {
                    if let Some(grant) = bench.run() {
                        let wish = wished.remove(&grant.key);
                        prop_assert!(wish.is_some_and(|wish| wish <= bench.now), "{:?} ran early or unasked", grant);
                        prop_assert!(running.insert(grant.key.clone()), "{} ran twice at once", grant.key);
                    }
                }
                Step::Finish(n, end) => {
                    let Some(key) = running.iter().nth(usize::from(n) % running.len().max(1)).cloned() else { continue };
                    running.remove(&key);
                    if let Some(next) = bench.state.finish(&key, end, bench.now) {
                        let due = bench.now + next;
                        wished.entry(key).and_modify(|wish| *wish = due.min(*wish)).or_insert(due);
                    }
                }
                Step::Pass(millis) => bench.now += ms(millis),
            }
            let depth = bench.state.depth(bench.now);
            prop_assert_eq!(depth.running, running.len());
        }

        for key in std::mem::take(&mut running) {
            if let Some(next) = bench.state.finish(&key, End::Done { after: None }, bench.now) {
                wished.entry(key).or_insert(bench.now + next);
            }
        }
        let mut served = BTreeSet::new();
        bench.now += Duration::from_secs(3600);
        while let Some(grant) = bench.run() {
            bench.finish(&grant.key.name.clone(), End::Done { after: None });
            served.insert(grant.key);
        }
        prop_assert_eq!(&served, &wished.keys().cloned().collect::<BTreeSet<_>>());
        prop_assert!(bench.state.entries.is_empty());
        prop_assert_eq!(bench.state.next(bench.now), Next::Idle);
    }

    /// However much more urgent work keeps coming, who is due gets its pass: of twenty-one passes each urgency has one.
    #[test]
    fn nothing_is_starved(place in 1_usize..20, manifests in 0_usize..8, changes in 1_usize..8) {
        let mut bench = Bench::new();
        for n in 0..place {
            bench.upkeep(&format!("old-{n}"));
        }
        bench.change("changed");
        let last = key(&format!("old-{}", place - 1));
        let mut passes = Vec::new();
        while passes.len() < place * 21 {
            (0..manifests).for_each(|n| bench.manifest(&format!("new-{n}")));
            (0..changes).for_each(|n| bench.change(&format!("busy-{n}")));
            let grant = bench.run().unwrap();
            bench.finish(&grant.key.name, End::Done { after: None });
            bench.now += ms(50);
            passes.push(grant.key);
        }
        prop_assert!(passes.contains(&last), "{} never ran: {:?}", last, passes);
        prop_assert!(passes[..21].contains(&key("changed")), "{:?}", passes);
    }
}
