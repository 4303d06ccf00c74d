//! The servers beside the daemon: Caddy and innkeeper-pages.

#![expect(clippy::disallowed_methods, reason = "tests run programs")]

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::host::WEB;
use crate::support::wait_until;

/// The user `nobody`.
const NOBODY: u32 = 65_534;

pub(crate) fn run_caddy(root: &Path) -> Child {
    let main = format!(
        "{{\n\tadmin unix/{0}/admin.sock\n\tlog {{\n\t\toutput file {0}/caddy.log\n\t}}\n}}\nimport {0}/previews/*.caddy\n",
        root.display()
    );
    fs::create_dir_all(root.join("previews")).expect("made");
    fs::write(root.join("Caddyfile"), main).expect("written");
    let child = Command::new("caddy")
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(root.join("Caddyfile"))
        .env("HOME", root)
        .env("XDG_DATA_HOME", root.join("caddy-data"))
        .env("XDG_CONFIG_HOME", root.join("caddy-config"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("caddy is installed: .ci/deps does it");
    let admin = root.join("admin.sock");
    let has_sites = root.join("previews/_innkeeper.caddy").exists();
    wait_until("Caddy listens", || {
        std::os::unix::net::UnixStream::connect(&admin).is_ok()
            && (!has_sites || TcpStream::connect(("127.0.0.1", WEB)).is_ok())
    });
    child
}

/// Runs innkeeper-pages without privileges.
pub(crate) fn run_pages(root: &Path, config: &Path) -> Child {
    let built = Path::new(env!("CARGO_BIN_EXE_innkeeperd")).with_file_name("innkeeper-pages");
    // The build's directory may be inaccessible for `nobody`.
    let program = root.join("innkeeper-pages");
    // By a program: another thread can fork while a copy by this process is open for writing, and then it cannot run.
    let copied = Command::new("cp").arg(&built).arg(&program).status();
    assert!(copied.expect("runs").success(), "cargo build --workspace");
    let sockets = root.join("pages-run");
    fs::create_dir_all(&sockets).expect("made");
    std::os::unix::fs::chown(&sockets, Some(NOBODY), Some(NOBODY)).expect("chown");
    let child = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"])
        .arg(program)
        .arg("--config")
        .arg(config)
        .env("INNKEEPER_LOG_LEVEL", "warn")
        .stdin(Stdio::null())
        .spawn()
        .expect("setpriv is installed: .ci/deps does it");
    let socket = sockets.join("pages.sock");
    wait_until("innkeeper-pages listens", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    child
}
