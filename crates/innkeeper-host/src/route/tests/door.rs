//! A stand-in for the access socket of `innkeeper-gateway`.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;

/// The head of a request to the access socket, in lower case.
pub(super) type Asked = Arc<Mutex<Vec<String>>>;

/// Admits requests with the cookie `__Host-innkeeper-preview=ok` as the visitor `alice`, those with
/// `Authorization: Bearer ig_1_ok` without a name, and refuses others. Returns the requests.
pub(super) fn serve_door(socket: &Path) -> Asked {
    let asked = Asked::default();
    let listener = tokio::net::UnixListener::bind(socket).expect("listens");
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).expect("permissions");
    let requests = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&requests)));
        }
    });
    asked
}

async fn answer(mut stream: tokio::net::UnixStream, asked: Asked) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    let head = String::from_utf8(head).expect("UTF-8").to_ascii_lowercase();
    let response = if head.contains("__host-innkeeper-preview=ok") {
        "HTTP/1.1 204 No Content\r\nX-Sandbox-External-User-Id: alice\r\nConnection: close\r\n\r\n"
    } else if head.contains("\r\nauthorization: bearer ig_1_ok\r\n") {
        "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    } else {
        "HTTP/1.1 401 Unauthorized\r\nSet-Cookie: __Host-innkeeper-nonce=n; Path=/; Secure\r\nContent-Length: 7\r\nConnection: close\r\n\r\nrefused"
    };
    asked.lock().push(head);
    stream.write_all(response.as_bytes()).await.ok();
}
