//! A stub of an SQS queue that records every accepted message and, until it is healed, injects faults by a
//! seeded schedule. It can be an event bus, a topic or a state machine instead, which take the same events in other calls.
//!
//! It is stricter than the local AWS: what SQS would reject is rejected and recorded as a violation. Its
//! port stays bound, so that no other process can take it while connections are refused.

mod faults;
mod queue;
mod services;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::schema::assert_valid_event;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use self::faults::Schedule;
pub(crate) use self::queue::Sent;
use self::queue::{CallError, Queue};
use self::wire::Connection;
use super::tools::REGION;

/// How a call fails. "Accepted" means that the queue stores the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// No fault: accepted and answered.
    None,
    /// Accepted and answered after a delay.
    Slow,
    /// An error page of a proxy; nothing is accepted.
    Error,
    /// 503 with a throttling error code; nothing is accepted.
    Throttled,
    /// Some entries are rejected, and the answer reports them.
    Partial,
    /// All are accepted, but the answer omits some of them.
    Unmentioned,
    /// All are accepted, and the connection is reset in the middle of the answer.
    LostAnswer,
    /// All are accepted, but never answered. The connection stays open until the caller closes it or the
    /// queue is healed.
    Silence,
    /// All are accepted, but the body of the answer is invalid.
    Garbage,
    /// The connection is reset before the body is read; nothing is accepted.
    Reset,
    /// The connection is reset, and new ones are refused for a while; nothing is accepted.
    Refused,
}

/// What the stub is. A FIFO queue or topic drops messages with a known deduplication id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Standard,
    Fifo,
    /// An event bus of EventBridge.
    Bus,
    /// An SNS topic.
    Topic,
    FifoTopic,
    /// A state machine of Step Functions: a name starts one execution, and is refused once that has ended.
    StateMachine,
}

/// A stub of an SQS queue. It lives as long as the test's runtime.
pub(crate) struct SqsStub {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Bound but never listening: reserves the port.
    _port: TcpSocket,
}

struct Shared {
    kind: Kind,
    queue: Mutex<Queue>,
    schedule: Mutex<Schedule>,
    listening: watch::Sender<bool>,
    healed: watch::Sender<bool>,
}

impl SqsStub {
    /// A queue without faults.
    pub(crate) fn start(kind: Kind) -> Self {
        Self::with_schedule(kind, Schedule::none(), true)
    }

    /// A queue with faults, whose schedule follows from the seed.
    pub(crate) fn faulty(kind: Kind, seed: u64) -> Self {
        Self::with_schedule(kind, Schedule::seeded(seed), true)
    }

    /// [`SqsStub::faulty`] without faults that lose an acknowledgement.
    pub(crate) fn without_lost_answers(kind: Kind, seed: u64) -> Self {
        Self::with_schedule(kind, Schedule::without_lost_answers(seed), true)
    }

    /// A queue that accepts all messages and never answers.
    pub(crate) fn silent(kind: Kind) -> Self {
        Self::with_schedule(kind, Schedule::silent(), true)
    }

    /// A queue that refuses connections.
    pub(crate) fn unreachable(kind: Kind) -> Self {
        Self::with_schedule(kind, Schedule::none(), false)
    }

    fn with_schedule(kind: Kind, schedule: Schedule, listening: bool) -> Self {
        let port = socket((Ipv4Addr::LOCALHOST, 0).into());
        let address = port.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            kind,
            queue: Mutex::new(Queue::new(kind)),
            schedule: Mutex::new(schedule),
            listening: watch::Sender::new(listening),
            healed: watch::Sender::new(false),
        });
        tokio::spawn(listen(Arc::clone(&shared), address));
        Self { shared, address, _port: port }
    }

    /// The settings of a destination with this queue, bus, topic or state machine.
    pub(crate) fn destination(&self) -> String {
        let url = format!("http://{}", self.address);
        let arn =
            |resource: &str| format!("arn:aws:{resource}").replace("HERE", &format!("{REGION}:000000000000"));
        let (kind, address) = match self.shared.kind {
            Kind::Standard => ("sqs", format!("queue_url: \"{url}/000000000000/scaling\"")),
            Kind::Fifo => ("sqs", format!("queue_url: \"{url}/000000000000/scaling.fifo\"")),
            Kind::Bus => ("eventbridge", "bus: scaling".to_owned()),
            Kind::Topic => ("sns", format!("topic_arn: \"{}\"", arn("sns:HERE:scaling"))),
            Kind::FifoTopic => ("sns", format!("topic_arn: \"{}\"", arn("sns:HERE:scaling.fifo"))),
            Kind::StateMachine => {
                let arn = arn("states:HERE:stateMachine:scaling");
                ("step_functions", format!("state_machine_arn: \"{arn}\""))
            }
        };
        format!("{kind}: {{ {address}, endpoint_url: \"{url}\", region: {REGION} }}")
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.shared.schedule().heal();
        self.shared.listening.send_replace(true);
        self.shared.healed.send_replace(true);
    }

    /// Whether every fault of the first round has occurred.
    pub(crate) fn has_met_every_fault(&self) -> bool {
        self.shared.schedule().has_finished_round()
    }

    /// Every accepted message in the order of arrival, including duplicates that it dropped.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.shared.queue().sent()
    }

    /// The events of the messages that are in the queue.
    pub(crate) fn events(&self) -> Vec<Value> {
        let sent = self.sent().into_iter().filter(|sent| !sent.dropped);
        sent.map(|sent| sent.event).inspect(assert_valid_event).collect()
    }

    /// Panics if it has received a call or message that SQS would reject.
    pub(crate) fn assert_no_violations(&self) {
        let violations = self.shared.queue().violations();
        assert!(violations.is_empty(), "SQS would reject: {violations:#?}");
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("the lock is not poisoned")
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().expect("the lock is not poisoned")
    }
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseport(true).expect("a shared port");
    socket.bind(address).expect("a port");
    socket
}

async fn listen(shared: Arc<Shared>, address: SocketAddr) {
    let mut listening = shared.listening.subscribe();
    loop {
        listening.wait_for(|listening| *listening).await.expect("the sender lives as long as this task");
        let listener = socket(address).listen(64).expect("a listener");
        loop {
            let stream = tokio::select! {
                Ok((stream, _)) = listener.accept() => stream,
                _ = listening.wait_for(|listening| !listening) => break,
            };
            tokio::spawn(serve(Arc::clone(&shared), stream));
        }
    }
}

/// Serves one connection until one side closes it.
async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let mut listening = shared.listening.subscribe();
    let mut connection = Connection::new(stream);
    loop {
        let head = tokio::select! {
            Ok(head) = connection.head() => head,
            _ = listening.wait_for(|listening| !listening) => return connection.reset(),
            else => return,
        };
        let fault = shared.schedule().next_fault();
        if fault == Fault::Reset {
            return connection.reset();
        }
        if fault == Fault::Refused {
            refuse_connections(&shared);
            return connection.reset();
        }
        let Ok(body) = connection.body(&head).await else { return };
        let answered = answer(&shared, connection, fault, &head.operation, &body).await;
        let Some(open_connection) = answered else { return };
        connection = open_connection;
    }
}

/// Handles a call with its fault. Returns the connection if it stays open.
async fn answer(
    shared: &Shared,
    mut connection: Connection,
    fault: Fault,
    operation: &str,
    body: &[u8],
) -> Option<Connection> {
    let mut rng = shared.schedule().fork_rng();
    match fault {
        Fault::Error => {
            let status = *rng.choice(&[500, 502, 503, 504, 403, 404]).expect("a choice");
            let page = if rng.bool() { "<html>the proxy cannot</html>" } else { "" };
            connection.answer(status, None, page).await.ok()?;
            return Some(connection);
        }
        Fault::Throttled => {
            let code = if rng.bool() { "ThrottlingException" } else { "RequestThrottled" };
            services::send_error(shared.kind, &mut connection, 503, code).await.ok()?;
            return Some(connection);
        }
        _ => {}
    }
    let result = match services::as_sent_messages(shared.kind, operation, body) {
        Some(call) => shared.queue().handle(&call, fault, &mut rng),
        None => shared.queue().reject("InvalidAction", operation),
    };
    let result = result.map_err(|CallError { code }| code.to_owned());
    let result = result.and_then(|(count, answer)| services::answer(shared.kind, count, &answer));
    let text = match result {
        Err(code) => {
            services::send_error(shared.kind, &mut connection, 400, &code).await.ok()?;
            return Some(connection);
        }
        Ok(text) => text,
    };
    match fault {
        Fault::Slow => tokio::time::sleep(Duration::from_millis(rng.u64(20..200))).await,
        Fault::LostAnswer => {
            connection.answer_half(&text).await.ok()?;
            tokio::time::sleep(Duration::from_millis(rng.u64(0..50))).await;
            connection.reset();
            return None;
        }
        Fault::Silence => {
            let mut healed = shared.healed.subscribe();
            tokio::select! {
                () = connection.wait_closed() => {}
                _ = healed.wait_for(|healed| *healed) => {}
            }
            return None;
        }
        Fault::Garbage => {
            let bodies = ["", "{}", "null", "<html>welcome</html>", "{\"Successful\":[{\"Id\":\"0\""];
            connection.answer(200, None, rng.choice(&bodies).expect("a choice")).await.ok()?;
            return Some(connection);
        }
        _ => {}
    }
    connection.answer(200, None, &text).await.ok()?;
    Some(connection)
}

fn refuse_connections(shared: &Arc<Shared>) {
    let pause = Duration::from_millis(shared.schedule().fork_rng().u64(50..300));
    shared.listening.send_replace(false);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        shared.listening.send_replace(true);
    });
}
