//! Several candidates over one simulated API server, in paused time: whatever is cut, delayed or frozen, never two may write.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;

/// The API server's side: one record with a version, and a network that can be cut or slow.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<Server>>);

#[derive(Default)]
struct Server {
    record: Option<Record>,
    version: u64,
    writes: u64,
    /// What the server makes of the times it is given.
    skew: Option<Timestamp>,
}

#[derive(Clone)]
struct Link {
    cluster: Cluster,
    network: watch::Receiver<Network>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Network {
    cut: bool,
    /// Requests arrive, answers don't.
    deaf: bool,
    one_way: Duration,
}

impl Link {
    /// Carries a request to the server, runs it there even if nobody waits any more, and carries the answer back.
    async fn call<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut Server) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let network = *self.network.borrow();
        if network.cut {
            std::future::pending::<()>().await;
        }
        let server = Arc::clone(&self.cluster.0);
        let answer = tokio::spawn(async move {
            sleep(network.one_way).await;
            request(&mut server.lock().unwrap())
        });
        let answer = answer.await.unwrap();
        sleep(network.one_way).await;
        if network.deaf {
            std::future::pending::<()>().await;
        }
        answer
    }
}

impl LeaseStore for Link {
    type Version = u64;

    async fn read(&self) -> Result<Option<(Record, u64)>, StoreError> {
        self.call(|server| {
            let skewed = |record: Record| Record { renewed: server.skew.or(record.renewed), ..record };
            Ok(server.record.clone().map(|record| (skewed(record), server.version)))
        })
        .await
    }

    async fn create(&self, record: &Record) -> Result<u64, StoreError> {
        let record = record.clone();
        self.call(
            move |server| if server.record.is_some() { Err(StoreError::Conflict) } else { Ok(server.put(record)) },
        )
        .await
    }

    async fn replace(&self, record: &Record, version: &u64) -> Result<u64, StoreError> {
        let (record, version) = (record.clone(), *version);
        self.call(move |server| {
            let same = server.record.is_some() && server.version == version;
            if same { Ok(server.put(record)) } else { Err(StoreError::Conflict) }
        })
        .await
    }
}

impl Server {
    fn put(&mut self, record: Record) -> u64 {
        self.record = Some(record);
        self.version += 1;
        self.writes += 1;
        self.version
    }
}

/// A process that takes part: it acquires, keeps, and ends with the reason why it lost.
struct Process {
    fence: Fence,
    network: watch::Sender<Network>,
    frozen: watch::Sender<bool>,
    standings: Arc<Mutex<Vec<Standing>>>,
    task: JoinHandle<Lost>,
}

impl Process {
    fn start(cluster: &Cluster, name: &str) -> Self {
        let fence = Fence::shut();
        let network = watch::Sender::new(Network { one_way: Duration::from_millis(5), ..Network::default() });
        let frozen = watch::Sender::new(false);
        let standings = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&standings);
        let link = Link { cluster: cluster.clone(), network: network.subscribe() };
        let timing = LeaderSettings::default().timing().unwrap();
        let mut elector = Elector::new(link, name.to_owned(), timing, fence.clone(), move |standing: &Standing| {
            seen.lock().unwrap().push(standing.clone());
        });
        let life = async move {
            elector.acquire().await;
            elector.keep().await
        };
        let task = tokio::spawn(freezable(frozen.subscribe(), life));
        Self { fence, network, frozen, standings, task }
    }

    fn set_network(&self, change: impl FnOnce(&mut Network)) {
        self.network.send_modify(change);
    }

    /// What SIGKILL does.
    fn kill(self) {
        self.task.abort();
    }

    async fn leads_after(&self, limit: Duration) -> Duration {
        let started = Instant::now();
        while !self.fence.allows() {
            assert!(started.elapsed() < limit, "does not lead after {limit:?}; {:?}", self.standings.lock().unwrap());
            sleep(Duration::from_millis(10)).await;
        }
        started.elapsed()
    }
}

/// What SIGSTOP and SIGCONT do to `life`: while frozen it is not polled, and time goes on.
async fn freezable<T>(mut frozen: watch::Receiver<bool>, life: impl Future<Output = T>) -> T {
    let mut life = std::pin::pin!(life);
    loop {
        let stopped = *frozen.borrow_and_update();
        tokio::select! {
            biased;
            Ok(()) = frozen.changed() => {}
            end = &mut life, if !stopped => return end,
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn held_by(holder: &str) -> Record {
    Record { holder: holder.to_owned(), duration: 15 * SECOND, acquired: None, renewed: None, transitions: 4 }
}

#[tokio::test(start_paused = true)]
async fn a_candidate_judges_by_what_it_saw_itself() {
    let start = Instant::now();
    let wait = |since: Duration| Action::Wait { leader: "b".into(), expires: start + since + 15 * SECOND };
    let mut candidate = Candidate::new("a".into());

    assert_eq!(candidate.observe(None, start), Action::Claim, "there is none");
    assert_eq!(candidate.observe(Some(&held_by("")), start), Action::Claim, "released");
    assert_eq!(candidate.observe(Some(&held_by("a")), start), Action::Claim, "ours");

    assert_eq!(candidate.observe(Some(&held_by("b")), start), wait(Duration::ZERO));
    assert_eq!(
        candidate.observe(Some(&held_by("b")), start + 14 * SECOND),
        wait(Duration::ZERO),
        "unchanged: still counting"
    );
    let renewed = Record { renewed: Some(Timestamp::UNIX_EPOCH), ..held_by("b") };
    assert_eq!(candidate.observe(Some(&renewed), start + 14 * SECOND), wait(14 * SECOND), "changed: counting anew");
    assert_eq!(candidate.observe(Some(&renewed), start + 28 * SECOND), wait(14 * SECOND));
    assert_eq!(candidate.observe(Some(&renewed), start + 29 * SECOND), Action::Claim, "silent for its duration");
}

#[test]
fn a_claim_tells_people_since_when_and_how_often() {
    let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(9).unwrap());
    let candidate = Candidate::new("a".into());
    let first = candidate.claim(None, 15 * SECOND, early);
    assert_eq!((first.transitions, first.acquired, first.renewed), (0, Some(early), Some(early)));
    let renewed = candidate.claim(Some(&first), 15 * SECOND, late);
    assert_eq!((renewed.transitions, renewed.acquired, renewed.renewed), (0, Some(early), Some(late)));
    let taken = candidate.claim(Some(&held_by("b")), 15 * SECOND, late);
    assert_eq!((taken.transitions, taken.acquired), (5, Some(late)));
}

#[test]
fn times_that_contradict_each_other_are_refused() {
    let with = |lease, deadline, retry| {
        let seconds = Duration::from_secs_f64;
        LeaderSettings {
            lease_duration: seconds(lease),
            lease_renew_deadline: seconds(deadline),
            lease_retry: seconds(retry),
            ..LeaderSettings::default()
        }
        .timing()
    };
    assert!(with(15.0, 10.0, 2.0).is_ok());
    assert!(with(3.0, 2.0, 0.5).is_ok());
    assert_eq!(with(10.0, 10.0, 2.0), Err(TimingError::NoMargin));
    assert_eq!(with(10.0, 9.5, 2.0), Err(TimingError::NoMargin));
    assert_eq!(with(15.5, 10.0, 2.0), Err(TimingError::NotWholeSeconds));
    assert_eq!(with(15.0, 10.0, 4.0), Err(TimingError::TooFewTries));
}

#[test]
fn no_two_processes_have_one_name() {
    assert_ne!(identity(), identity());
}

#[tokio::test(start_paused = true)]
async fn the_first_candidate_leads_at_once_and_the_second_stands_by() {
    let cluster = Cluster::default();
    let first = Process::start(&cluster, "first");
    first.leads_after(SECOND).await;
    let second = Process::start(&cluster, "second");
    for _ in 0..300 {
        sleep(SECOND).await;
        assert!(first.fence.allows());
        assert!(!second.fence.allows());
    }
    assert_eq!(*first.standings.lock().unwrap(), [Standing::Leading]);
    assert_eq!(*second.standings.lock().unwrap(), [Standing::Standby { leader: "first".into() }]);
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_followed_within_twenty_seconds() {
    for _ in 0..20 {
        let cluster = Cluster::default();
        let first = Process::start(&cluster, "first");
        first.leads_after(SECOND).await;
        let second = Process::start(&cluster, "second");
        sleep(Duration::from_millis(u64::from(random() % 30_000))).await;
        first.kill();
        let took = second.leads_after(20 * SECOND).await;
        assert!(took > 10 * SECOND, "while the old one might still write: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_the_next_look() {
    let cluster = Cluster::default();
    let link = Link { cluster: cluster.clone(), network: watch::Sender::new(Network::default()).subscribe() };
    let fence = Fence::shut();
    let timing = LeaderSettings::default().timing().unwrap();
    let mut elector = Elector::new(link, "first".into(), timing, fence.clone(), |_: &Standing| {});
    elector.acquire().await;
    let second = Process::start(&cluster, "second");
    sleep(SECOND).await;
    assert!(fence.allows() && !second.fence.allows());

    elector.release().await;
    assert!(!fence.allows());
    second.leads_after(3 * SECOND).await;
    assert_eq!(cluster.0.lock().unwrap().record.as_ref().unwrap().transitions, 1);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_leader_that_thaws_may_not_write_and_ends() {
    let cluster = Cluster::default();
    let first = Process::start(&cluster, "first");
    first.leads_after(SECOND).await;
    let second = Process::start(&cluster, "second");
    first.frozen.send_replace(true);
    second.leads_after(20 * SECOND).await;
    sleep(60 * SECOND).await;

    first.frozen.send_replace(false);
    assert!(!first.fence.allows(), "before it runs a single step");
    let writes = cluster.0.lock().unwrap().writes;
    assert!(matches!(first.task.await.unwrap(), Lost::NotRenewed(_)));
    assert_eq!(cluster.0.lock().unwrap().writes, writes, "it wrote after its deadline");
    assert!(!first.fence.allows() && second.fence.allows());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_frozen_alone_ends_too() {
    let cluster = Cluster::default();
    let only = Process::start(&cluster, "only");
    only.leads_after(SECOND).await;
    only.frozen.send_replace(true);
    sleep(11 * SECOND).await;
    only.frozen.send_replace(false);
    assert!(!only.fence.allows());
    assert!(matches!(only.task.await.unwrap(), Lost::NotRenewed(_)));
}

#[tokio::test(start_paused = true)]
async fn a_cut_off_leader_stops_writing_before_anybody_else_starts() {
    let cluster = Cluster::default();
    let first = Process::start(&cluster, "first");
    first.leads_after(SECOND).await;
    let second = Process::start(&cluster, "second");
    sleep(30 * SECOND).await;

    first.set_network(|network| network.cut = true);
    let cut = Instant::now();
    let lost = first.task.await.unwrap();
    assert!(matches!(lost, Lost::NotRenewed(_)), "{lost}");
    assert!(!first.fence.allows());
    assert!((7 * SECOND..=10 * SECOND).contains(&cut.elapsed()), "{:?}", cut.elapsed());
    assert!(!second.fence.allows(), "there is a gap");
    second.leads_after(10 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_costs_nothing() {
    let cluster = Cluster::default();
    let only = Process::start(&cluster, "only");
    only.leads_after(SECOND).await;
    for _ in 0..20 {
        sleep(10 * SECOND).await;
        only.set_network(|network| network.cut = true);
        sleep(SECOND).await;
        only.set_network(|network| network.cut = false);
    }
    assert!(only.fence.allows());
    assert_eq!(*only.standings.lock().unwrap(), [Standing::Leading]);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_was_lost_is_recognised_as_ours() {
    let cluster = Cluster::default();
    let only = Process::start(&cluster, "only");
    only.leads_after(SECOND).await;
    only.set_network(|network| network.deaf = true);
    sleep(3 * SECOND).await;
    only.set_network(|network| network.deaf = false);
    sleep(60 * SECOND).await;
    assert!(only.fence.allows() && !only.task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_shortens_our_time_not_the_others() {
    let cluster = Cluster::default();
    let first = Process::start(&cluster, "first");
    first.set_network(|network| network.one_way = Duration::from_millis(2_400));
    first.leads_after(20 * SECOND).await;
    let read_and_written = Instant::now();
    first.set_network(|network| network.cut = true);
    while first.fence.allows() {
        sleep(Duration::from_millis(10)).await;
    }
    // The deadline counts from the start of the write, 4.8 s before its answer.
    assert!(read_and_written.elapsed() < Duration::from_millis(5_300), "{:?}", read_and_written.elapsed());
}

#[tokio::test(start_paused = true)]
async fn clocks_do_not_matter() {
    for skew in ["1970-01-01T00:00:00Z", "2199-01-01T00:00:00Z"] {
        let cluster = Cluster::default();
        let first = Process::start(&cluster, "first");
        first.leads_after(SECOND).await;
        // A second candidate, for which the leader's clock seems decades off, and which sees it stand still.
        let second = Process::start(&cluster, "second");
        sleep(60 * SECOND).await;
        assert!(!second.fence.allows());
        first.kill();
        cluster.0.lock().unwrap().skew = Some(skew.parse().unwrap());
        let took = second.leads_after(20 * SECOND).await;
        assert!(took > 10 * SECOND, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_ends_the_leader() {
    let cluster = Cluster::default();
    let first = Process::start(&cluster, "first");
    first.leads_after(SECOND).await;
    cluster.0.lock().unwrap().record = None;
    assert_eq!(first.task.await.unwrap(), Lost::Deleted);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_lease_is_reported_and_tried_again() {
    let cluster = Cluster::default();
    let only = Process::start(&cluster, "only");
    only.set_network(|network| network.cut = true);
    sleep(20 * SECOND).await;
    assert_eq!(*only.standings.lock().unwrap(), [Standing::Unreachable("no answer within 5 s".into())]);
    only.set_network(|network| network.cut = false);
    only.leads_after(10 * SECOND).await;
}

/// Numbers that look random and can be had again from their seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_long_bad_day_there_are_never_two_and_mostly_one() {
    for seed in 0..6 {
        let mut dice = Dice(seed);
        let cluster = Cluster::default();
        let mut born = 0;
        let mut spawn = || {
            born += 1;
            Process::start(&cluster, &format!("p{born}"))
        };
        let mut processes: Vec<Process> = (0..3).map(|_| spawn()).collect();
        let (mut led, mut looks) = (0, 0);
        for _ in 0..300 {
            let index = usize::try_from(dice.below(3)).unwrap();
            let process = &processes[index];
            match dice.below(12) {
                0 => process.set_network(|network| network.cut ^= true),
                1 => process.set_network(|network| network.deaf ^= true),
                2 => process.frozen.send_modify(|frozen| *frozen ^= true),
                3 => process.set_network(|network| network.one_way = Duration::from_millis(dice.below(4_000))),
                4 => {
                    let old = std::mem::replace(&mut processes[index], spawn());
                    old.kill();
                }
                _ => processes.iter().for_each(|process| {
                    process.network.send_replace(Network { one_way: Duration::from_millis(5), ..Network::default() });
                    process.frozen.send_replace(false);
                }),
            }
            for process in &mut processes {
                if process.task.is_finished() {
                    *process = spawn();
                }
            }
            for _ in 0..dice.below(50) {
                sleep(Duration::from_millis(250)).await;
                let leaders = processes.iter().filter(|process| process.fence.allows()).count();
                assert!(leaders <= 1, "seed {seed}: {leaders} leaders");
                led += leaders;
                looks += 1;
            }
        }
        assert!(led * 2 > looks, "seed {seed}: led in {led} of {looks} looks");
    }
}
