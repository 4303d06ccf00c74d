//! Strangers can take only so much.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::support::client::Client;
use crate::support::payload::{SECRET, Sent, payload, sign};
use crate::support::program::Program;
use crate::support::{directory, intake};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_body_may_have_one_mebibyte_and_no_more() {
    let directory = directory();
    let (_store, _serving) = intake::start(directory.path());
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let of_length = |length: usize| {
        let mut body = payload("opened", 7, 1).to_string().into_bytes();
        body.resize(length, b' ');
        Sent::signed("d-1", "pull_request", body)
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

/// Everything that comes until the other side closes.
fn read_to_end(stream: &mut TcpStream) -> String {
    let patience = Duration::from_secs(60);
    stream
        .set_read_timeout(Some(patience))
        .expect("socket option");
    let mut said = Vec::new();
    stream.read_to_end(&mut said).expect("is closed");
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn whoever_is_slow_is_shown_the_door_and_others_have_their_turn() {
    let directory = directory();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let _serving = runtime.block_on(async { intake::start(directory.path()) });
    let program = Program::start_with(directory.path(), "timeout_seconds = 1\nmax_connections = 3");
    let connect = || TcpStream::connect(program.address).expect("connects");

    // A head that never ends, a body that never comes, and nothing at all: all places are taken.
    let mut head = connect();
    head.write_all(b"POST /webhook/github HTTP/1.1\r\nHost: x\r\nX-A: ")
        .expect("writes");
    let mut body = connect();
    body.write_all(b"POST /webhook/github HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        .expect("writes");
    let mut idle = connect();

    let sent = Sent::pull_request("d-1", "opened", 7, 1);
    let answer = runtime.block_on(async { Client::new(program.address).deliver(&sent).await });
    assert_eq!(answer.expect("has its turn").status, 202);
    assert_eq!(read_to_end(&mut idle), "");
    read_to_end(&mut head);
    let said = read_to_end(&mut body);
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}

#[test]
fn a_head_may_not_be_endless() {
    let directory = directory();
    let program = Program::start(directory.path());
    let mut stream = TcpStream::connect(program.address).expect("connects");
    let line = format!("X-A: {}\r\n", "a".repeat(1000));
    let mut head = "POST /webhook/github HTTP/1.1\r\n".to_owned();
    head.push_str(&line.repeat(40));
    // The program may close before all of it is written.
    drop(stream.write_all(head.as_bytes()));
    let mut said = [0; 12];
    stream.read_exact(&mut said).expect("is answered");
    assert_eq!(&said, b"HTTP/1.1 431");
}

#[tokio::test]
async fn the_signature_is_over_the_bytes_and_not_their_meaning() {
    let directory = directory();
    let (_store, _serving) = intake::start(directory.path());
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let value = payload("opened", 7, 1);
    let pretty = serde_json::to_vec_pretty(&value).expect("JSON");
    let mut sent = Sent::signed("d-1", "pull_request", pretty);
    assert_eq!(client.deliver(&sent).await.expect("answers").status, 202);
    sent.signature = Some(sign(SECRET, value.to_string().as_bytes()));
    assert_eq!(client.deliver(&sent).await.expect("answers").status, 401);
}
