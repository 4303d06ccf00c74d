//! Open connections to a guest's SSH server, as the kernel lists them in `/proc/PID/net` (proc(5)).

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

/// The port of SSH servers, as in the lists.
const PORT: &str = "0016";
/// `TCP_ESTABLISHED` (linux/tcp_states.h), as in the lists.
const ESTABLISHED: &str = "01";

/// Counts the connections in the network namespace of a process.
///
/// # Errors
/// When the kernel's lists cannot be read, for example because the process has ended.
pub(super) fn sessions(leader: u32) -> io::Result<usize> {
    let lists = PathBuf::from(format!("/proc/{leader}/net"));
    // A server that listens on IPv6's unspecified address has its IPv4 connections in the second list, which a kernel without
    // IPv6 lacks.
    let mapped = match count(&lists.join("tcp6")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        mapped => mapped?,
    };
    Ok(count(&lists.join("tcp"))? + mapped)
}

fn count(list: &Path) -> io::Result<usize> {
    let mut open = 0;
    for line in BufReader::new(File::open(list)?).lines() {
        open += usize::from(is_session(&line?));
    }
    Ok(open)
}

/// Reports whether a line is one of an open connection to the SSH port: `0: 0364640A:0016 0264640A:C350 01 …`.
fn is_session(line: &str) -> bool {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1).and_then(|local| local.rsplit_once(':'));
    let state = fields.nth(1);
    local.is_some_and(|(_, port)| port == PORT) && state == Some(ESTABLISHED)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn open_connections_to_the_port_are_sessions() {
        let header = "  sl  local_address rem_address   st tx_queue rx_queue";
        let listening = "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000";
        let open = "   1: 0300640A:0016 0200640A:C350 01 00000000:00000000 02:000A5E";
        let client = "   2: 0300640A:C351 0200640A:0016 01 00000000:00000000 02:000A5E";
        let mapped = "   1: 0000000000000000FFFF00000300640A:0016 0000000000000000FFFF00000200640A:C350 01 0";
        let found = [header, listening, open, client, mapped, ""].map(is_session);
        assert_eq!(found, [false, false, true, false, true, false]);
    }

    #[test]
    fn lists_of_a_process_are_read() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let address = listener.local_addr().expect("bound");
        let _client = TcpStream::connect(address).expect("connects");
        sessions(std::process::id()).expect("read");
        sessions(u32::MAX).expect_err("no process");
    }
}
