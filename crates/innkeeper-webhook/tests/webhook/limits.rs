//! Limits for requests of strangers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::support::client::Client;
use crate::support::payload::{RawDelivery, SECRET, payload, sign};
use crate::support::program::Program;
use crate::support::{directory, intake};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_body_over_one_mebibyte_is_rejected() {
    let directory = directory();
    let (_store, _serving) = intake::start(directory.path());
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let of_length = |length: usize| {
        let mut body = payload("opened", 7, 1).to_string().into_bytes();
        body.resize(length, b' ');
        RawDelivery::signed("d-1", "pull_request", body)
    };
    let longest = client.deliver(&of_length(MIB)).await.expect("answers");
    assert_eq!(longest.status, 202);
    for length in [MIB + 1, 3 * MIB] {
        let refused = client.deliver(&of_length(length)).await.expect("answers");
        assert_eq!(
            (refused.status, refused.body),
            (413, json!({"error": "Payload too large"}))
        );
    }
}

#[tokio::test]
async fn a_too_long_body_of_an_ignored_event_is_no_error() {
    let directory = directory();
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let too_long = |event: &str| RawDelivery::signed("d-1", event, vec![b' '; 2 * MIB]);
    let ignored = json!({"status": "ignored", "event": "push"});
    for signature in [sign(SECRET, b"another body"), sign("guessed", b"x")] {
        // The signature of a body that is not kept cannot be verified, and the response does not depend on it.
        let mut sent = too_long("push");
        sent.signature = Some(signature);
        let answer = client.deliver(&sent).await.expect("answers");
        assert_eq!((answer.status, answer.body), (200, ignored.clone()));
    }
    let mut unsigned = too_long("push");
    unsigned.signature = None;
    // The body is not read, so the connection may end before the response.
    if let Ok(answer) = client.deliver(&unsigned).await {
        assert_eq!(answer.status, 401);
    }
    let mut client = Client::new(program.address);
    for event in ["pull_request", "repository", "ping", "../etc", ""] {
        let answer = client.deliver(&too_long(event)).await.expect("answers");
        assert_eq!(answer.status, 413, "{event:?}");
    }
    let mut unnamed = too_long("push");
    unnamed.id = "a b".to_owned();
    let answer = client.deliver(&unnamed).await.expect("answers");
    assert_eq!(answer.status, 413);
}

#[test]
fn an_endless_body_is_read_to_a_limit() {
    let directory = directory();
    let program = Program::start_with(directory.path(), "timeout_seconds = 60");
    let mut stream = TcpStream::connect(program.address).expect("connects");
    let signature = sign(SECRET, b"x");
    write!(
        stream,
        "POST /webhook/github HTTP/1.1\r\nHost: x\r\nX-GitHub-Event: push\r\nX-GitHub-Delivery: d\r\n\
         X-Hub-Signature-256: {signature}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .expect("writes");
    let chunk = [b"10000\r\n", &[b' '; 1 << 16][..], b"\r\n"].concat();
    // Twice the limit. The program closes the connection before.
    let written = (0..800).take_while(|_| stream.write_all(&chunk).is_ok());
    let written = written.count();
    assert!((400..800).contains(&written), "{written}");
}

/// Reads until the server closes the connection.
fn read_to_end(stream: &mut TcpStream) -> String {
    let timeout = Duration::from_secs(60);
    stream
        .set_read_timeout(Some(timeout))
        .expect("socket option");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("is closed");
    String::from_utf8_lossy(&received).into_owned()
}

#[test]
fn slow_clients_time_out_and_free_their_connections() {
    let directory = directory();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let _serving = runtime.block_on(async { intake::start(directory.path()) });
    let program = Program::start_with(directory.path(), "timeout_seconds = 1\nmax_connections = 3");
    let connect = || TcpStream::connect(program.address).expect("connects");

    // All connections are in use: an incomplete head, a missing body, and an idle connection.
    let mut head = connect();
    head.write_all(b"POST /webhook/github HTTP/1.1\r\nHost: x\r\nX-A: ")
        .expect("writes");
    let mut body = connect();
    let signature = sign(SECRET, b"another body");
    write!(body, "POST /webhook/github HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: {signature}\r\nContent-Length: 9\r\n\r\n{{")
        .expect("writes");
    let mut idle = connect();

    let sent = RawDelivery::pull_request("d-1", "opened", 7, 1);
    let answer = runtime.block_on(async { Client::new(program.address).deliver(&sent).await });
    assert_eq!(answer.expect("a free connection").status, 202);
    assert_eq!(read_to_end(&mut idle), "");
    read_to_end(&mut head);
    let received = read_to_end(&mut body);
    assert!(received.starts_with("HTTP/1.1 408 "), "{received}");
}

/// The start of the response's status line, which must arrive while the request's body is incomplete.
fn status(stream: &mut TcpStream) -> String {
    let timeout = Duration::from_secs(60);
    stream
        .set_read_timeout(Some(timeout))
        .expect("socket option");
    let mut received = [0; 12];
    stream.read_exact(&mut received).expect("a response");
    String::from_utf8_lossy(&received).into_owned()
}

#[test]
fn a_malformed_signature_is_rejected_before_the_body() {
    let directory = directory();
    let program = Program::start_with(directory.path(), "timeout_seconds = 60");
    let good = sign(SECRET, b"x");
    for header in [
        String::new(),
        "X-Hub-Signature-256: \r\n".to_owned(),
        "X-Hub-Signature-256: sha256=abc\r\n".to_owned(),
        format!("X-Hub-Signature-256: {}\r\n", good.to_uppercase()),
    ] {
        let mut stream = TcpStream::connect(program.address).expect("connects");
        write!(
            stream,
            "POST /webhook/github HTTP/1.1\r\nHost: x\r\n{header}Content-Length: 99\r\n\r\n"
        )
        .expect("writes");
        assert_eq!(status(&mut stream), "HTTP/1.1 401", "{header:?}");
    }
}

#[test]
fn one_client_cannot_hold_all_connections() {
    let directory = directory();
    let limits = "timeout_seconds = 60\nmax_connections = 4";
    let program = Program::start_with(directory.path(), limits);
    let signature = sign(SECRET, b"x");
    // The body is never sent. With `Expect`, the program confirms that it waits for the body.
    let post = |client: &str| {
        let mut stream = TcpStream::connect(program.address).expect("connects");
        write!(
            stream,
            "POST /webhook/github HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n\
             X-Hub-Signature-256: {signature}\r\nExpect: 100-continue\r\nContent-Length: 99\r\n\r\n"
        )
        .expect("writes");
        let received = status(&mut stream);
        (stream, received)
    };
    let (_first, first) = post("192.0.2.1");
    let (_second, second) = post("198.51.100.9, 192.0.2.1");
    assert_eq!([first, second], ["HTTP/1.1 100"; 2]);
    assert_eq!(post("192.0.2.1").1, "HTTP/1.1 429");
    assert_eq!(post("192.0.2.2").1, "HTTP/1.1 100");
}

#[test]
fn a_too_long_head_is_rejected() {
    let directory = directory();
    let program = Program::start(directory.path());
    let mut stream = TcpStream::connect(program.address).expect("connects");
    let line = format!("X-A: {}\r\n", "a".repeat(1000));
    let mut head = "POST /webhook/github HTTP/1.1\r\n".to_owned();
    head.push_str(&line.repeat(40));
    // The program may close before all of it is written.
    drop(stream.write_all(head.as_bytes()));
    let mut received = [0; 12];
    stream.read_exact(&mut received).expect("a response");
    assert_eq!(&received, b"HTTP/1.1 431");
}

#[tokio::test]
async fn the_signature_covers_the_exact_bytes() {
    let directory = directory();
    let (_store, _serving) = intake::start(directory.path());
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let value = payload("opened", 7, 1);
    let pretty = serde_json::to_vec_pretty(&value).expect("JSON");
    let mut sent = RawDelivery::signed("d-1", "pull_request", pretty);
    assert_eq!(client.deliver(&sent).await.expect("answers").status, 202);
    sent.signature = Some(sign(SECRET, value.to_string().as_bytes()));
    assert_eq!(client.deliver(&sent).await.expect("answers").status, 401);
}
