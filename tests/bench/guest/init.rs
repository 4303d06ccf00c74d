//! The process 1 of everything that the benchmark boots.
//!
//! Its first act is to note the time in `/stamp`, as `<process id> <nanoseconds since 1970>` and a line
//! feed; then it answers on TCP port 22. It is linked statically, so that an empty file tree is enough.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process;
use std::time::SystemTime;

fn main() {
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).expect("a clock that is set");
    let stamp = format!("{} {}\n", process::id(), since.as_nanos());
    fs::write("/stamp", stamp).expect("a file tree that can be written");

    let listener = TcpListener::bind("0.0.0.0:22").expect("a free port");
    for stream in listener.incoming() {
        // The client may have disconnected.
        let _sent = stream.and_then(|mut stream| stream.write_all(b"here\n"));
    }
}
