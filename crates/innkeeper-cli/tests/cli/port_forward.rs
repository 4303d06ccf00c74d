use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::connect::{count, daemon};
use crate::fake::{Fake, run};
use crate::tls_front::{Authority, Front};

/// A program that forwards one port, and its local address.
struct Forwarding {
    child: Child,
    address: String,
}

impl Forwarding {
    fn start(mut command: std::process::Command) -> Self {
        use std::process::Stdio;
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.as_mut().expect("its output"));
        stdout.read_line(&mut line).expect("a line");
        let address = line.split(' ').nth(1).expect("an address").to_owned();
        Self { child, address }
    }

    fn of(fake: &Fake, port: &str) -> Self {
        Self::start(fake.command("agent", &["port-forward", "web", &format!("0:{port}")]))
    }

    /// Sends bytes, ends the data, and returns the response.
    fn exchange(&self, bytes: &[u8]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.write_all(bytes)?;
        stream.shutdown(Shutdown::Write)?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    }

    /// Interrupts it, and returns its exit status and standard error.
    fn stop(self) -> (i32, String) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).expect("it runs");
        let output = self.child.wait_with_output().expect("it ends");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        (output.status.code().expect("an exit code"), stderr)
    }
}

#[test]
fn connections_are_carried_both_ways_at_the_same_time() {
    let (fake, ports) = daemon(count);
    let forwarding = Forwarding::of(&fake, "3000");
    // Held open meanwhile.
    let idle = TcpStream::connect(&forwarding.address).expect("connects");
    std::thread::scope(|scope| {
        for length in [0, 1, 300_000] {
            let forwarding = &forwarding;
            scope.spawn(move || {
                let response = forwarding
                    .exchange(&vec![b'x'; length])
                    .expect("a response");
                assert_eq!(response, format!("{length} bytes\n"));
            });
        }
    });
    drop(idle);
    assert!(
        ports
            .lock()
            .expect("locked")
            .iter()
            .all(|port| *port == 3000)
    );
    let (status, stderr) = forwarding.stop();
    assert_eq!(
        (status, stderr.contains("no longer forwarded")),
        (130, true),
        "{stderr}"
    );
}

#[test]
fn failed_connection_ends_alone() {
    let (fake, _) = daemon(count);
    let forwarding = Forwarding::of(&fake, "9");
    for _ in 0..2 {
        let mut stream = TcpStream::connect(&forwarding.address).expect("connects");
        let end = stream.read(&mut [0]);
        assert!(end.is_err(), "a reset, not the end of data: {end:?}");
    }
    let (_, stderr) = forwarding.stop();
    assert_eq!(
        stderr.matches("accepts no connection on port 9").count(),
        2,
        "{stderr}"
    );
}

#[test]
fn local_port_in_use_is_reported() {
    let (fake, _) = daemon(count);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let run = run(fake.command("agent", &["port-forward", "web", &format!("{port}:80")]));
    assert!(
        run.status == 1 && run.stderr.contains("cannot listen on port"),
        "{run:?}"
    );
}

#[test]
fn connections_are_carried_over_tls() {
    let Some(authority) = Authority::new("connections_are_carried_over_tls") else {
        return;
    };
    let (fake, _) = daemon(count);
    let front = Front::of(&fake, Some(&authority));
    let arguments = ["port-forward", "web", "0:3000"];
    let forwarding = Forwarding::start(front.command(Some(&authority), "agent", &arguments));
    let response = forwarding.exchange(&[b'x'; 200_000]).expect("a response");
    assert_eq!(response, "200000 bytes\n");
    forwarding.stop();
}
