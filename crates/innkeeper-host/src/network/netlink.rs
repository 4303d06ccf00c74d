//! Talking to the kernel's routing subsystem (rtnetlink(7)).
//!
//! Requests travel in batches: one datagram holds several requests, the kernel carries them out in order
//! while it takes the datagram, and answers each. Every connection is driven on one thread that does
//! nothing else, because the kernel works inside our call of `sendmsg`: removing an interface waits
//! there for a grace period, and all changes wait for the kernel's one lock. A thread of the daemon's
//! runtime must not wait that long, and more threads of ours would only queue for the same lock.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use futures_util::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::proto::{self, ConnectionHandle};
use rtnetlink::sys::{SocketAddr, protocols::NETLINK_ROUTE};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// One thing to ask of the kernel.
#[derive(Debug)]
pub(super) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Request {
    /// Asks for something, or for a change of something that is there.
    pub(super) fn new(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: 0 }
    }

    /// Asks for something to be made; refused with `EEXIST` when it is there.
    pub(super) fn create(message: RouteNetlinkMessage) -> Self {
        Self {
            message,
            flags: NLM_F_CREATE | NLM_F_EXCL,
        }
    }
}

/// What the kernel says to one request: what it was asked for, if anything, or why not.
pub(super) type Answer = Result<Option<RouteNetlinkMessage>, io::Error>;

/// The thread that drives the connections, and the connection to the namespace that the daemon runs in.
#[derive(Debug, Default)]
pub(super) struct Netlink {
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    driver: Driver,
    home: Connection,
}

/// Ends its thread when it is dropped.
#[derive(Debug)]
struct Driver {
    runtime: runtime::Handle,
    _running: oneshot::Sender<()>,
}

impl Driver {
    fn start() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel::<()>();
        thread::Builder::new()
            .name("netlink".to_owned())
            .spawn(move || {
                // Nothing is ever sent: the receiver ends when the sender is dropped.
                runtime.block_on(ended).unwrap_or_default();
            })?;
        Ok(Self {
            runtime: handle,
            _running: running,
        })
    }
}

impl Netlink {
    /// A connection to the network namespace that the daemon runs in. It is kept, and opened again when
    /// it broke.
    pub(super) fn home(&self) -> io::Result<Connection> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.as_mut() {
            Some(state) if state.home.is_open() => {}
            Some(state) => state.home = Connection::open(&state.driver.runtime)?,
            None => {
                let driver = Driver::start()?;
                let home = Connection::open(&driver.runtime)?;
                *state = Some(State { driver, home });
            }
        }
        state
            .as_ref()
            .map(|state| state.home.clone())
            .ok_or_else(broken)
    }

    #[cfg(test)]
    pub(super) fn break_home(&self) {
        self.home().expect("home").task.0.abort();
    }

    #[cfg(test)]
    pub(super) fn is_home_broken(&self) -> bool {
        !self
            .state
            .lock()
            .expect("lock")
            .as_ref()
            .expect("opened")
            .home
            .is_open()
    }

    /// Asks for a list, on a connection of its own: the kernel refuses a second list on a connection
    /// (`EBUSY`) as long as the first one is not read to its end.
    pub(super) async fn list(
        &self,
        question: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        Connection::open(&self.runtime()?)?.list(question).await
    }

    /// What drives connections that are opened elsewhere.
    pub(super) fn runtime(&self) -> io::Result<runtime::Handle> {
        self.home()?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .as_ref()
            .map(|state| state.driver.runtime.clone())
            .ok_or_else(broken)
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the netlink connection broke")
}

/// A connection to one network namespace. It is closed when the last clone of it is dropped; until then
/// it keeps the namespace alive.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    requests: ConnectionHandle<RouteNetlinkMessage>,
    task: Arc<AbortOnDrop>,
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Opens a connection to the network namespace of the calling thread, driven by `runtime`.
    pub(super) fn open(runtime: &runtime::Handle) -> io::Result<Self> {
        // A socket belongs for good to the namespace of the thread that made it.
        let (mut connection, requests, _) = {
            let _entered = runtime.enter();
            proto::new_connection(NETLINK_ROUTE)?
        };
        // Without this an end of the stream would not tell success from a broken connection.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        let task = Arc::new(AbortOnDrop(runtime.spawn(connection)));
        Ok(Self { requests, task })
    }

    fn is_open(&self) -> bool {
        !self.task.0.is_finished()
    }

    /// Sends the requests in one datagram and returns the answers in the same order. The kernel goes on
    /// after a request that it refused.
    ///
    /// The kernel takes the datagram in one call that a signal does not interrupt, so a daemon that is
    /// killed meanwhile leaves a batch that was tried to its end, or not begun.
    pub(super) async fn batch<const N: usize>(
        &self,
        requests: [Request; N],
    ) -> io::Result<[Answer; N]> {
        let messages = requests.map(|request| message(request, NLM_F_REQUEST | NLM_F_ACK));
        let mut replies = self.send(messages)?;
        let mut answers = [const { None }; N];
        for answer in &mut answers {
            *answer = Some(next_answer(&mut replies).await?);
        }
        Ok(answers.map(|answer| answer.unwrap_or(Ok(None))))
    }

    /// Asks for a list.
    ///
    /// A list that the kernel marks as interrupted by a change is taken as it is: it goes by index, so
    /// whatever was there all the time is in it.
    pub(super) async fn list(
        self,
        question: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let question = message(Request::new(question), NLM_F_REQUEST | NLM_F_DUMP);
        let mut replies = self.send([question])?;
        let mut list = Vec::new();
        while let Some(reply) = replies.next().await {
            match reply.payload {
                NetlinkPayload::InnerMessage(message) => list.push(message),
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                NetlinkPayload::Done(_) => return Ok(list),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => return Err(broken()),
            }
        }
        Err(broken())
    }

    fn send<const N: usize>(
        &self,
        messages: [NetlinkMessage<RouteNetlinkMessage>; N],
    ) -> io::Result<impl futures_util::Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin>
    {
        self.requests
            .request_batch(messages, SocketAddr::new(0, 0))
            .map_err(|_| broken())
    }
}

fn message(request: Request, flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut message = NetlinkMessage::from(request.message);
    message.header.flags = flags | request.flags;
    message
}

async fn next_answer(
    replies: &mut (impl futures_util::Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin),
) -> io::Result<Answer> {
    let mut said = None;
    while let Some(reply) = replies.next().await {
        match reply.payload {
            NetlinkPayload::InnerMessage(message) => said = Some(message),
            NetlinkPayload::Error(error) if error.code.is_none() => return Ok(Ok(said)),
            NetlinkPayload::Error(error) => return Ok(Err(error.to_io())),
            _ => break,
        }
    }
    Err(broken())
}
