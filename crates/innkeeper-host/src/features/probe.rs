//! Trying for real, where nothing can break: in a network namespace that ends with the attempt.

use std::future::Future;
use std::io;
use std::thread;

use innkeeper_facilities::FacilityError;
use nix::sched::{CloneFlags, unshare};
use tokio::sync::oneshot;

use crate::{firewall, network};

/// What became of each attempt.
pub(super) struct Attempts {
    /// To make a veth pair.
    pub(super) veth: Result<(), FacilityError>,
    /// To write the firewall's rules.
    pub(super) nftables: Result<(), FacilityError>,
}

/// Makes a veth pair and writes rules of the kind that the firewall uses.
///
/// # Errors
/// When there is no network namespace to be had.
pub(super) async fn attempt() -> io::Result<Attempts> {
    in_throwaway_namespace(async || Attempts {
        veth: network::probe().await.map_err(FacilityError::from),
        nftables: firewall::probe().await.map_err(FacilityError::from),
    })
    .await
}

/// Runs a job on a thread of its own in a network namespace of its own. Programs that the job starts are
/// in that namespace too.
async fn in_throwaway_namespace<T, F>(job: impl FnOnce() -> F + Send + 'static) -> io::Result<T>
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
            // Nobody waits any more when the caller was cancelled.
            done.send(run()).ok();
        })?;
    result.await.map_err(io::Error::other)?
}
