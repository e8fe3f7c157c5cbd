//! A seeded load: episodes of many targets that open, grow and close, and what each notification changes.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bridge::{notification_of_group, pending_pod, resolved, try_post};
use super::ledger::Ledger;
use super::replay::Change;

/// Time within which each notification must be accepted.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(60);

/// URL of the webhook; `None` while the bridge is down.
pub(crate) type Address = watch::Receiver<Option<String>>;

/// The alerts of one sender and the changes that it has sent.
struct Load {
    name: String,
    rng: fastrand::Rng,
    targets: Vec<Target>,
    /// The number of notifications.
    sent: usize,
    ledger: Ledger,
}

struct Target {
    name: String,
    open: Vec<Value>,
    pods: usize,
}

/// Senders that are at work until they are stopped, so that a test interferes with a load however fast it is.
pub(crate) struct Senders {
    tasks: Vec<JoinHandle<Ledger>>,
    answered: watch::Receiver<usize>,
    stop: CancellationToken,
}

impl Senders {
    /// Starts several senders. Each has its own targets and retries a notification until it is accepted before it
    /// sends the next one.
    pub(crate) fn start(seed: u64, to: &Address) -> Self {
        Self::start_with(seed, |load, stop, answers| tokio::spawn(load.send(stop, to.clone(), answers)))
    }

    /// Starts twins: each notification is sent twice at the same time, and those about other targets in another order.
    pub(crate) fn start_twins(seed: u64, to: &Address) -> Self {
        Self::start_with(seed, |load, stop, answers| tokio::spawn(load.send_twice(stop, to.clone(), answers)))
    }

    fn start_with(
        seed: u64,
        start: impl Fn(Load, CancellationToken, watch::Sender<usize>) -> JoinHandle<Ledger>,
    ) -> Self {
        const SENDERS: usize = 4;
        let (answers, answered) = watch::channel(0);
        let stop = CancellationToken::new();
        let load = |sender| Load::new(seed, &format!("s{sender}"), 10);
        let tasks = (0..SENDERS).map(|sender| start(load(sender), stop.clone(), answers.clone())).collect();
        Self { tasks, answered, stop }
    }

    /// The number of accepted notifications.
    pub(crate) fn answered(&self) -> usize {
        *self.answered.borrow()
    }

    /// Waits until this many more notifications are accepted.
    pub(crate) async fn wait_answered(&mut self, more: usize) {
        let threshold = self.answered() + more;
        let waiting = self.answered.wait_for(|count| *count >= threshold);
        let reached = tokio::time::timeout(ACCEPT_TIMEOUT, waiting).await;
        reached.expect("answers in time").expect("running senders");
    }

    /// Ends the load when each sender's last notification is accepted. Returns what was sent.
    pub(crate) async fn stop(self) -> Ledger {
        self.stop.cancel();
        let mut all = Ledger::default();
        for task in self.tasks {
            all.merge(task.await.expect("a sender"));
        }
        all
    }
}

/// An address that does not change.
pub(crate) fn constant_address(url: String) -> Address {
    watch::channel(Some(url)).1
}

impl Load {
    fn new(seed: u64, name: &str, targets: usize) -> Self {
        // Each sender has its own random sequence.
        let salt = name.bytes().fold(seed, |salt, byte| salt.wrapping_mul(31).wrapping_add(byte.into()));
        let target = |at| Target { name: format!("{name}-{at}"), open: Vec::new(), pods: 0 };
        Self {
            name: name.to_owned(),
            rng: fastrand::Rng::with_seed(salt),
            targets: (0..targets).map(target).collect(),
            sent: 0,
            ledger: Ledger::default(),
        }
    }

    async fn send(
        mut self,
        stop: CancellationToken,
        mut to: Address,
        answered: watch::Sender<usize>,
    ) -> Ledger {
        while !stop.is_cancelled() {
            let body = self.next();
            post_until_accepted(&body, &mut to).await;
            answered.send_modify(|count| *count += 1);
            if self.rng.u8(..) < 20 {
                // A repeated notification, as Alertmanager sends after `repeat_interval`.
                post_until_accepted(&body, &mut to).await;
            }
        }
        self.ledger
    }

    async fn send_twice(
        mut self,
        stop: CancellationToken,
        to: Address,
        answered: watch::Sender<usize>,
    ) -> Ledger {
        /// About other targets, so that their order does not matter.
        const NOTIFICATIONS: usize = 3;
        while !stop.is_cancelled() {
            let mut others: Vec<usize> = (0..self.targets.len()).collect();
            let mut bodies: Vec<String> = (0..NOTIFICATIONS).map(|_| self.next_about(&mut others)).collect();
            let (mut one, mut other) = (to.clone(), to.clone());
            let first = post_all(bodies.clone(), &mut one);
            self.rng.shuffle(&mut bodies);
            tokio::join!(first, post_all(bodies, &mut other));
            answered.send_modify(|count| *count += NOTIFICATIONS);
        }
        self.ledger
    }

    /// The next notification, about one to three targets.
    fn next(&mut self) -> String {
        self.next_about(&mut (0..self.targets.len()).collect())
    }

    /// The next notification, about one to three of these targets, which are removed.
    fn next_about(&mut self, targets: &mut Vec<usize>) -> String {
        self.rng.shuffle(targets);
        let mut chosen = std::mem::take(targets);
        *targets = chosen.split_off(self.rng.usize(1..=3));
        let key = format!("{}:{{}}:{}", self.name, self.sent);
        self.sent += 1;
        let mut alerts = Vec::new();
        for at in chosen {
            let target = &mut self.targets[at];
            let (of_target, change) = target.change(&mut self.rng);
            alerts.extend(of_target);
            self.ledger.record(&target.name, &key, change);
        }
        notification_of_group(&key, &alerts)
    }
}

impl Target {
    /// The next alerts of the target, and what they change.
    fn change(&mut self, rng: &mut fastrand::Rng) -> (Vec<Value>, Change) {
        match rng.u8(..10) {
            // All alerts resolve.
            0..3 if !self.open.is_empty() => {
                let ends: Vec<Value> = self.open.drain(..).map(|alert| resolved(&alert)).collect();
                let resolved = ends.len();
                (ends, Change::Close { resolved })
            }
            // One alert resolves, the others fire.
            3..5 if self.open.len() > 1 => {
                let end = resolved(&self.open.remove(rng.usize(..self.open.len())));
                let alerts = self.open.iter().cloned().chain([end]).collect();
                (alerts, Change::Shrink { open: self.open.len() })
            }
            _ => {
                for _ in 0..rng.usize(1..=2) {
                    self.open.push(pending_pod(&self.name, &format!("pod-{}", self.pods)));
                    self.pods += 1;
                }
                (self.open.clone(), Change::Fire { open: self.open.len() })
            }
        }
    }
}

async fn post_all(bodies: Vec<String>, to: &mut Address) {
    for body in bodies {
        post_until_accepted(&body, to).await;
    }
}

/// Retries until the answer is 200, as Alertmanager does.
async fn post_until_accepted(body: &str, to: &mut Address) {
    let deadline = Instant::now() + ACCEPT_TIMEOUT;
    let mut attempts = 0;
    loop {
        let url = to.wait_for(Option::is_some).await.expect("a bridge").clone().expect("an address");
        attempts += 1;
        match try_post(url, &[], body.as_bytes().to_vec()).await {
            Ok(answer) if answer.status == 200 => return,
            Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.body),
            Err(_) => {}
        }
        assert!(Instant::now() < deadline, "no 200 within {ACCEPT_TIMEOUT:?} and {attempts} attempts");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
