//! Probes of kernel features, in a temporary network namespace.

use std::future::Future;
use std::io;
use std::thread;

use innkeeper_facilities::FacilityError;
use nix::sched::{CloneFlags, unshare};
use tokio::sync::oneshot;

use crate::{firewall, network};

/// Results of the probes.
pub(super) struct Probes {
    /// Creation of a veth pair.
    pub(super) veth: Result<(), FacilityError>,
    /// Creation of the firewall's rules.
    pub(super) nftables: Result<(), FacilityError>,
}

/// Creates a veth pair and rules of the kinds that the firewall uses.
///
/// # Errors
/// Fails if no network namespace can be created.
pub(super) async fn run() -> io::Result<Probes> {
    in_temporary_namespace(async || Probes {
        veth: network::probe().await.map_err(FacilityError::from),
        nftables: firewall::probe().await.map_err(FacilityError::from),
    })
    .await
}

/// Runs a job on a new thread in a new network namespace. Programs that the job starts are in that namespace too.
async fn in_temporary_namespace<T, F>(job: impl FnOnce() -> F + Send + 'static) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (done, result) = oneshot::channel();
    thread::Builder::new()
        .name("probe".to_owned())
        .spawn(move || {
            let run = || -> io::Result<T> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                Ok(runtime.block_on(job()))
            };
            // The receiver is gone if the caller was canceled.
            done.send(run()).ok();
        })?;
    result.await.map_err(io::Error::other)?
}
