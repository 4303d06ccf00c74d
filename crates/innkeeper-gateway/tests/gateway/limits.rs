//! Floods, and clients that are slow or hang.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream::poll_fn;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::support::client::{FORWARDED_FOR, begin, get, request, send};
use crate::support::daemon::Daemon;
use crate::support::program::Program;
use crate::support::{SECRET, bearer, directory, publish};

/// The number of requests of a flood.
const FLOOD: usize = 10_000;

/// Reads a connection until the gateway ends it.
async fn read_to_end(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    drop(stream.read_to_end(&mut text).await);
    String::from_utf8_lossy(&text).into_owned()
}

/// Returns a metric of the program.
async fn metric(program: &Program, name: &str) -> u64 {
    let text = metrics(program).await;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.expect("a metric").trim().parse().expect("a number")
}

/// Returns the metrics of the program.
pub(crate) async fn metrics(program: &Program) -> String {
    metrics_at(&program.metrics).await
}

/// Returns the metrics at an address.
pub(crate) async fn metrics_at(address: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("connects");
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sends");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("responds");
    text
}

#[tokio::test]
async fn flood_without_tokens_does_not_reach_the_daemon() {
    let directory = directory();
    publish(directory.path(), &[7]);
    let daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let token = bearer(7);
    let wrong = format!("{}A", &token[..token.len() - 1]);
    let mut senders = tokio::task::JoinSet::new();
    let workers = 16;
    for worker in 0..workers {
        let socket = program.socket.clone();
        let wrong = wrong.clone();
        senders.spawn(async move {
            let mut connection = crate::support::client::connect(&socket).await;
            let mut statuses = [0; 3];
            for i in 0..FLOOD / workers {
                let path = ["/v1/guests", "/v1/readyz", "/wp-login.php", "/v1/%00%ff"][i % 4];
                let values = ["", "Bearer x", &wrong, "Basic Og==", "Bearer ik_1_x"];
                let headers = [("authorization", values[i % values.len()])];
                let address = format!("198.51.100.{}", (worker * 16 + i % 16) % 256);
                let headers = [&headers[..], &[(FORWARDED_FOR, address.as_str())]].concat();
                let sent = connection.send_request(request(path, &headers, Body::empty()));
                let response = sent.await.expect("responds");
                let index = match response.status().as_u16() {
                    401 => 0,
                    404 => 1,
                    429 => {
                        assert!(response.headers().contains_key("retry-after"));
                        2
                    }
                    status => panic!("{status}"),
                };
                statuses[index] += 1;
                drop(response.into_body().collect().await);
            }
            statuses
        });
    }
    let statuses = senders.join_all().await.into_iter();
    let sums = statuses.fold([0; 3], |sums, more: [u64; 3]| {
        [sums[0] + more[0], sums[1] + more[1], sums[2] + more[2]]
    });
    assert_eq!(usize::try_from(sums.iter().sum::<u64>()), Ok(FLOOD));
    assert!(sums.iter().all(|sum| *sum > 0), "{sums:?}");
    assert_eq!(daemon.received().len(), 0);
    let counted = async |result: &str| {
        let name = format!("innkeeper_gateway_requests_total{{result=\"{result}\"}}");
        metric(&program, &name).await
    };
    assert_eq!(counted("unauthorized").await, sums[0]);
    assert_eq!(counted("not_found").await, sums[1]);
    assert_eq!(counted("limited").await, sums[2]);
    assert_eq!(counted("forwarded").await, 0);

    // An address of the flood is limited. Its owner's token is accepted: it cannot be guessed. Secrets of the file can.
    let of_flood = [(FORWARDED_FOR, "198.51.100.1")];
    assert_eq!(
        get(&program.socket, "/v1/guests", &of_flood).await.status(),
        429
    );
    let file = format!("Bearer {SECRET}");
    for (value, address, status) in [
        (token.as_str(), "198.51.100.1", 200),
        (&file, "198.51.100.1", 429),
        (&file, "198.51.101.1", 200),
    ] {
        let headers = [("authorization", value), (FORWARDED_FOR, address)];
        assert_eq!(
            get(&program.socket, "/v1/guests", &headers).await.status(),
            status
        );
    }
    assert_eq!(daemon.received().len(), 2);
}

#[tokio::test]
async fn slow_head_is_given_up() {
    let directory = directory();
    let program = Program::start_with(directory.path(), "timeout_seconds = 1");
    for sent in ["", "GET /v1/guests HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = UnixStream::connect(&program.socket)
            .await
            .expect("connects");
        stream.write_all(sent.as_bytes()).await.expect("sends");
        let text = read_to_end(&mut stream).await;
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 408"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn long_head_is_refused() {
    let directory = directory();
    let daemon = Daemon::start(directory.path());
    publish(directory.path(), &[7]);
    let program = Program::start(directory.path());
    let mut stream = UnixStream::connect(&program.socket)
        .await
        .expect("connects");
    let head = format!(
        "GET /v1/guests HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\nx: {}\r\n\r\n",
        bearer(7),
        "x".repeat(64 * 1024)
    );
    // The gateway may close before the end.
    drop(stream.write_all(head.as_bytes()).await);
    let text = read_to_end(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 431"), "{text}");
    assert_eq!(daemon.received().len(), 0);
}

#[tokio::test]
async fn body_that_does_not_arrive_is_given_up() {
    let directory = directory();
    publish(directory.path(), &[7]);
    let daemon = Daemon::start(directory.path());
    let program = Program::start_with(directory.path(), "timeout_seconds = 1");
    let mut stream = UnixStream::connect(&program.socket)
        .await
        .expect("connects");
    let token = bearer(7);
    let head = format!(
        "POST /v1/guests HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\ncontent-length: 10\r\n\r\n12345"
    );
    stream.write_all(head.as_bytes()).await.expect("sends");
    daemon.wait_for_bytes(5).await;
    let text = read_to_end(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    // Without a token, the response does not wait for the body, and the connection ends soon, too.
    let mut stream = UnixStream::connect(&program.socket)
        .await
        .expect("connects");
    let head = head.replace(&token, "Bearer x");
    stream.write_all(head.as_bytes()).await.expect("sends");
    let text = read_to_end(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 401"), "{text}");
}

#[tokio::test]
async fn client_that_does_not_read_is_given_up() {
    let directory = directory();
    publish(directory.path(), &[7]);
    let _daemon = Daemon::start(directory.path());
    let program = Program::start_with(directory.path(), "timeout_seconds = 1");
    let token = bearer(7);
    let response = begin(
        &program.socket,
        request("/v1/endless", &[("authorization", &token)], Body::empty()),
    );
    let mut response = response.await.expect("responds");
    let in_progress = "innkeeper_gateway_requests_in_progress";
    assert_eq!(metric(&program, in_progress).await, 1);
    // It waits for 30 timeouts.
    while metric(&program, in_progress).await > 0 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut end = None;
    while end.is_none() {
        end = match response.body_mut().frame().await {
            Some(Ok(_)) => None,
            other => Some(other),
        };
    }
    assert!(
        matches!(end, Some(Some(Err(_)))),
        "the client took a part for the whole"
    );
}

#[tokio::test]
async fn address_may_occupy_half_of_what_the_daemon_accepts() {
    let directory = directory();
    publish(directory.path(), &[7]);
    let daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let token = bearer(7);
    let follow = async |address: &str| {
        let headers = [("authorization", token.as_str()), (FORWARDED_FOR, address)];
        let sent = request("/v1/logs", &headers, Body::empty());
        begin(&program.socket, sent).await.expect("responds")
    };
    let [one, two, three] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    let mut streams = Vec::new();
    for address in [one, two] {
        for _ in 0..120 {
            let response = follow(address).await;
            assert_eq!(response.status(), 200);
            streams.push(response);
        }
        let refused = follow(address).await;
        assert_eq!(refused.status(), 429);
        assert!(refused.headers().contains_key("retry-after"));
    }
    assert_eq!(
        follow(three).await.status(),
        429,
        "all together have their limit"
    );
    assert_eq!(daemon.received().len(), 240);
    // The end of one makes room, for any address.
    streams.pop();
    while follow(three).await.status() == 429 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn response_to_a_body_that_is_too_long_arrives() {
    let directory = directory();
    publish(directory.path(), &[7]);
    let _daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let token = bearer(7);
    for (path, token, status) in [
        ("/v1/too-long", token.as_str(), 413),
        ("/v1/too-long", "Bearer x", 401),
    ] {
        // The sender sends all of it before it reads: 8 MiB do not fit into the buffers of sockets.
        let (sender, mut receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let sending = tokio::spawn(async move {
            for _ in 0..128 {
                let piece = Bytes::from(vec![b'x'; 64 * 1024]);
                if sender.send(Ok(piece)).await.is_err() {
                    return false;
                }
            }
            true
        });
        let body = Body::from_stream(poll_fn(move |cx| receiver.poll_recv(cx)));
        let mut sent = request(path, &[("authorization", token)], body);
        *sent.method_mut() = axum::http::Method::POST;
        assert_eq!(send(&program.socket, sent).await.status(), status);
        assert!(
            sending.await.expect("ends"),
            "the gateway did not read the rest"
        );
    }
}

#[tokio::test]
async fn bodies_without_a_token_occupy_few_connections() {
    let directory = directory();
    publish(directory.path(), &[7]);
    let _daemon = Daemon::start(directory.path());
    // One such body of an address is read to its end.
    let settings = "timeout_seconds = 3600\nmax_connections = 16";
    let program = Program::start_with(directory.path(), settings);
    let begin = async || {
        let mut stream = UnixStream::connect(&program.socket)
            .await
            .expect("connects");
        let head = "POST /v1/guests HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\ncontent-length: 10\r\n\r\n12345";
        stream.write_all(head.as_bytes()).await.expect("sends");
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.expect("responds");
        assert_eq!(&start, b"HTTP/1.1 401");
        stream
    };
    let mut first = begin().await;
    // The others end with the response, and not after an hour.
    for _ in 0..8 {
        read_to_end(&mut begin().await).await;
    }
    first.write_all(b"67890").await.expect("is still open");
}
