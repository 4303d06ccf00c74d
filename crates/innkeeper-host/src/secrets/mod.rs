//! A guest's keys, credentials and name resolution: files inside its tree.
//!
//! All files are written through [`Tree`], so that a guest's links cannot redirect them, and before the guest's init runs.
//! Secrets must not appear in a message, a log or a program's arguments.
//!
//! | file in the guest | contents | owner and mode |
//! | --- | --- | --- |
//! | `/etc/ssh/ssh_host_ed25519_key` | host key, generated once | root, 0600 |
//! | `/etc/ssh/ssh_host_ed25519_key.pub` | its public half | root, 0644 |
//! | `/etc/ssh/authorized_keys.d/agent` | authorized keys of `agent` | root, 0644 |
//! | `/mnt/claude-creds/` | a copy of the host's credentials directory | agent, 0500, files 0400 |
//! | `/etc/profile.d/claude-token.sh` | exports one credential | root, 0644 |
//! | `/etc/resolv.conf` | name servers | root, 0644 |
//! | `/etc/hostname`, `/etc/hosts` | if missing | root, 0644 |

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use innkeeper_facilities::FacilityError;
use innkeeper_model::api::Check;
use innkeeper_model::{Code, Explain, Guest, GuestKind, GuestName, SlotRange};
use tracing::warn;

use crate::FileError;
use crate::features::UserIds;
use crate::tree::{Owner, Tree, blocking, write_to_disk};

mod check;
mod nameservers;
mod openssh;
mod sources;

pub use nameservers::NameServers;

/// Sources and owners of guests' secrets.
#[derive(Clone, Debug)]
pub struct SecretsConfig {
    /// Directory of the trees. A guest's tree is `<guests>/<name>/rootfs`.
    pub guests: PathBuf,
    /// Mapping of a guest's user ids on disk.
    pub user_ids: UserIds,
    /// Lines of OpenSSH's `authorized_keys` format.
    pub authorized_keys: Vec<String>,
    /// Environment files whose `ADMIN_SSH_KEY` is an authorized key too, such as `/var/secrets/preview.env`. Files may be
    /// missing.
    pub admin_key_files: Vec<PathBuf>,
    /// Directory whose files every agent receives, such as `/var/secrets/claude`. May be missing.
    pub credentials: Option<PathBuf>,
    /// UID of `agent` inside the guest.
    pub agent_uid: u32,
    /// GID of `agent` inside the guest.
    pub agent_gid: u32,
    /// The guests' name servers.
    pub nameservers: NameServers,
    /// The guests' addresses, with those of their gateways.
    pub range: SlotRange,
}

/// Writes keys and credentials into guests' trees.
#[derive(Clone, Debug)]
pub struct GuestSecrets {
    config: Arc<SecretsConfig>,
}

/// A guest's keys or credentials that cannot be written into its tree.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file on the host or in the tree.
    #[error(transparent)]
    File(#[from] FileError),
    /// The generation of a host key failed.
    #[error("cannot generate an SSH host key for guest '{guest}'")]
    HostKey {
        /// The guest.
        guest: GuestName,
        /// The cause.
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
                "The kernel returned no random bytes: check `journalctl -k`, then create the guest again."
                    .to_owned(),
            ),
        }
    }
}

const SSH: &str = "etc/ssh";
const MACHINE_ID: &str = "etc/machine-id";

/// Further files that must not be the same in two guests: D-Bus's copy of the machine id, and systemd's random seed.
const IDENTITY: [&str; 2] = ["var/lib/dbus/machine-id", "var/lib/systemd/random-seed"];

const HOST_KEY: &str = "etc/ssh/ssh_host_ed25519_key";
const HOST_KEY_PUBLIC: &str = "etc/ssh/ssh_host_ed25519_key.pub";
const AUTHORIZED_KEYS: &str = "etc/ssh/authorized_keys.d/agent";
const CREDENTIALS: &str = "mnt/claude-creds";
const RESOLV_CONF: &str = "etc/resolv.conf";

/// Headers of lists of name servers that Innkeeper wrote: the current one, and that of former releases.
const RESOLVERS_HEADERS: [&str; 2] = [
    "# Written by Innkeeper, at each start of the guest and when the host's name servers change.\n",
    "# Written by Innkeeper at each start of the guest.\n",
];

/// Maximum size of a list of name servers that Innkeeper wrote, in bytes.
const MAX_RESOLVERS: usize = 1 << 10;

const TOKEN_PROFILE: &str = "etc/profile.d/claude-token.sh";

/// Maximum size of a key file, in bytes.
const MAX_KEY: usize = 16 << 10;

/// Maximum size of a list of authorized keys, in bytes.
const MAX_AUTHORIZED_KEYS: usize = 16 << 20;

/// Header of a list of authorized keys that Innkeeper wrote. Other lists are never removed.
const AUTHORIZED_KEYS_HEADER: &str = "# Written by Innkeeper at each start of the guest.\n";

/// Exports the token for users who can read it. Path and variable are a contract.
const TOKEN_PROFILE_TEXT: &str = "\
# Written by Innkeeper at each start of the guest.
if [ -r /mnt/claude-creds/oauth_token ]; then
  CLAUDE_CODE_OAUTH_TOKEN=\"$(cat /mnt/claude-creds/oauth_token)\"
  export CLAUDE_CODE_OAUTH_TOKEN
fi
";

impl GuestSecrets {
    /// Creates the driver without touching the host.
    #[must_use]
    pub fn new(config: SecretsConfig) -> Self {
        Self {
            config: Arc::new(config),
        }
    }

    /// Runs file operations on a blocking thread.
    async fn blocking<T: Send + 'static>(
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
        let guest = guest.clone();
        Ok(self
            .blocking(move |config| GuestTree::open(config, &guest)?.write_all())
            .await?)
    }

    async fn take_over(&self, guest: &Guest, former: &GuestName) -> Result<String, FacilityError> {
        let (guest, former) = (guest.clone(), former.clone());
        Ok(self
            .blocking(move |config| GuestTree::open(config, &guest)?.take_over(&former))
            .await?)
    }

    async fn forget_identity(
        &self,
        guest: &Guest,
        former: &GuestName,
    ) -> Result<(), FacilityError> {
        let (guest, former) = (guest.clone(), former.clone());
        Ok(self
            .blocking(move |config| GuestTree::open(config, &guest)?.forget_identity(&former))
            .await?)
    }

    async fn withdraw(&self, guest: &Guest) -> Result<(), FacilityError> {
        let guest = guest.clone();
        Ok(self
            .blocking(move |config| GuestTree::open(config, &guest)?.withdraw())
            .await?)
    }

    async fn follow_host(&self, guest: &Guest) -> Result<(), FacilityError> {
        let guest = guest.clone();
        Ok(self
            .blocking(move |config| GuestTree::open(config, &guest)?.follow_host())
            .await?)
    }

    async fn check(&self) -> Vec<Check> {
        let files = self.blocking(|config| {
            Ok(vec![
                check::keys(config),
                check::credentials(config),
                check::nameservers(config),
            ])
        });
        let mut checks = files.await.unwrap_or_default();
        if let Some(resolver) = self.config.nameservers.resolver() {
            checks.push(resolver.check().await);
        }
        checks
    }
}

/// One guest's tree with its secrets.
struct GuestTree<'a> {
    config: &'a SecretsConfig,
    guest: &'a Guest,
    tree: Tree,
}

impl<'a> GuestTree<'a> {
    fn open(config: &'a SecretsConfig, guest: &'a Guest) -> Result<Self, SecretsError> {
        let tree = Tree::open(&config.guests.join(guest.name.as_str()).join("rootfs"))?;
        Ok(Self {
            config,
            guest,
            tree,
        })
    }

    /// Writes all files, and returns the public half of the host key.
    fn write_all(&self) -> Result<String, SecretsError> {
        self.write_authorized_keys()?;
        match self.guest.kind {
            GuestKind::Agent => self.write_credentials()?,
            GuestKind::Preview => self.remove_credentials()?,
        }
        self.write_name_resolution()?;
        if let Some(existing) = self.host_key()? {
            return Ok(existing);
        }
        let pair = openssh::new_pair().map_err(|source| SecretsError::HostKey {
            guest: self.guest.name.clone(),
            source,
        })?;
        self.write_host_key(pair)
    }

    /// Replaces the former guest's name by the guest's, and writes all files. The key pair stays, with another comment.
    fn take_over(&self, former: &GuestName) -> Result<String, SecretsError> {
        self.remove_names(former)?;
        let public = self.write_all()?;
        self.write_public_half(&public)?;
        Ok(public)
    }

    /// Removes the former guest's identity from a copied tree. Durable, since it is not repeated. The next boot fills in an
    /// empty `machine-id` (machine-id(5)); Innkeeper or the guest creates the removed files again.
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

    /// Removes all keys, credentials and names from a tree, durably. [`Self::write_all`] writes them again if the tree gets
    /// another guest.
    fn withdraw(&self) -> Result<(), SecretsError> {
        self.remove_host_keys()?;
        self.remove_authorized_keys()?;
        self.remove_credentials()?;
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

    /// Removes the files with the guest's name, unless they were changed.
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

    /// Returns the public half of the key pair in the tree, or `None` if the pair is incomplete, as after a crash or a power
    /// loss.
    fn host_key(&self) -> Result<Option<String>, SecretsError> {
        let (Some(private), Some(public)) =
            (self.key_file(HOST_KEY)?, self.key_file(HOST_KEY_PUBLIC)?)
        else {
            return Ok(None);
        };
        Ok(openssh::public_half(&private, &public))
    }

    /// Reads a file of the pair, or returns `None` if it is absent or something else.
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

    /// Writes the public half first. A pair with a missing half, or with halves of two pairs, is replaced by the next call.
    fn write_host_key(&self, key: openssh::Pair) -> Result<String, SecretsError> {
        self.write_public_half(&key.public)?;
        self.tree.write(
            Path::new(HOST_KEY),
            key.private.as_bytes(),
            self.owner(0, 0),
            0o600,
        )?;
        Ok(key.public)
    }

    fn write_public_half(&self, public: &str) -> Result<(), FileError> {
        let line = format!("{public} {}\n", self.guest.name);
        self.write(HOST_KEY_PUBLIC, &line)
    }

    /// Writes the authorized keys. Without any key, removes the list: revoked keys must not remain.
    fn write_authorized_keys(&self) -> Result<(), SecretsError> {
        let keys = self.config.authorized_keys()?.valid;
        if !keys.is_empty() {
            let mut text = AUTHORIZED_KEYS_HEADER.to_owned();
            keys.iter().for_each(|key| text.extend([key, "\n"]));
            return Ok(self.write(AUTHORIZED_KEYS, &text)?);
        }
        self.remove_authorized_keys()
    }

    /// Removes the list of authorized keys if Innkeeper wrote it.
    fn remove_authorized_keys(&self) -> Result<(), SecretsError> {
        let former = self
            .tree
            .read(Path::new(AUTHORIZED_KEYS), MAX_AUTHORIZED_KEYS);
        if former.is_ok_and(|text| text.starts_with(AUTHORIZED_KEYS_HEADER.as_bytes())) {
            self.tree.remove(Path::new(AUTHORIZED_KEYS))?;
        }
        Ok(())
    }

    /// Makes the guest's directory a copy of the host's, including removals.
    fn write_credentials(&self) -> Result<(), SecretsError> {
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

    /// Removes the credentials. Previews must not have them, since they run code of pull requests; former releases gave them
    /// to previews too.
    fn remove_credentials(&self) -> Result<(), SecretsError> {
        self.tree.remove(Path::new(CREDENTIALS))?;
        let profile = self
            .tree
            .read(Path::new(TOKEN_PROFILE), TOKEN_PROFILE_TEXT.len());
        if profile.is_ok_and(|text| text == TOKEN_PROFILE_TEXT.as_bytes()) {
            self.tree.remove(Path::new(TOKEN_PROFILE))?;
        }
        Ok(())
    }

    /// Formats the name servers as a resolv.conf(5): the resolver on the guest's gateway, and those of the host for the time
    /// in which it is dead. Returns `None` without any of the host.
    fn resolvers(&self) -> Result<Option<String>, SecretsError> {
        let mut nameservers = self.config.nameservers.read()?;
        if nameservers.is_empty() {
            return Ok(None);
        }
        if self.config.nameservers.listening_resolver().is_some()
            && let Some(addresses) = self.config.range.addresses(self.guest.slot)
        {
            nameservers.insert(0, addresses.host.into());
        }
        let mut text = RESOLVERS_HEADERS[0].to_owned();
        for address in nameservers.iter().take(MAX_NAMESERVERS) {
            // Writing into a string does not fail.
            writeln!(text, "nameserver {address}").ok();
        }
        Ok(Some(text))
    }

    /// Updates a running guest's name servers, unless the guest has written its own file or a link.
    fn follow_host(&self) -> Result<(), SecretsError> {
        let Some(text) = self.resolvers()? else {
            return Ok(());
        };
        // Another kind of file, or a longer one, is the guest's own.
        let Ok(found) = self.tree.read(Path::new(RESOLV_CONF), MAX_RESOLVERS) else {
            return Ok(());
        };
        if is_written_by_innkeeper(&String::from_utf8_lossy(&found)) {
            self.write(RESOLV_CONF, &text)?;
        }
        Ok(())
    }

    /// Writes the name servers and the guest's name. Never overwrites an existing name, which the guest or NixOS may have
    /// set.
    fn write_name_resolution(&self) -> Result<(), SecretsError> {
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

/// Reports whether a text is an unmodified output of [`GuestTree::resolvers`].
fn is_written_by_innkeeper(text: &str) -> bool {
    let is_nameserver = |line: &str| line.starts_with("nameserver ");
    let lines = RESOLVERS_HEADERS
        .iter()
        .find_map(|header| text.strip_prefix(header));
    lines.is_some_and(|lines| lines.lines().all(is_nameserver))
}

/// Returns the files with a guest's name, and their contents.
fn names(name: &GuestName) -> [(&'static str, String); 2] {
    let hosts = format!("127.0.0.1 localhost\n::1 localhost\n127.0.0.2 {name}\n");
    [("etc/hostname", format!("{name}\n")), ("etc/hosts", hosts)]
}

/// Number of name servers that the C library uses (resolv.conf(5), `MAXNS`).
const MAX_NAMESERVERS: usize = 3;

/// Valid authorized keys, and the number of invalid ones.
struct AuthorizedKeys {
    valid: Vec<String>,
    invalid: usize,
}

impl SecretsConfig {
    fn authorized_keys(&self) -> Result<AuthorizedKeys, FileError> {
        let mut keys = self.authorized_keys.clone();
        let mut invalid_lines = 0;
        for file in &self.admin_key_files {
            match sources::variable(file, "ADMIN_SSH_KEY")? {
                // One key per line of the value.
                Ok(value) => {
                    let lines = value.iter().flat_map(|value| value.lines());
                    keys.extend(
                        lines
                            .filter(|key| !key.trim().is_empty())
                            .map(str::to_owned),
                    );
                }
                Err(error) => {
                    warn!("ignoring ADMIN_SSH_KEY of {}: {error}", file.display());
                    invalid_lines += 1;
                }
            }
        }
        let all = keys.len() + invalid_lines;
        let mut valid: Vec<String> = Vec::new();
        keys.retain(|key| openssh::is_authorized_key(key.trim()));
        let invalid = all - keys.len();
        for key in keys {
            let key = key.trim();
            if !valid.iter().any(|known| known == key) {
                valid.push(key.to_owned());
            }
        }
        Ok(AuthorizedKeys { valid, invalid })
    }

    fn credentials(&self) -> Result<sources::Credentials, FileError> {
        self.credentials
            .as_deref()
            .map_or_else(|| Ok(Default::default()), sources::credentials)
    }
}

#[cfg(test)]
mod tests;
