//! The paths of Unix sockets in the configuration.

use std::path::Path;

use crate::ConfigError;

/// The maximum length of a socket's path: `sockaddr_un` has 108 bytes, including the final NUL (unix(7)).
const MAX_LENGTH: usize = 107;

/// Checks the path of a socket.
///
/// # Errors
/// [`ConfigError::Value`] if it is relative or too long.
pub(crate) fn check(setting: &'static str, path: &Path) -> Result<(), ConfigError> {
    if !path.is_absolute() {
        return Err(ConfigError::value(setting, "the path must start with '/'"));
    }
    if path.as_os_str().len() > MAX_LENGTH {
        return Err(ConfigError::value(
            setting,
            "the path of a socket has 107 bytes at most",
        ));
    }
    Ok(())
}
