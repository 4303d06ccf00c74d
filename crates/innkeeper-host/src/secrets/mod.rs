//! A guest's keys, credentials and name resolution: files inside its tree.
//!
//! Everything is written through [`Tree`], so that a guest's links lead nowhere, and before the guest's
//! init runs. No value appears in a message, a log or a program's arguments.
//!
//! | in the guest | what | owner and mode |
//! | --- | --- | --- |
//! | `/etc/ssh/ssh_host_ed25519_key` | host key, made once | root, 0600 |
//! | `/etc/ssh/ssh_host_ed25519_key.pub` | its public half | root, 0644 |
//! | `/etc/ssh/authorized_keys.d/agent` | who may log in as `agent` | root, 0644 |
//! | `/mnt/claude-creds/` | a copy of the host's credentials directory | agent, 0500, files 0400 |
//! | `/etc/profile.d/claude-token.sh` | exports one of them | root, 0644 |
//! | `/etc/resolv.conf` | name servers | root, 0644 |
//! | `/etc/hostname`, `/etc/hosts` | if missing | root, 0644 |

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use innkeeper_facilities::FacilityError;
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Code, Explain, Guest, GuestKind, GuestName, chain};
use tracing::warn;

use crate::FileError;
use crate::features::UserIds;
use crate::tree::{Owner, Tree, blocking, write_to_disk};

mod nameservers;
mod openssh;
mod sources;

pub use nameservers::NameServers;

/// Where secrets come from and who gets them.
#[derive(Clone, Debug)]
pub struct SecretsConfig {
    /// The directory of the trees; a guest's tree is `<guests>/<name>/rootfs`.
    pub guests: PathBuf,
    /// Who owns a guest's files on disk.
    pub user_ids: UserIds,
    /// Lines of OpenSSH's `authorized_keys` format.
    pub authorized_keys: Vec<String>,
    /// Environment files whose `ADMIN_SSH_KEY` is an authorised key too, such as
    /// `/var/secrets/preview.env`. Missing files are fine.
    pub admin_key_files: Vec<PathBuf>,
    /// A directory whose files every guest gets, such as `/var/secrets/claude`. May be missing.
    pub credentials: Option<PathBuf>,
    /// The guest's user `agent`, as the guest counts.
    pub agent_uid: u32,
    /// The guest's group of that user, as the guest counts.
    pub agent_gid: u32,
    /// The guests' name servers.
    pub nameservers: NameServers,
}

/// Keys and credentials in files.
#[derive(Clone, Debug)]
pub struct GuestSecrets {
    config: Arc<SecretsConfig>,
}

/// A guest's keys or credentials could not be put into its tree.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file on the host or in the tree.
    #[error(transparent)]
    File(#[from] FileError),
    /// No host key could be made.
    #[error("cannot make an SSH host key for guest '{guest}'")]
    HostKey {
        /// The guest.
        guest: GuestName,
        /// Why.
        #[source]
        source: openssh::NoRandomBytes,
    },
}

impl From<SecretsError> for FacilityError {
    fn from(error: SecretsError) -> Self {
        Self::new(error)
    }
}

impl Explain for SecretsError {
    fn code(&self) -> Code {
        match self {
            Self::File(error) => error.code_or(Code::RootfsFailed),
            Self::HostKey { .. } => Code::RootfsFailed,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::File(error) => error.remedy(),
            Self::HostKey { .. } => Some(
                "The kernel gave no random bytes: look at `journalctl -k`, then create the guest again."
                    .to_owned(),
            ),
        }
    }
}

const SSH: &str = "etc/ssh";
const MACHINE_ID: &str = "etc/machine-id";

/// What else must not be the same in two guests: D-Bus's copy of the machine id, and what systemd seeds random
/// numbers with.
const IDENTITY: [&str; 2] = ["var/lib/dbus/machine-id", "var/lib/systemd/random-seed"];

const HOST_KEY: &str = "etc/ssh/ssh_host_ed25519_key";
const HOST_KEY_PUBLIC: &str = "etc/ssh/ssh_host_ed25519_key.pub";
const AUTHORIZED_KEYS: &str = "etc/ssh/authorized_keys.d/agent";
const CREDENTIALS: &str = "mnt/claude-creds";
const RESOLV_CONF: &str = "etc/resolv.conf";

/// Marks lists of name servers as ours: that of today, and that of former releases.
const RESOLVERS_HEADERS: [&str; 2] = [
    "# Written by Innkeeper, at each start of the guest and when the host's name servers change.\n",
    "# Written by Innkeeper at each start of the guest.\n",
];

/// More than the longest list of ours, in bytes.
const MAX_RESOLVERS: usize = 1 << 10;

const TOKEN_PROFILE: &str = "etc/profile.d/claude-token.sh";

/// The longest key file, in bytes.
const MAX_KEY: usize = 16 << 10;

/// The longest list of authorised keys, in bytes.
const MAX_AUTHORIZED_KEYS: usize = 16 << 20;

/// Marks a list of authorised keys as ours: only such a list is removed.
const AUTHORIZED_KEYS_HEADER: &str = "# Written by Innkeeper at each start of the guest.\n";

/// The path and the variable are the contract. Who cannot read the file gets no variable.
const TOKEN_PROFILE_TEXT: &str = "\
# Written by Innkeeper at each start of the guest.
if [ -r /mnt/claude-creds/oauth_token ]; then
  CLAUDE_CODE_OAUTH_TOKEN=\"$(cat /mnt/claude-creds/oauth_token)\"
  export CLAUDE_CODE_OAUTH_TOKEN
fi
";

impl GuestSecrets {
    /// The driver; nothing is touched yet.
    #[must_use]
    pub fn new(config: SecretsConfig) -> Self {
        Self {
            config: Arc::new(config),
        }
    }

    /// Does file work on a thread that may wait for the disk.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SecretsConfig) -> Result<T, SecretsError> + Send + 'static,
    ) -> Result<T, SecretsError> {
        let config = Arc::clone(&self.config);
        blocking(move || work(&config)).await
    }
}

#[async_trait]
impl innkeeper_facilities::Secrets for GuestSecrets {
    async fn ensure(&self, guest: &Guest) -> Result<String, FacilityError> {
        let of = guest.clone();
        Ok(self
            .work(move |config| Inside::of(config, &of)?.furnish())
            .await?)
    }

    async fn forget_identity(
        &self,
        guest: &Guest,
        former: &GuestName,
    ) -> Result<(), FacilityError> {
        let (of, former) = (guest.clone(), former.clone());
        Ok(self
            .work(move |config| Inside::of(config, &of)?.forget_identity(&former))
            .await?)
    }

    async fn withdraw(&self, guest: &Guest) -> Result<(), FacilityError> {
        let of = guest.clone();
        Ok(self
            .work(move |config| Inside::of(config, &of)?.withdraw())
            .await?)
    }

    async fn follow_host(&self, guest: &Guest) -> Result<(), FacilityError> {
        let of = guest.clone();
        Ok(self
            .work(move |config| Inside::of(config, &of)?.follow_host())
            .await?)
    }

    async fn check(&self) -> Vec<Check> {
        self.work(|config| {
            Ok(vec![
                check_keys(config),
                check_credentials(config),
                check_nameservers(config),
            ])
        })
        .await
        .unwrap_or_default()
    }
}

/// One guest's tree and what goes into it.
struct Inside<'a> {
    config: &'a SecretsConfig,
    guest: &'a Guest,
    tree: Tree,
}

impl<'a> Inside<'a> {
    fn of(config: &'a SecretsConfig, guest: &'a Guest) -> Result<Self, SecretsError> {
        let tree = Tree::open(&config.guests.join(guest.name.as_str()).join("rootfs"))?;
        Ok(Self {
            config,
            guest,
            tree,
        })
    }

    /// Writes everything, and returns the public half of the host key.
    fn furnish(&self) -> Result<String, SecretsError> {
        self.authorized_keys()?;
        match self.guest.kind {
            GuestKind::Agent => self.credentials()?,
            GuestKind::Preview => self.no_credentials()?,
        }
        self.name_resolution()?;
        if let Some(kept) = self.host_key()? {
            return Ok(kept);
        }
        let made = openssh::new_pair().map_err(|source| SecretsError::HostKey {
            guest: self.guest.name.clone(),
            source,
        })?;
        self.write_host_key(made)
    }

    /// Removes what made a copied tree another guest, from the disk too: nobody looks for it again. An empty
    /// `machine-id` is filled in at the next boot (machine-id(5)); what is removed is made anew, by us or by the guest.
    fn forget_identity(&self, former: &GuestName) -> Result<(), SecretsError> {
        self.remove_host_keys()?;
        for path in IDENTITY {
            self.tree.remove(Path::new(path))?;
        }
        self.tree
            .write(Path::new(MACHINE_ID), b"", self.owner(0, 0), 0o444)?;
        self.remove_names(former)?;
        self.write_to_disk()
    }

    /// Removes everything that the guest was given to be reached and to do its work, from the disk too. A guest that gets
    /// the files again is given all of it anew.
    fn withdraw(&self) -> Result<(), SecretsError> {
        self.remove_host_keys()?;
        self.remove_authorized_keys()?;
        self.no_credentials()?;
        self.remove_names(&self.guest.name)?;
        self.write_to_disk()
    }

    fn remove_host_keys(&self) -> Result<(), SecretsError> {
        let directory = Path::new(SSH);
        for name in self.tree.list(directory)? {
            if name.as_encoded_bytes().starts_with(b"ssh_host_") {
                self.tree.remove(&directory.join(name))?;
            }
        }
        Ok(())
    }

    /// Removes the files that tell the guest its name, unless they were changed.
    fn remove_names(&self, name: &GuestName) -> Result<(), SecretsError> {
        for (path, text) in names(name) {
            let found = self.tree.read(Path::new(path), text.len());
            if found.is_ok_and(|found| found == text.as_bytes()) {
                self.tree.remove(Path::new(path))?;
            }
        }
        Ok(())
    }

    fn write_to_disk(&self) -> Result<(), SecretsError> {
        let directory = self.config.guests.join(self.guest.name.as_str());
        Ok(write_to_disk(&directory.join("rootfs"))?)
    }

    fn owner(&self, uid: u32, gid: u32) -> Owner {
        let on_disk = |id| self.config.user_ids.on_disk(self.guest.slot, id);
        Owner {
            uid: on_disk(uid),
            gid: on_disk(gid),
        }
    }

    fn write(&self, path: &str, contents: &str) -> Result<(), FileError> {
        self.tree.write(
            Path::new(path),
            contents.as_bytes(),
            self.owner(0, 0),
            0o644,
        )
    }

    /// The public half of the pair in the tree, if the pair is whole: after a crash or a power cut it may
    /// not be.
    fn host_key(&self) -> Result<Option<String>, SecretsError> {
        let (Some(private), Some(public)) =
            (self.key_file(HOST_KEY)?, self.key_file(HOST_KEY_PUBLIC)?)
        else {
            return Ok(None);
        };
        Ok(openssh::public_half(&private, &public))
    }

    /// A file of the pair; nothing when there is something else than a key in its place.
    fn key_file(&self, path: &str) -> Result<Option<Vec<u8>>, SecretsError> {
        use io::ErrorKind::{FileTooLarge, InvalidData, NotADirectory, NotFound};
        let read = self.tree.read(Path::new(path), MAX_KEY);
        let no_key = |source: &io::Error| {
            matches!(
                source.kind(),
                NotFound | NotADirectory | InvalidData | FileTooLarge
            ) || rustix::io::Errno::from_io_error(source) == Some(rustix::io::Errno::LOOP)
        };
        match read {
            Err(error) if no_key(&error.source) => Ok(None),
            read => Ok(read.map(Some)?),
        }
    }

    /// The public half first: a pair with a missing half, or with halves of two pairs, is made anew.
    fn write_host_key(&self, key: openssh::Pair) -> Result<String, SecretsError> {
        let line = format!("{} {}\n", key.public, self.guest.name);
        self.write(HOST_KEY_PUBLIC, &line)?;
        self.tree.write(
            Path::new(HOST_KEY),
            key.private.as_bytes(),
            self.owner(0, 0),
            0o600,
        )?;
        Ok(key.public)
    }

    /// When there is no key any more, our own list goes: who lost the right must not keep it.
    fn authorized_keys(&self) -> Result<(), SecretsError> {
        let keys = self.config.authorized_keys()?.good;
        if !keys.is_empty() {
            let mut text = AUTHORIZED_KEYS_HEADER.to_owned();
            keys.iter().for_each(|key| text.extend([key, "\n"]));
            return Ok(self.write(AUTHORIZED_KEYS, &text)?);
        }
        self.remove_authorized_keys()
    }

    /// Removes the list of authorised keys, if it is ours.
    fn remove_authorized_keys(&self) -> Result<(), SecretsError> {
        let former = self
            .tree
            .read(Path::new(AUTHORIZED_KEYS), MAX_AUTHORIZED_KEYS);
        if former.is_ok_and(|text| text.starts_with(AUTHORIZED_KEYS_HEADER.as_bytes())) {
            self.tree.remove(Path::new(AUTHORIZED_KEYS))?;
        }
        Ok(())
    }

    /// Makes the guest's directory a copy of the host's: what vanished there goes here too.
    fn credentials(&self) -> Result<(), SecretsError> {
        self.write(TOKEN_PROFILE, TOKEN_PROFILE_TEXT)?;
        let credentials = self.config.credentials()?;
        let directory = Path::new(CREDENTIALS);
        if credentials.files.is_empty() && !self.tree.exists(directory)? {
            return Ok(());
        }
        let agent = self.owner(self.config.agent_uid, self.config.agent_gid);
        self.tree.make_dir(directory, agent, 0o500)?;
        for name in self.tree.list(directory)? {
            if !credentials.files.iter().any(|(file, _)| *file == name) {
                self.tree.remove(&directory.join(name))?;
            }
        }
        for (name, contents) in &credentials.files {
            self.tree
                .write(&directory.join(name), contents, agent, 0o400)?;
        }
        Ok(())
    }

    /// A preview runs what a pull request says, and the credentials are the host's own. Earlier versions gave them to
    /// previews too.
    fn no_credentials(&self) -> Result<(), SecretsError> {
        self.tree.remove(Path::new(CREDENTIALS))?;
        let profile = self
            .tree
            .read(Path::new(TOKEN_PROFILE), TOKEN_PROFILE_TEXT.len());
        if profile.is_ok_and(|text| text == TOKEN_PROFILE_TEXT.as_bytes()) {
            self.tree.remove(Path::new(TOKEN_PROFILE))?;
        }
        Ok(())
    }

    /// Name servers as a resolv.conf(5); nothing when there are none.
    fn resolvers(&self) -> Result<Option<String>, SecretsError> {
        let nameservers = self.config.nameservers.read()?;
        if nameservers.is_empty() {
            return Ok(None);
        }
        let mut text = RESOLVERS_HEADERS[0].to_owned();
        for address in nameservers.iter().take(MAX_NAMESERVERS) {
            // Writing into a string does not fail.
            writeln!(text, "nameserver {address}").ok();
        }
        Ok(Some(text))
    }

    /// Gives a running guest the name servers of this moment, unless it has written its own file or a link meanwhile.
    fn follow_host(&self) -> Result<(), SecretsError> {
        let Some(text) = self.resolvers()? else {
            return Ok(());
        };
        // What is no regular file, or longer than ours can be, is the guest's own.
        let Ok(found) = self.tree.read(Path::new(RESOLV_CONF), MAX_RESOLVERS) else {
            return Ok(());
        };
        if are_our_resolvers(&String::from_utf8_lossy(&found)) {
            self.write(RESOLV_CONF, &text)?;
        }
        Ok(())
    }

    /// The guest may set a name of its own, and NixOS brings its own files; neither is overwritten.
    fn name_resolution(&self) -> Result<(), SecretsError> {
        if let Some(text) = self.resolvers()? {
            self.write(RESOLV_CONF, &text)?;
        }
        for (path, text) in names(&self.guest.name) {
            if !self.tree.exists(Path::new(path))? {
                self.write(path, &text)?;
            }
        }
        Ok(())
    }
}

/// Whether a text is one of [`Inside::resolvers`], and nobody has added anything.
fn are_our_resolvers(text: &str) -> bool {
    let is_ours = |line: &str| line.starts_with("nameserver ");
    let lines = RESOLVERS_HEADERS
        .iter()
        .find_map(|header| text.strip_prefix(header));
    lines.is_some_and(|lines| lines.lines().all(is_ours))
}

/// The files that tell a guest its name.
fn names(name: &GuestName) -> [(&'static str, String); 2] {
    let hosts = format!("127.0.0.1 localhost\n::1 localhost\n127.0.0.2 {name}\n");
    [("etc/hostname", format!("{name}\n")), ("etc/hosts", hosts)]
}

/// How many name servers the C library looks at (resolv.conf(5), `MAXNS`).
const MAX_NAMESERVERS: usize = 3;

/// Authorised keys, and how many texts among them are none.
struct AuthorizedKeys {
    good: Vec<String>,
    bad: usize,
}

impl SecretsConfig {
    fn authorized_keys(&self) -> Result<AuthorizedKeys, FileError> {
        let mut keys = self.authorized_keys.clone();
        let mut invalid_lines = 0;
        for file in &self.admin_key_files {
            match sources::variable(file, "ADMIN_SSH_KEY")? {
                // A value of several lines has a key on each.
                Ok(value) => {
                    let lines = value.iter().flat_map(|value| value.lines());
                    keys.extend(
                        lines
                            .filter(|key| !key.trim().is_empty())
                            .map(str::to_owned),
                    );
                }
                Err(bad) => {
                    warn!("ADMIN_SSH_KEY of {} is ignored: {bad}", file.display());
                    invalid_lines += 1;
                }
            }
        }
        let all = keys.len() + invalid_lines;
        let mut good: Vec<String> = Vec::new();
        keys.retain(|key| openssh::is_authorized_key(key.trim()));
        let bad = all - keys.len();
        for key in keys {
            let key = key.trim();
            if !good.iter().any(|known| known == key) {
                good.push(key.to_owned());
            }
        }
        Ok(AuthorizedKeys { good, bad })
    }

    fn credentials(&self) -> Result<sources::Credentials, FileError> {
        self.credentials
            .as_deref()
            .map_or_else(|| Ok(Default::default()), sources::credentials)
    }
}

fn check_keys(config: &SecretsConfig) -> Check {
    let remedy = "Put a line like `ssh-ed25519 AAAA… name` into the configuration's authorised keys, or into ADMIN_SSH_KEY.";
    let (verdict, finding) = match config.authorized_keys() {
        Err(error) => (Verdict::Broken, chain(&error)),
        Ok(keys) if keys.bad > 0 => (
            Verdict::Warning,
            format!(
                "{} of {} authorised keys are no keys",
                keys.bad,
                keys.bad + keys.good.len()
            ),
        ),
        Ok(keys) if keys.good.is_empty() => (
            Verdict::Warning,
            "no authorised key: nobody can log in to guests with SSH".to_owned(),
        ),
        Ok(keys) => (Verdict::Ok, format!("{} authorised keys", keys.good.len())),
    };
    check("authorised keys", verdict, finding, remedy)
}

fn check_credentials(config: &SecretsConfig) -> Check {
    let Some(directory) = &config.credentials else {
        return check(
            "credentials",
            Verdict::Ok,
            "none are configured".to_owned(),
            "",
        );
    };
    let directory = directory.display();
    let (verdict, finding) = match config.credentials() {
        Err(error) => (Verdict::Broken, chain(&error)),
        Ok(found) => match found.skipped.first() {
            Some((name, reason)) => (
                Verdict::Warning,
                format!(
                    "{directory}/{} does not go into guests: {reason}",
                    name.display()
                ),
            ),
            None => (
                Verdict::Ok,
                format!("{} files in {directory}", found.files.len()),
            ),
        },
    };
    let remedy = "Put regular files of at most 64 KiB with plain names there, and nothing else.";
    check("credentials", verdict, finding, remedy)
}

fn check_nameservers(config: &SecretsConfig) -> Check {
    let (verdict, finding) = match config.nameservers.read() {
        Err(error) => (Verdict::Broken, chain(&error)),
        Ok(found) if found.is_empty() => (
            Verdict::Warning,
            "no name server that guests reach: they resolve no names".to_owned(),
        ),
        Ok(found) => {
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            (Verdict::Ok, found.join(", "))
        }
    };
    check(
        "name servers",
        verdict,
        finding,
        "Set name servers in the configuration, such as 9.9.9.9.",
    )
}

fn check(subject: &str, verdict: Verdict, finding: String, remedy: &str) -> Check {
    let remedy = (verdict != Verdict::Ok).then(|| remedy.to_owned());
    Check {
        subject: subject.to_owned(),
        verdict,
        finding,
        remedy,
    }
}

#[cfg(test)]
mod tests;
