//! Machines that machined lists (org.freedesktop.machine1(5)): `machinectl` and `journalctl -M` find guests by them.
//!
//! nspawn registers a guest under the name that it has at its start. A guest that took a seat had none, so the daemon registers it.

use zbus::Connection;
use zbus_systemd::machine1::{MachineProxy, ManagerProxy};

use super::error::UnitError;

const NO_SUCH_MACHINE: &str = "org.freedesktop.machine1.NoSuchMachine";

/// The error of the bus about a machine that ends meanwhile.
const NO_SUCH_OBJECT: &str = "org.freedesktop.DBus.Error.UnknownObject";

/// The error of the bus on a host without machined.
const NO_SUCH_SERVICE: &str = "org.freedesktop.DBus.Error.ServiceUnknown";

/// Registers the machine of a guest's first process. Has no effect if it is registered, and on a host without machined.
pub(super) async fn register(
    bus: &Connection,
    machine: String,
    leader: u32,
    root: String,
) -> Result<(), UnitError> {
    let registered = async {
        let machines = ManagerProxy::new(bus).await?;
        match machines.get_machine(machine.clone()).await {
            Err(error) if is_error(&error, NO_SUCH_MACHINE) => {}
            found => return found.map(drop),
        }
        // As nspawn does. An empty id is unknown.
        let (service, class) = ("systemd-nspawn".to_owned(), "container".to_owned());
        let registered =
            machines.register_machine(machine, Vec::new(), service, class, leader, root);
        registered.await.map(drop)
    };
    match registered.await {
        Err(error) if is_error(&error, NO_SUCH_SERVICE) => Ok(()),
        result => result.map_err(on("register a machine")),
    }
}

/// Ends the registration of a machine in a unit. Has no effect if it is not registered, or runs in another unit: it is none of this
/// daemon's then.
pub(super) async fn unregister(
    bus: &Connection,
    machine: String,
    unit: &str,
) -> Result<(), UnitError> {
    let ended = async {
        let machines = ManagerProxy::new(bus).await?;
        let found = machines.get_machine(machine.clone()).await?;
        match MachineProxy::new(bus, found).await?.unit().await? == unit {
            true => machines.unregister_machine(machine).await,
            false => Ok(()),
        }
    };
    let is_absent = |error: &zbus::Error| {
        let absent = [NO_SUCH_MACHINE, NO_SUCH_OBJECT, NO_SUCH_SERVICE];
        absent.iter().any(|expected| is_error(error, expected))
    };
    match ended.await {
        Err(error) if is_absent(&error) => Ok(()),
        result => result.map_err(on("unregister a machine")),
    }
}

fn is_error(error: &zbus::Error, expected: &str) -> bool {
    matches!(error, zbus::Error::MethodError(name, ..) if name.as_str() == expected)
}

fn on(action: &'static str) -> impl FnOnce(zbus::Error) -> UnitError {
    move |source| UnitError::Bus {
        action,
        source: Box::new(source),
    }
}
