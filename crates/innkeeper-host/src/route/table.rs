//! The files of the routes: one for each preview in Caddy's directory, and the table that Caddy reads.
//!
//! ```text
//! <directory>/<slug>.caddy                 the route, for Caddy's next start
//! <table>/lookup.html                      the template that answers every lookup
//! <table>/hosts/<host>                     -> ../previews/<slug>/hosts/<host>
//! <table>/previews/<slug>/hosts/<host>     the template that answers the lookups for this host
//! <table>/previews/<slug>/…                the pages of a placeholder, or the mark of the live route
//! ```
//!
//! `<table>/previews/<slug>` is exchanged as a whole, so that all hosts of a preview change in the same
//! moment, and taken away as a whole. A link in `hosts` also says who has the host; one that leads nowhere
//! binds nobody. What is made aside has a name with a dot in front, which no slug has.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use innkeeper_facilities::Found;
use innkeeper_model::preview::RESERVED_SLUGS;
use innkeeper_model::{GuestName, Ownership};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::RouteError;
use super::config::CaddyConfig;
use super::render::{self, FRONT_FILE, Front, LOOKUP_FILE, LOOKUP_TEMPLATE, MARKED, Rendered};
use super::visits;
use crate::identity::Identity;
use crate::{FileError, FileErrorExt, tree};

/// The two directories. One writer at a time is assumed.
#[derive(Clone, Debug)]
pub(super) struct Table {
    directory: PathBuf,
    hosts: PathBuf,
    pub(super) previews: PathBuf,
    root: PathBuf,
    identity: Identity,
}

/// What the files of a preview are beside what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// There is none.
    None,
    /// The table differs; Caddy's file does not.
    Table,
    /// Caddy's file differs.
    Caddyfile,
}

impl Table {
    pub(super) fn new(config: &CaddyConfig) -> Self {
        Self {
            directory: config.directory.clone(),
            hosts: config.table.join("hosts"),
            previews: config.table.join("previews"),
            root: config.table.clone(),
            identity: config.identity.clone(),
        }
    }

    /// Writes what all previews share and returns what stood there before, for [`Self::put_back`].
    pub(super) fn put_front(&self, front: &Front) -> Result<[Option<Vec<u8>>; 2], FileError> {
        make_dir(&self.directory)?;
        for dir in [&self.root, &self.hosts, &self.previews] {
            make_dir(dir)?;
        }
        write(&self.root, "lookup.html", LOOKUP_TEMPLATE.as_bytes())?;
        let before = [
            read(&self.directory.join(LOOKUP_FILE))?,
            read(&self.directory.join(FRONT_FILE))?,
        ];
        write(&self.directory, LOOKUP_FILE, front.lookup.as_bytes())?;
        write(&self.directory, FRONT_FILE, front.sites.as_bytes())?;
        Ok(before)
    }

    /// Whether all is there that [`Self::put_front`] writes.
    pub(super) fn has_front(&self, front: &Front) -> Result<bool, FileError> {
        for (dir, name, contents) in [
            (&self.root, "lookup.html", LOOKUP_TEMPLATE),
            (&self.directory, LOOKUP_FILE, front.lookup.as_str()),
            (&self.directory, FRONT_FILE, front.sites.as_str()),
        ] {
            if read(&dir.join(name))?.as_deref() != Some(contents.as_bytes()) {
                return Ok(false);
            }
        }
        Ok(self.hosts.is_dir() && self.previews.is_dir())
    }

    /// Takes back what [`Self::put_front`] did.
    pub(super) fn put_back(&self, before: [Option<Vec<u8>>; 2]) -> Result<(), FileError> {
        // The sites go first: they import the other file.
        for (name, contents) in [FRONT_FILE, LOOKUP_FILE]
            .into_iter()
            .zip(before.into_iter().rev())
        {
            match contents {
                Some(contents) => write(&self.directory, name, &contents)?,
                None => tree::remove(&self.directory.join(name))?,
            }
        }
        Ok(())
    }

    /// How the preview's files differ from what they should be.
    ///
    /// Fails when a host belongs to another preview or Caddy's file is not ours.
    pub(super) fn compare(&self, rendered: &Rendered) -> Result<Difference, RouteError> {
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
    pub(super) fn put(&self, rendered: &Rendered) -> Result<(), RouteError> {
        // Again, because another preview may have taken a host since.
        if self.compare(rendered)? == Difference::None {
            return Ok(());
        }
        let slug = &rendered.slug;
        let name = format!("{slug}.caddy");
        write(&self.directory, &name, rendered.caddyfile.as_bytes())?;
        for host in rendered.hosts.keys() {
            self.claim(slug, host)?;
        }
        let (place, aside) = (self.previews.join(slug.as_str()), self.aside(slug));
        tree::remove(&aside)?;
        fill(&aside, rendered)?;
        exchange(&aside, &place)?;
        // From here on, aside is what was in force before.
        for host in names(&aside.join("hosts"))? {
            if !rendered.hosts.contains_key(&host) {
                self.unclaim(slug, &host)?;
            }
        }
        Ok(tree::remove(&aside)?)
    }

    /// Takes a preview's files away. Its route ends with the first step.
    pub(super) fn remove(&self, slug: &GuestName) -> Result<(), RouteError> {
        let (place, aside) = (self.previews.join(slug.as_str()), self.aside(slug));
        tree::remove(&aside)?;
        match fs::rename(&place, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome.on("remove", &place)?,
        }
        let caddyfile = self.caddyfile(slug);
        tree::remove(&self.directory.join(aside_name(&format!("{slug}.caddy"))))?;
        if !RESERVED_SLUGS.contains(&slug.as_str()) && self.may_change(&caddyfile, slug)? {
            tree::remove(&caddyfile)?;
        }
        for host in names(&self.hosts)? {
            self.unclaim(slug, &host)?;
        }
        Ok(tree::remove(&aside)?)
    }

    /// Everything that has our naming.
    pub(super) fn observe(&self) -> Result<Vec<Found>, RouteError> {
        let mut found = Vec::new();
        for dir in [&self.directory, &self.previews, &self.hosts] {
            for name in names(dir)? {
                let path = dir.join(name);
                if let Some((guest, ownership)) = self.belongs_to(&path)? {
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

    /// Removes one thing that [`Self::observe`] found.
    pub(super) fn sweep(&self, found: &Found) -> Result<(), RouteError> {
        let object = found.object.as_str();
        let path = Path::new(object);
        if let Some((_, ownership)) = self.belongs_to(path)? {
            let is_same = ownership == found.ownership && ownership != Ownership::Other;
            // By now it may be somebody else's.
            if is_same {
                tree::remove(path)?;
            }
            return Ok(());
        }
        // What is gone is swept; what is there and is not ours stays.
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_inside(path) => Ok(()),
            _ => Err(RouteError::Foreign {
                object: object.to_owned(),
            }),
        }
    }

    fn is_inside(&self, path: &Path) -> bool {
        let dirs = [&self.directory, &self.previews, &self.hosts];
        let name = path.file_name();
        name.is_some_and(|name| dirs.iter().any(|dir| path == dir.join(name)))
    }

    /// Whether a preview's file may be changed: it is ours, or one of a former release while those are adopted.
    fn may_change(&self, caddyfile: &Path, slug: &GuestName) -> Result<bool, FileError> {
        let ownership = self.owner_of(caddyfile, slug)?;
        Ok(ownership.is_some_and(|ownership| self.identity.may_change(ownership)))
    }

    /// Whose file of a preview this is; `None` when it was not written by Innkeeper for this preview.
    fn owner_of(&self, caddyfile: &Path, slug: &GuestName) -> Result<Option<Ownership>, FileError> {
        let marked = first_line(caddyfile)?.as_deref().and_then(render::marked);
        let of_preview = marked.filter(|(of, _)| of == slug);
        Ok(of_preview.map(|(_, daemon)| self.identity.ownership(daemon.as_ref())))
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

    /// The preview that a path belongs to, if it has our naming, and whose it is. The table's own folder has one daemon.
    fn belongs_to(
        &self,
        path: &Path,
    ) -> Result<Option<(Option<GuestName>, Ownership)>, RouteError> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Ok(None);
        };
        let slug = |text: &str| GuestName::parse(text).ok();
        let remains = |suffix: &str| {
            let inner = name.strip_prefix('.')?.strip_suffix(suffix)?;
            slug(inner).map(|_| None)
        };
        let guest = if path == self.previews.join(name) {
            slug(name).map(Some).or_else(|| remains(".new"))
        } else if path == self.hosts.join(name) {
            owner(path)?.and_then(|owner| slug(&owner)).map(Some)
        } else if path == self.directory.join(name) {
            if let Some(slug) = name.strip_suffix(".caddy").and_then(slug) {
                let ownership = self.owner_of(path, &slug)?;
                return Ok(ownership.map(|ownership| (Some(slug), ownership)));
            }
            remains(".caddy.new")
        } else {
            None
        };
        Ok(guest.map(|guest| (guest, Ownership::Ours)))
    }

    fn caddyfile(&self, slug: &GuestName) -> PathBuf {
        self.directory.join(format!("{slug}.caddy"))
    }

    fn aside(&self, slug: &GuestName) -> PathBuf {
        self.previews.join(aside_name(slug.as_str()))
    }

    /// Whether the table has exactly what it should have for a preview.
    fn is_current(&self, rendered: &Rendered) -> Result<bool, RouteError> {
        let place = self.previews.join(rendered.slug.as_str());
        let hosts = place.join("hosts");
        let is_complete = names(&hosts)?.len() == rendered.hosts.len()
            && names(&place)?.len() == rendered.files.len() + rendered.mark.iter().len() + 1;
        // Looked at and not followed, which would be a visit.
        let is_marked = rendered.mark.as_ref().is_none_or(|mark| {
            fs::symlink_metadata(place.join(mark)).is_ok_and(|mark| mark.is_symlink())
        });
        if !is_complete || !is_marked {
            return Ok(false);
        }
        for (host, contents) in &rendered.hosts {
            let is_same =
                visits::read_unnoticed(&hosts.join(host))?.as_deref() == Some(contents.as_bytes());
            let is_linked =
                owner(&self.hosts.join(host))?.as_deref() == Some(rendered.slug.as_str());
            if !is_same || !is_linked {
                return Ok(false);
            }
        }
        for (name, contents) in &rendered.files {
            if read(&place.join(name))?.as_deref() != Some(contents.as_bytes()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fails when another preview has the host.
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
        if fs::read_link(&link).is_ok_and(|now| now == Path::new(&target)) {
            return Ok(());
        }
        tree::remove(&link)?;
        Ok(symlink(&target, &link).on("create", &link)?)
    }

    fn unclaim(&self, slug: &GuestName, host: &str) -> Result<(), RouteError> {
        let link = self.hosts.join(host);
        if owner(&link)?.as_deref() == Some(slug.as_str()) {
            tree::remove(&link)?;
        }
        Ok(())
    }
}

/// The preview that a link in `hosts` leads to.
fn owner(link: &Path) -> Result<Option<String>, FileError> {
    let target = match fs::read_link(link) {
        // No link, or nothing at all.
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

/// The first line of a file, with its end; `None` when there is no file, or its first line is none of ours.
fn first_line(path: &Path) -> Result<Option<String>, FileError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.on("open", path)?,
    };
    let mut line = Vec::new();
    // No line of ours is longer; somebody else's file may be one line of any length.
    BufReader::new(file.take(256))
        .read_until(b'\n', &mut line)
        .on("read", path)?;
    Ok(String::from_utf8(line).ok())
}

/// Makes the directory of a preview aside.
fn fill(aside: &Path, rendered: &Rendered) -> Result<(), FileError> {
    make_dir(aside)?;
    let hosts = aside.join("hosts");
    make_dir(&hosts)?;
    for (dir, files) in [
        (&hosts, &rendered.hosts),
        (&aside.to_owned(), &rendered.files),
    ] {
        for (name, contents) in files {
            create(&dir.join(name), contents.as_bytes())?;
        }
    }
    if let Some(mark) = &rendered.mark {
        let mark = aside.join(mark);
        symlink(MARKED, &mark).on("create", &mark)?;
    }
    visits::begin(aside)
}

/// Puts `aside` into its place; what stands there changes places with it.
fn exchange(aside: &Path, place: &Path) -> Result<(), FileError> {
    match renameat_with(CWD, aside, CWD, place, RenameFlags::EXCHANGE) {
        Err(rustix::io::Errno::NOENT) => fs::rename(aside, place).on("create", place),
        outcome => outcome.on("replace", place),
    }
}

fn aside_name(name: &str) -> String {
    format!(".{name}.new")
}

/// The names in a directory, in order; none when it is not there. Names that are not UTF-8 are not ours.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, FileError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.on("list", dir)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.on("list", dir)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// A file's contents; nothing when it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        contents => contents.on("read", path).map(Some),
    }
}

/// Makes a directory that Caddy can read. One that is there keeps its owner and mode.
fn make_dir(dir: &Path) -> Result<(), FileError> {
    if dir.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(dir).on("create", dir)?;
    // Whatever our umask is.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).on("change", dir)
}

/// Writes a file aside and renames it into place, unless it has these contents already. What is in place
/// survives a loss of power.
fn write(dir: &Path, name: &str, contents: &[u8]) -> Result<(), FileError> {
    let path = dir.join(name);
    if read(&path)?.as_deref() == Some(contents) {
        return Ok(());
    }
    let aside = dir.join(aside_name(name));
    tree::remove(&aside)?;
    let file = create(&aside, contents)?;
    file.sync_all().on("write", &aside)?;
    fs::rename(&aside, &path).on("create", &path)
}

/// Makes a new file that Caddy can read.
fn create(path: &Path, contents: &[u8]) -> Result<File, FileError> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o644);
    let mut file = options.open(path).on("create", path)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))
        .on("change", path)?;
    file.write_all(contents).on("write", path)?;
    Ok(file)
}
