//! Files of the routes: one per preview in Caddy's directory, and the lookup table.
//!
//! ```text
//! <directory>/<slug>.caddy                            a description of the route
//! <table>/hosts/<host>                                -> ../previews/<slug>/hosts/<host>
//! <table>/guests/<address>                            -> ../previews/<slug>/hosts, the hosts of this guest
//! <table>/previews/<slug>/hosts/<host>/host           marks the directory of a host, and lists its files
//! <table>/previews/<slug>/hosts/<host>/live/<address> the app of all paths
//! <table>/previews/<slug>/hosts/<host>/settled        -> live/<address>, a while after the last change
//! <table>/previews/<slug>/hosts/<host>/rules/…        the rules of a host (see `render::rules`)
//! <table>/previews/<slug>/hosts/<host>/page/<slug>    the host has a page instead
//! <table>/previews/<slug>/hosts/<host>/access/<slug>  the host's visitors are checked: the others are in `checked/` then
//! <table>/previews/<slug>/…                           the pages of a placeholder
//! ```
//!
//! `<table>/previews/<slug>` is replaced and removed atomically, so all hosts of a preview change together. A link in
//! `hosts` also claims the host for its preview; a dangling link claims nothing. Temporary names start with a dot, which
//! slugs never do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use innkeeper_facilities::Found;
use innkeeper_model::preview::RESERVED_SLUGS;
use innkeeper_model::{GuestName, Ownership, settled};
use parking_lot::Mutex;

use super::RouteError;
use super::config::CaddyConfig;
use super::files::{create, exchange, first_line, make_dir, names, read, temporary_name, write};
use super::render::{
    self, FORMER_LOOKUP_FILE, HOST_FILE, RenderedRoute, SHARED_FILE, SharedConfig, access,
};
use super::visits;
use crate::identity::Identity;
use crate::{FileError, FileErrorExt, tree};

/// The two directories. The caller must serialize writers.
#[derive(Clone, Debug)]
pub(super) struct Table {
    directory: PathBuf,
    hosts: PathBuf,
    guests: PathBuf,
    pub(super) previews: PathBuf,
    root: PathBuf,
    identity: Identity,
    /// When each preview was first seen after its last change. Restarts of the daemon count as changes.
    pub(super) unchanged_since: Arc<Mutex<BTreeMap<GuestName, Instant>>>,
}

/// Difference between a preview's files and the desired ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    None,
    /// Only the table differs.
    Table,
    /// Caddy's file differs.
    Caddyfile,
}

impl Table {
    pub(super) fn new(config: &CaddyConfig) -> Self {
        Self {
            directory: config.directory.clone(),
            hosts: config.table.join("hosts"),
            guests: config.table.join("guests"),
            previews: config.table.join("previews"),
            root: config.table.clone(),
            identity: config.identity.clone(),
            unchanged_since: Arc::default(),
        }
    }

    /// Writes the shared configuration and returns the previous contents, for [`Self::restore_shared`].
    pub(super) fn write_shared(
        &self,
        shared: &SharedConfig,
    ) -> Result<[Option<Vec<u8>>; 2], FileError> {
        make_dir(&self.directory)?;
        for dir in [&self.root, &self.hosts, &self.guests, &self.previews] {
            make_dir(dir)?;
        }
        let before = [
            read(&self.directory.join(FORMER_LOOKUP_FILE))?,
            read(&self.directory.join(SHARED_FILE))?,
        ];
        self.disable_former_files()?;
        write(&self.directory, SHARED_FILE, shared.sites.as_bytes())?;
        tree::remove(&self.directory.join(FORMER_LOOKUP_FILE))?;
        tree::remove(&self.root.join("lookup.html"))?;
        Ok(before)
    }

    /// Reports whether the shared sites on disk contain a text.
    pub(super) fn shared_contains(&self, text: &str) -> Result<bool, FileError> {
        let written = read(&self.directory.join(SHARED_FILE))?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&written).contains(text))
    }

    /// Reports whether everything exists that [`Self::write_shared`] writes.
    pub(super) fn has_shared(&self, shared: &SharedConfig) -> Result<bool, FileError> {
        let written = read(&self.directory.join(SHARED_FILE))?;
        Ok(written.as_deref() == Some(shared.sites.as_bytes())
            && self.hosts.is_dir()
            && self.guests.is_dir()
            && self.previews.is_dir())
    }

    /// Rolls back [`Self::write_shared`].
    pub(super) fn restore_shared(&self, before: [Option<Vec<u8>>; 2]) -> Result<(), FileError> {
        // The lookup first: former sites import it.
        for (name, contents) in [FORMER_LOOKUP_FILE, SHARED_FILE].into_iter().zip(before) {
            match contents {
                Some(contents) => write(&self.directory, name, &contents)?,
                None => tree::remove(&self.directory.join(name))?,
            }
        }
        Ok(())
    }

    /// Reduces the files of previews that a former release wrote as sites to their marks. Their routes are in the table
    /// of the former release until they are put again.
    fn disable_former_files(&self) -> Result<(), FileError> {
        for name in names(&self.directory)? {
            let Some(slug) = name
                .strip_suffix(".caddy")
                .and_then(|s| GuestName::parse(s).ok())
            else {
                continue;
            };
            let path = self.directory.join(&name);
            if self.may_change(&path, &slug)?
                && let Some(text) = read(&path)?
                && String::from_utf8_lossy(&text).contains(FORMER_LOOKUP_FILE)
            {
                let mark = first_line(&path)?.unwrap_or_default();
                write(&self.directory, &name, mark.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Compares a preview's files with the desired ones.
    ///
    /// Fails if a host belongs to another preview or Caddy's file is not managed by this daemon.
    pub(super) fn compare(&self, rendered: &RenderedRoute) -> Result<Difference, RouteError> {
        let slug = &rendered.slug;
        for host in rendered.hosts.keys() {
            self.check_claim(slug, host)?;
        }
        let caddyfile = self.caddyfile(slug);
        let written = read(&caddyfile)?;
        if written.is_some() && !self.may_change(&caddyfile, slug)? {
            return Err(RouteError::ForeignFile { path: caddyfile });
        }
        if written.as_deref() != Some(rendered.caddyfile.as_bytes()) {
            return Ok(Difference::Caddyfile);
        }
        let is_current = self.is_current(rendered)?;
        Ok(if is_current {
            Difference::None
        } else {
            Difference::Table
        })
    }

    /// Writes a preview's files. The route is in force when this returns.
    pub(super) fn put(&self, rendered: &RenderedRoute) -> Result<(), RouteError> {
        // Checks again: another preview may have claimed a host meanwhile.
        if self.compare(rendered)? == Difference::None {
            return Ok(());
        }
        let slug = &rendered.slug;
        self.unchanged_since.lock().remove(slug);
        let name = format!("{slug}.caddy");
        write(&self.directory, &name, rendered.caddyfile.as_bytes())?;
        for host in rendered.hosts.keys() {
            self.claim(slug, host)?;
        }
        let (current, temporary) = (self.previews.join(slug.as_str()), self.temporary(slug));
        tree::remove(&temporary)?;
        write_tree(&temporary, &rendered.hosts)?;
        exchange(&temporary, &current)?;
        // `temporary` is now the previous version.
        self.link_guest(slug, rendered.guest)?;
        for host in names(&temporary.join("hosts"))? {
            if !rendered.hosts.contains_key(&host) {
                self.unclaim(slug, &host)?;
            }
        }
        Ok(tree::remove(&temporary)?)
    }

    /// Has the visitors of a preview's present route checked, or not. In force when this returns; without a route there is
    /// nothing to do.
    pub(super) fn set_checked(&self, slug: &GuestName, checked: bool) -> Result<(), RouteError> {
        let current = self.previews.join(slug.as_str());
        let mut hosts = BTreeMap::new();
        for host in names(&current.join("hosts"))? {
            let files = parse_listing(&current.join("hosts").join(&host))?;
            hosts.insert(host, files);
        }
        if hosts
            .values()
            .all(|files| access::is_guarded(files) == checked)
        {
            return Ok(());
        }
        for files in hosts.values_mut() {
            let open = access::unguarded(std::mem::take(files));
            *files = match checked {
                true => access::guarded(slug.as_str(), open),
                false => open,
            };
        }
        self.unchanged_since.lock().remove(slug);
        let temporary = self.temporary(slug);
        tree::remove(&temporary)?;
        write_tree(&temporary, &hosts)?;
        exchange(&temporary, &current)?;
        Ok(tree::remove(&temporary)?)
    }

    /// Removes a preview's files. The first step ends its route.
    pub(super) fn remove(&self, slug: &GuestName) -> Result<(), RouteError> {
        self.unchanged_since.lock().remove(slug);
        let (current, temporary) = (self.previews.join(slug.as_str()), self.temporary(slug));
        tree::remove(&temporary)?;
        match fs::rename(&current, &temporary) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome.on("remove", &current)?,
        }
        let caddyfile = self.caddyfile(slug);
        let unfinished = temporary_name(&format!("{slug}.caddy"));
        tree::remove(&self.directory.join(unfinished))?;
        if !RESERVED_SLUGS.contains(&slug.as_str()) && self.may_change(&caddyfile, slug)? {
            tree::remove(&caddyfile)?;
        }
        self.link_guest(slug, None)?;
        for host in names(&self.hosts)? {
            self.unclaim(slug, &host)?;
        }
        Ok(tree::remove(&temporary)?)
    }

    /// Settles the hosts of the previews that have been unchanged for some time, as far as they have one app for all paths.
    pub(super) fn settle(&self, time: Duration) -> Result<(), RouteError> {
        let now = Instant::now();
        let names = names(&self.previews)?;
        let slugs = names.iter().filter_map(|name| GuestName::parse(name).ok());
        let mut unchanged_since = self.unchanged_since.lock();
        let (mut found, mut failed) = (BTreeMap::new(), Ok(()));
        for slug in slugs {
            let since = unchanged_since.get(&slug).copied().unwrap_or(now);
            if now.duration_since(since) >= time {
                let settled = settle(&self.previews.join(slug.as_str()).join("hosts"));
                failed = failed.and(settled.map_err(RouteError::from));
            }
            found.insert(slug, since);
        }
        *unchanged_since = found;
        failed
    }

    /// Lists all files that Innkeeper's naming applies to.
    pub(super) fn observe(&self) -> Result<Vec<Found>, RouteError> {
        let mut found = Vec::new();
        for dir in [&self.directory, &self.previews, &self.hosts, &self.guests] {
            for name in names(dir)? {
                let path = dir.join(name);
                if let Some((guest, ownership)) = self.parse(&path)? {
                    found.push(Found {
                        guest,
                        object: path.display().to_string(),
                        ownership,
                    });
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes one object that [`Self::observe`] returned.
    pub(super) fn sweep(&self, found: &Found) -> Result<(), RouteError> {
        let object = found.object.as_str();
        let path = Path::new(object);
        if let Some((_, ownership)) = self.parse(path)? {
            // The owner may have changed since the observation.
            let is_same = ownership == found.ownership && ownership != Ownership::Other;
            if is_same {
                tree::remove(path)?;
            }
            return Ok(());
        }
        // Absence is success. Foreign files stay.
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_inside(path) => Ok(()),
            _ => Err(RouteError::Foreign {
                object: object.to_owned(),
            }),
        }
    }

    fn is_inside(&self, path: &Path) -> bool {
        let dirs = [&self.directory, &self.previews, &self.hosts, &self.guests];
        let name = path.file_name();
        name.is_some_and(|name| dirs.iter().any(|dir| path == dir.join(name)))
    }

    /// Reports whether this daemon may change a preview's file: it has this daemon's mark, or a former release's while
    /// those are adopted.
    fn may_change(&self, caddyfile: &Path, slug: &GuestName) -> Result<bool, FileError> {
        let ownership = self.owner_of(caddyfile, slug)?;
        Ok(ownership.is_some_and(|ownership| self.identity.may_change(ownership)))
    }

    /// Returns the owner of a preview's file, or `None` if Innkeeper did not write it for this preview.
    fn owner_of(&self, caddyfile: &Path, slug: &GuestName) -> Result<Option<Ownership>, FileError> {
        let line = first_line(caddyfile)?;
        let mark = line.as_deref().and_then(render::parse_mark);
        let mark = mark.filter(|(preview, _)| preview == slug);
        Ok(mark.map(|(_, daemon)| self.identity.ownership(daemon.as_ref())))
    }

    /// Marks the file of a preview if a former release wrote it.
    pub(super) fn adopt(&self, slug: &GuestName) -> Result<(), RouteError> {
        let caddyfile = self.caddyfile(slug);
        if self.owner_of(&caddyfile, slug)? != Some(Ownership::Unmarked) {
            return Ok(());
        }
        let text = read(&caddyfile)?.unwrap_or_default();
        let start = text
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let mut marked = render::mark(slug, self.identity.daemon()).into_bytes();
        marked.extend(text.get(start..).unwrap_or_default());
        Ok(write(&self.directory, &format!("{slug}.caddy"), &marked)?)
    }

    /// Parses a path into its preview and owner. Returns `None` for files that Innkeeper does not name so. The table's
    /// folder belongs to one daemon.
    fn parse(&self, path: &Path) -> Result<Option<(Option<GuestName>, Ownership)>, RouteError> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Ok(None);
        };
        let slug = |text: &str| GuestName::parse(text).ok();
        let temporary = |suffix: &str| {
            let inner = name.strip_prefix('.')?.strip_suffix(suffix)?;
            slug(inner).map(|_| None)
        };
        let guest = if path == self.previews.join(name) {
            slug(name).map(Some).or_else(|| temporary(".new"))
        } else if [&self.hosts, &self.guests]
            .iter()
            .any(|dir| path == dir.join(name))
        {
            owner(path)?.and_then(|owner| slug(&owner)).map(Some)
        } else if path == self.directory.join(name) {
            if let Some(slug) = name.strip_suffix(".caddy").and_then(slug) {
                let ownership = self.owner_of(path, &slug)?;
                return Ok(ownership.map(|ownership| (Some(slug), ownership)));
            }
            temporary(".caddy.new")
        } else {
            None
        };
        Ok(guest.map(|guest| (guest, Ownership::Ours)))
    }

    fn caddyfile(&self, slug: &GuestName) -> PathBuf {
        self.directory.join(format!("{slug}.caddy"))
    }

    fn temporary(&self, slug: &GuestName) -> PathBuf {
        self.previews.join(temporary_name(slug.as_str()))
    }

    /// Reports whether the table matches a preview exactly.
    fn is_current(&self, rendered: &RenderedRoute) -> Result<bool, RouteError> {
        let current = self.previews.join(rendered.slug.as_str());
        let hosts = current.join("hosts");
        let is_complete =
            names(&hosts)?.len() == rendered.hosts.len() && names(&current)?.len() == 1;
        if !is_complete {
            return Ok(false);
        }
        if let Some(guest) = rendered.guest {
            let guest = owner(&self.guests.join(guest.to_string()))?;
            if guest.as_deref() != Some(rendered.slug.as_str()) {
                return Ok(false);
            }
        }
        for (host, files) in &rendered.hosts {
            let is_linked =
                owner(&self.hosts.join(host))?.as_deref() == Some(rendered.slug.as_str());
            if !is_linked || !has_files(&hosts.join(host), files)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fails if the host belongs to another preview.
    fn check_claim(&self, slug: &GuestName, host: &str) -> Result<(), RouteError> {
        let link = self.hosts.join(host);
        match owner(&link)? {
            Some(owner) if owner != slug.as_str() && link.exists() => Err(RouteError::HostTaken {
                slug: slug.clone(),
                host: host.to_owned(),
                owner,
            }),
            _ => Ok(()),
        }
    }

    fn claim(&self, slug: &GuestName, host: &str) -> Result<(), RouteError> {
        let link = self.hosts.join(host);
        let target = format!("../previews/{slug}/hosts/{host}");
        if fs::read_link(&link).is_ok_and(|current| current == Path::new(&target)) {
            return Ok(());
        }
        tree::remove(&link)?;
        Ok(symlink(&target, &link).on("create", &link)?)
    }

    /// Links the address of a preview's guest to the preview's hosts, and removes its other links.
    fn link_guest(&self, slug: &GuestName, address: Option<Ipv4Addr>) -> Result<(), FileError> {
        let address = address.map(|address| address.to_string());
        for name in names(&self.guests)? {
            let link = self.guests.join(&name);
            if Some(&name) != address.as_ref() && owner(&link)?.as_deref() == Some(slug.as_str()) {
                tree::remove(&link)?;
            }
        }
        let Some(address) = address else {
            return Ok(());
        };
        let link = self.guests.join(address);
        if owner(&link)?.as_deref() == Some(slug.as_str()) {
            return Ok(());
        }
        // A former preview's link to the same address.
        tree::remove(&link)?;
        symlink(format!("../previews/{slug}/hosts"), &link).on("create", &link)
    }

    fn unclaim(&self, slug: &GuestName, host: &str) -> Result<(), RouteError> {
        let link = self.hosts.join(host);
        if owner(&link)?.as_deref() == Some(slug.as_str()) {
            tree::remove(&link)?;
        }
        Ok(())
    }
}

/// Returns the preview that a link in `hosts` points to.
fn owner(link: &Path) -> Result<Option<String>, FileError> {
    let target = match fs::read_link(link) {
        // Not a link, or absent.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
            ) =>
        {
            return Ok(None);
        }
        target => target.on("read", link)?,
    };
    let target = target.to_str().and_then(|t| t.strip_prefix("../previews/"));
    let owner = target.and_then(|t| t.split_once('/'));
    Ok(owner.map(|(slug, _)| slug.to_owned()))
}

/// Reports whether the directory of a host has these files and no others.
fn has_files(host: &Path, files: &[(String, String)]) -> Result<bool, FileError> {
    let top = |(dir, _): &(String, String)| dir.split('/').next().map(str::to_owned);
    let dirs: BTreeSet<_> = files.iter().filter_map(top).collect();
    // Lists only this directory: a listing of those below would count as a visit.
    let names = names(host)?.into_iter();
    Ok(
        names.filter(|name| name != settled::LINK).count() == dirs.len() + 1
            && read(&host.join(HOST_FILE))?.as_deref() == Some(listing(files).as_bytes())
            && files
                .iter()
                .all(|(dir, name)| host.join(dir).join(name).is_file()),
    )
}

/// Settles the hosts in a directory. The list of a host's files tells its app: a look into `live` would be a visit.
fn settle(hosts: &Path) -> Result<(), FileError> {
    for host in names(hosts)? {
        let host = hosts.join(host);
        let link = host.join(settled::LINK);
        if fs::symlink_metadata(&link).is_ok() {
            continue;
        }
        let listing = read(&host.join(HOST_FILE))?.unwrap_or_default();
        let listing = String::from_utf8_lossy(&listing);
        let mut app = listing.lines().filter_map(|line| line.split_once('/'));
        if let Some((_, app)) = app.find(|(dir, _)| *dir == render::LIVE_DIR) {
            visits::link(Path::new(&settled::link_to(app)), &link)?;
        }
    }
    Ok(())
}

/// Returns the contents of [`HOST_FILE`].
fn listing(files: &[(String, String)]) -> String {
    let line = |(dir, name): &(String, String)| format!("{dir}/{name}\n");
    files.iter().map(line).collect()
}

/// Reads the files of a host's directory, as its [`HOST_FILE`] lists them.
fn parse_listing(host: &Path) -> Result<Vec<(String, String)>, FileError> {
    let listing = read(&host.join(HOST_FILE))?.unwrap_or_default();
    let listing = String::from_utf8_lossy(&listing);
    let file = |line: &str| {
        let (dir, name) = line.rsplit_once('/')?;
        Some((dir.to_owned(), name.to_owned()))
    };
    Ok(listing.lines().filter_map(file).collect())
}

/// Creates the directory of a preview.
fn write_tree(
    root: &Path,
    hosts_files: &BTreeMap<String, Vec<(String, String)>>,
) -> Result<(), FileError> {
    make_dir(root)?;
    let hosts = root.join("hosts");
    make_dir(&hosts)?;
    for (host, files) in hosts_files {
        let host = hosts.join(host);
        make_dir(&host)?;
        create(&host.join(HOST_FILE), listing(files).as_bytes())?;
        for (dir, name) in files {
            let mut path = host.clone();
            for part in dir.split('/') {
                path.push(part);
                make_dir(&path)?;
            }
            create(&path.join(name), b"")?;
        }
    }
    visits::start(root)
}
