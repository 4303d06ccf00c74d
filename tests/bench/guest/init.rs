//! The process 1 of everything that the benchmark boots.
//!
//! Its first act is to note the time in `/stamp`, as `<process id> <nanoseconds since 1970>` and a line
//! feed; then it answers connections on TCP port 22, and requests of HTTP on port 80. It is linked statically, so that an
//! empty file tree is enough.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process;
use std::thread;
use std::time::SystemTime;

/// SIGRTMIN+3, by which nspawn and Innkeeper end a guest in order.
const SHUTDOWN: i32 = 37;

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhere\n";

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn _exit(status: i32) -> !;
}

extern "C" fn end(_number: i32) {
    // SAFETY: async-signal-safe.
    unsafe { _exit(0) }
}

fn main() {
    let now = SystemTime::now();
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a clock that is set");
    let stamp = format!("{} {}\n", process::id(), since.as_nanos());
    fs::write("/stamp", stamp).expect("a file tree that can be written");

    // The kernel ignores signals to a process 1 that does not handle them, and the standard library has no handlers.
    // SAFETY: the handler has the type that signal(2) calls.
    unsafe { signal(SHUTDOWN, end) };

    let web = TcpListener::bind("0.0.0.0:80").expect("a free port");
    thread::spawn(move || {
        serve(&web, |stream| {
            let _size = stream.read(&mut [0; 4096])?;
            stream.write_all(RESPONSE)
        })
    });
    let listener = TcpListener::bind("0.0.0.0:22").expect("a free port");
    serve(&listener, |stream| stream.write_all(b"here\n"));
}

fn serve(listener: &TcpListener, answer: impl Fn(&mut TcpStream) -> std::io::Result<()>) {
    for stream in listener.incoming() {
        // The client may have disconnected.
        let _sent = stream.and_then(|mut stream| answer(&mut stream));
    }
}
