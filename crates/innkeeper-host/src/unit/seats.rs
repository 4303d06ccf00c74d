//! Seats: guests without a name that wait until another guest takes their place: at their doors without a closure, or with a closure
//! that they have booted.
//!
//! A unit and a cgroup cannot be renamed, and neither can the machine that nspawn knows. So they keep the seat's name until the next
//! start of the guest that took the seat, and the run directory leads from one name to the other. machined lists the guest under its own
//! name: nspawn registers no seat.
//!
//! ```text
//! <run>/guests/web ─► 0-door-7          a link: `web` has the unit, the cgroups and the machine `0-door-7`
//! <run>/guests/0-door-7/guest           "web"
//! <run>/guests/0-door-7/home ─► …/web   the directory of its files, which the supervisor reaches by this link
//! ```
//!
//! The removal of the unit removes them, so that the next start has the guest's own name.

use std::fs;
use std::io;
use std::path::Path;

use innkeeper_model::{GuestKind, GuestName, Limits, StorePath, UserIdCount};

use super::config::{RunDir, UnitConfig};
use crate::closure::shared;
use crate::{FileError, FileErrorExt};

/// Reports whether a guest can take a seat. One that builds with Nix has mounts of its own, one with nesting other system calls, and
/// one with more user ids another mapping.
pub(super) fn fits(kind: GuestKind, closure: &StorePath, limits: &Limits) -> bool {
    !shared::is_requested(kind, closure) && !limits.nesting && limits.user_ids == UserIdCount::MIN
}

/// Returns the closure of a guest that took a seat; `None` for others, whose init is on their command line.
pub(super) fn closure_at_seat(run: &RunDir) -> Option<StorePath> {
    run.guest().exists().then_some(())?;
    let closure = fs::read_link(run.closure()).ok()?;
    StorePath::parse(closure.to_str()?).ok()
}

/// Creates a symbolic link, in place of one that exists.
pub(super) fn link(target: &Path, link: &Path) -> Result<(), FileError> {
    let aside = link.with_added_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).on("remove", aside);
        }
        _ => {}
    }
    std::os::unix::fs::symlink(target, &aside).on("create", &aside)?;
    fs::rename(&aside, link).on("create", link)
}

/// Gives the run directory of a seat to a guest, which has none. Can be repeated after a crash at any point.
pub(super) fn rename(
    config: &UnitConfig,
    seat: &GuestName,
    guest: &GuestName,
    closure: &StorePath,
) -> Result<(), FileError> {
    let run = config.run_dir(seat);
    link(&config.home(guest), &run.home())?;
    link(closure.as_path(), &run.closure())?;
    // The guest's name leads to the seat before the seat's leads to the guest: the unit always has a name under which it is removed.
    if config.unit_name(guest) != *seat {
        let link = config.run_dir(guest);
        std::os::unix::fs::symlink(seat.as_str(), link.path()).on("create", link.path())?;
    }
    let aside = run.guest().with_added_extension("new");
    fs::write(&aside, guest.as_str()).on("write", &aside)?;
    fs::rename(&aside, run.guest()).on("create", run.guest())
}

/// Removes a run directory. Only the host writes there, and nothing in it is deeper than the socket. For a guest that took a seat,
/// removes the seat's directory, then the link to it.
pub(super) fn remove_run_dir(run: &RunDir) -> Result<(), FileError> {
    let link = run.path();
    let seat = fs::read_link(link).ok();
    let dir = match (&seat, link.parent()) {
        (Some(seat), Some(parent)) => parent.join(seat),
        _ => link.to_owned(),
    };
    for dir in [dir.join("door"), dir] {
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.on("list", &dir)?,
        };
        for entry in entries {
            remove_file(&entry.on("list", &dir)?.path())?;
        }
        fs::remove_dir(&dir).on("remove", &dir)?;
    }
    match seat {
        Some(_) => remove_file(link),
        None => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).on("remove", path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn name(text: &str) -> GuestName {
        GuestName::parse(text).expect("a name")
    }

    #[test]
    fn names_lead_to_each_other_until_the_run_directory_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = UnitConfig {
            machine_prefix: "test-".to_owned(),
            ..UnitConfig::new(dir.path().join("guests"), dir.path(), Identity::of('a'))
        };
        let (seat, web) = (name("0-door-7"), name("web"));
        let closure = "/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-agent";
        let closure = StorePath::parse(closure).expect("a path");
        let run = config.run_dir(&seat);
        fs::create_dir_all(run.door()).expect("made");
        assert_eq!(config.guest_of("test-0-door-7"), Some(seat.clone()));
        assert_eq!(closure_at_seat(&run), None);
        // Also after a crash.
        for _ in 0..2 {
            rename(&config, &seat, &web, &closure).expect("renamed");
        }
        assert_eq!(config.unit_name(&web), seat);
        assert_eq!(config.machine(&web), "test-0-door-7");
        assert_eq!(config.guest_of("test-0-door-7"), Some(web.clone()));
        assert_eq!(closure_at_seat(&config.run_dir(&web)), Some(closure));
        assert!(config.run_dir(&web).door().is_dir());
        remove_run_dir(&config.run_dir(&web)).expect("removed");
        let left = fs::read_dir(config.run_dirs()).expect("listed").count();
        assert_eq!((left, config.unit_name(&web)), (0, web.clone()));
        // A crash between the two removals leaves the link alone.
        link(Path::new("0-door-7"), config.run_dir(&web).path()).expect("linked");
        remove_run_dir(&config.run_dir(&web)).expect("removed");
        let left = fs::read_dir(config.run_dirs()).expect("listed").count();
        assert_eq!(left, 0);
    }

    #[test]
    fn guest_named_like_a_seat_has_its_own_unit() {
        let config = UnitConfig::new("/guests", "/run", Identity::of('a'));
        for one in ["0-door-7", "web", "0-door-x"] {
            assert_eq!(config.unit_name(&name(one)), name(one));
            assert_eq!(config.guest_named(name(one)), name(one));
        }
    }
}
