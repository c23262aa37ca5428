use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::*;
use crate::process::health::Health;
use crate::work::queue::{Key, Urgency};

fn key(name: &str) -> Key {
    Key::new("registries", name)
}

const SETTLED: End = End::Done { after: Some(Duration::from_secs(600)) };

/// Runs the workers in the background. Dropping the sender stops them.
struct Running {
    queue: Queue,
    finished: Arc<Mutex<Vec<Finished>>>,
    stop: oneshot::Sender<()>,
    workers: tokio::task::JoinHandle<Drained>,
}

impl Running {
    fn start<Handler, Pass>(limits: Limits, handler: Handler) -> Self
    where
        Handler: Fn(Grant) -> Pass + Send + Sync + 'static,
        Pass: Future<Output = End> + Send + 'static,
    {
        let queue = Queue::default();
        let finished: Arc<Mutex<Vec<Finished>>> = Arc::default();
        let (stop, stopped) = oneshot::channel();
        let workers = tokio::spawn({
            let (queue, finished) = (queue.clone(), finished.clone());
            async move {
                let shutdown = async {
                    stopped.await.ok();
                };
                let observe = move |pass: &Finished| finished.lock().unwrap().push(pass.clone());
                run_workers(&queue, limits, shutdown, handler, observe).await
            }
        });
        Self { queue, finished, stop, workers }
    }

    fn outcomes(&self, name: &str) -> Vec<Outcome> {
        let finished = self.finished.lock().unwrap();
        finished.iter().filter(|pass| pass.grant.key == key(name)).map(|pass| pass.outcome).collect()
    }

    async fn stop(self) -> Drained {
        drop(self.stop);
        self.workers.await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_leaves_the_others_going_and_comes_back_late() {
    let running = Running::start(Limits { concurrency: 1, ..Limits::default() }, |grant: Grant| {
        assert!(&*grant.key.name != "before-the-first-await", "boom");
        async move {
            sleep(Duration::from_millis(1)).await;
            assert!(&*grant.key.name != "broken", "boom");
            SETTLED
        }
    });
    for name in ["broken", "before-the-first-await", "sound"] {
        running.queue.add(&key(name), Urgency::Change);
    }
    sleep(Duration::from_secs(120)).await;
    assert_eq!(running.outcomes("broken"), [Outcome::Panicked]);
    assert_eq!(running.outcomes("before-the-first-await"), [Outcome::Panicked]);
    assert_eq!(running.outcomes("sound"), [Outcome::Done]);
    assert_eq!(running.queue.depth().failing, 2);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(running.outcomes("broken").len(), 2, "tried again after the long wait");
    assert_eq!(running.stop().await, Drained { finished: 0, dropped: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_hangs_ends_after_thirty_seconds_and_is_tried_again() {
    let running = Running::start(Limits { concurrency: 2, ..Limits::default() }, |grant: Grant| async move {
        if &*grant.key.name == "hangs" && grant.failures == 0 {
            std::future::pending::<()>().await;
        }
        SETTLED
    });
    running.queue.add(&key("hangs"), Urgency::Change);
    running.queue.add(&key("sound"), Urgency::Change);
    sleep(Duration::from_secs(29)).await;
    assert_eq!(running.outcomes("sound"), [Outcome::Done]);
    assert_eq!(running.outcomes("hangs"), []);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(running.outcomes("hangs"), [Outcome::TimedOut, Outcome::Done]);
}

#[tokio::test(start_paused = true)]
async fn at_most_so_many_passes_run_at_once_and_all_get_their_turn() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let running = Running::start(Limits { concurrency: 8, ..Limits::default() }, {
        let (now, most) = (now.clone(), most.clone());
        move |_| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                SETTLED
            }
        }
    });
    for n in 0..100 {
        running.queue.add(&key(&format!("r{n:03}")), Urgency::Upkeep);
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(most.load(Ordering::SeqCst), 8);
    assert_eq!(running.finished.lock().unwrap().len(), 100);
    assert_eq!(running.queue.depth().later, 100, "each waits for its resync");
}

#[tokio::test(start_paused = true)]
async fn an_event_during_a_pass_is_not_lost() {
    let running = Running::start(Limits::default(), |_| async {
        sleep(Duration::from_secs(1)).await;
        SETTLED
    });
    running.queue.add(&key("a"), Urgency::Change);
    sleep(Duration::from_millis(500)).await;
    running.queue.add(&key("a"), Urgency::Change);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(running.outcomes("a"), [Outcome::Done, Outcome::Done]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_takes_no_more_and_waits_for_what_runs_but_not_for_ever() {
    let limits = Limits { concurrency: 2, drain: Duration::from_secs(10), ..Limits::default() };
    let running = Running::start(limits, |grant: Grant| async move {
        sleep(Duration::from_secs(if &*grant.key.name == "slow" { 29 } else { 3 })).await;
        SETTLED
    });
    let (queue, finished) = (running.queue.clone(), running.finished.clone());
    for name in ["slow", "quick", "waiting"] {
        queue.add(&key(name), Urgency::Change);
    }
    sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    assert_eq!(running.stop().await, Drained { finished: 1, dropped: 1 });
    assert_eq!(started.elapsed(), Duration::from_secs(10));
    let finished: Vec<_> = finished.lock().unwrap().iter().map(|pass| pass.grant.key.name.clone()).collect();
    assert_eq!(finished, ["quick".into()]);
    assert_eq!(queue.depth().due, 1, "nothing was taken after shutdown");
}

#[tokio::test(start_paused = true)]
async fn a_permit_dropped_without_a_word_counts_as_a_bug() {
    let queue = Queue::default();
    queue.add(&key("a"), Urgency::Change);
    drop(queue.next().await);
    assert_eq!(queue.depth().failing, 1);
    let dropped = Instant::now();
    let permit = queue.next().await;
    assert!(dropped.elapsed() > Duration::from_secs(200));
    assert_eq!(permit.grant().failures, 1);
    permit.end(End::Done { after: None });
    assert_eq!(queue.depth(), crate::work::queue::Depth::default());
}

#[tokio::test(start_paused = true)]
async fn several_waiters_each_get_a_key() {
    let queue = Queue::default();
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.next().await.key().clone() })
        })
        .collect();
    sleep(Duration::from_millis(1)).await;
    for n in 0..4 {
        queue.add(&key(&n.to_string()), Urgency::Change);
    }
    let mut keys = Vec::new();
    for waiter in waiters {
        keys.push(tokio::time::timeout(Duration::from_secs(1), waiter).await.unwrap().unwrap());
    }
    keys.sort();
    assert_eq!(keys, ["0", "1", "2", "3"].map(key));
}

/// What liveness is told: once a second, until when all was well.
#[tokio::test(start_paused = true)]
async fn a_pass_that_never_ends_fails_liveness_and_a_quiet_cluster_does_not() {
    let health = Health::default();
    let passing = health.heartbeat("passes", Duration::from_secs(300));
    let queue = Queue::default();
    let watched = queue.clone();
    let _looking = AbortOnDropHandle(tokio::spawn(async move {
        loop {
            passing.alive_at(watched.well_until());
            sleep(Duration::from_secs(1)).await;
        }
    }));
    let limits = Limits { pass: Duration::from_secs(86_400), concurrency: 1, ..Limits::default() };
    let stuck = |grant: Grant| async move {
        if &*grant.key.name == "stuck" {
            std::future::pending::<()>().await;
        }
        End::Done { after: Some(Duration::from_secs(600)) }
    };
    let workers = queue.clone();
    let _working = AbortOnDropHandle(tokio::spawn(async move {
        run_workers(&workers, limits, std::future::pending(), stuck, |_| ()).await
    }));

    queue.add(&key("sound"), Urgency::Change);
    sleep(Duration::from_secs(3600)).await;
    assert!(health.liveness().ok, "{}", health.liveness().text);
    queue.add(&key("stuck"), Urgency::Change);
    sleep(Duration::from_secs(290)).await;
    assert!(health.liveness().ok, "{}", health.liveness().text);
    sleep(Duration::from_secs(20)).await;
    assert!(!health.liveness().ok, "{}", health.liveness().text);
}

struct AbortOnDropHandle<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDropHandle<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
