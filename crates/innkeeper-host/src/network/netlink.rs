//! Connections to the kernel's routing subsystem (rtnetlink(7)).
//!
//! Requests are sent in batches: one datagram holds several requests, the kernel executes them in order while it receives
//! the datagram, and responds to each. Connections are driven on one dedicated thread, because the kernel works inside
//! `sendmsg`, and all changes wait for the kernel's one lock. A thread of the daemon's runtime must not block that long, and
//! more threads would only queue for the same lock. A removal has a thread of its own ([`Apart`]): most of its time, it waits
//! there for a grace period without that lock.

use std::io;
use std::sync::Arc;
use std::thread;

use futures_util::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use parking_lot::Mutex;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::proto::{self, ConnectionHandle};
use rtnetlink::sys::{SocketAddr, protocols::NETLINK_ROUTE};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A request to the kernel.
#[derive(Debug)]
pub(super) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Request {
    /// A query, or a change of an existing object.
    pub(super) fn new(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: 0 }
    }

    /// A creation; fails with `EEXIST` when the object exists.
    pub(super) fn create(message: RouteNetlinkMessage) -> Self {
        Self {
            message,
            flags: NLM_F_CREATE | NLM_F_EXCL,
        }
    }
}

/// The kernel's response to one request: the object of a query, or the error.
pub(super) type Response = Result<Option<RouteNetlinkMessage>, io::Error>;

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
                // No value is ever sent: the receiver completes when the sender is dropped.
                runtime.block_on(ended).unwrap_or_default();
            })?;
        Ok(Self {
            runtime: handle,
            _running: running,
        })
    }
}

impl Netlink {
    /// Returns the connection to the daemon's network namespace. Opens it again after a failure.
    pub(super) fn home(&self) -> io::Result<Connection> {
        let mut state = self.state.lock();
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
        !self.state.lock().as_ref().expect("opened").home.is_open()
    }

    /// Queries a list on a new connection: the kernel refuses a second list on a connection (`EBUSY`) until the first one is
    /// read to its end.
    pub(super) async fn list(
        &self,
        query: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        Connection::open(&self.runtime()?)?.list(query).await
    }

    /// Returns the runtime for connections that are opened elsewhere.
    pub(super) fn runtime(&self) -> io::Result<runtime::Handle> {
        self.home()?;
        let state = self.state.lock();
        state
            .as_ref()
            .map(|state| state.driver.runtime.clone())
            .ok_or_else(broken)
    }
}

/// A connection with a thread of its own, for one request that the kernel works on for long: others do not wait for it. The
/// kernel completes a request that it has begun although this is dropped.
pub(super) struct Apart {
    connection: Connection,
    // After the connection, which it drives.
    _driver: Driver,
}

impl Apart {
    /// Opens a connection to the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let driver = Driver::start()?;
        Ok(Self {
            connection: Connection::open(&driver.runtime)?,
            _driver: driver,
        })
    }

    /// Returns the connection.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
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
        // A socket belongs to the namespace of the thread that creates it.
        let (mut connection, requests, _) = {
            let _entered = runtime.enter();
            proto::new_connection(NETLINK_ROUTE)?
        };
        // Without this, the end of the stream would not distinguish success from a broken connection.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        let task = Arc::new(AbortOnDrop(runtime.spawn(connection)));
        Ok(Self { requests, task })
    }

    fn is_open(&self) -> bool {
        !self.task.0.is_finished()
    }

    /// Sends the requests in one datagram and returns the responses in the same order. The kernel continues after a refused
    /// request.
    ///
    /// The kernel processes the datagram in one call that a signal does not interrupt, so a daemon that is killed
    /// meanwhile leaves a batch that ran to its end, or did not start.
    pub(super) async fn batch<const N: usize>(
        &self,
        requests: [Request; N],
    ) -> io::Result<[Response; N]> {
        let messages = requests.map(|request| message(request, NLM_F_REQUEST | NLM_F_ACK));
        let mut replies = self.send(messages)?;
        let mut responses = [const { None }; N];
        for response in &mut responses {
            *response = Some(next_response(&mut replies).await?);
        }
        Ok(responses.map(|response| response.unwrap_or(Ok(None))))
    }

    /// Queries a list.
    ///
    /// A list that the kernel marks as interrupted by a change is accepted: it is in the order of indexes, so objects that
    /// existed all the time are in it.
    pub(super) async fn list(
        self,
        query: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let query = message(Request::new(query), NLM_F_REQUEST | NLM_F_DUMP);
        let mut replies = self.send([query])?;
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

async fn next_response(
    replies: &mut (impl futures_util::Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin),
) -> io::Result<Response> {
    let mut object = None;
    while let Some(reply) = replies.next().await {
        match reply.payload {
            NetlinkPayload::InnerMessage(message) => object = Some(message),
            NetlinkPayload::Error(error) if error.code.is_none() => return Ok(Ok(object)),
            NetlinkPayload::Error(error) => return Ok(Err(error.to_io())),
            _ => break,
        }
    }
    Err(broken())
}
