//! The report of `innkeeperd --check-start`.

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::api::Setting;

/// Whether a daemon would start with a configuration and the present database, as `innkeeperd --check-start` prints it in
/// JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartReport {
    /// The daemon's version.
    pub version: String,
    /// The newest version of the database that the daemon supports.
    pub supported_schema: i64,
    /// Every setting in force; empty if the configuration is invalid.
    #[serde(default)]
    pub settings: Vec<Setting>,
    /// The domain of previews, if it is set and can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The version of the database, if one exists and can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<i64>,
    /// The number of guests in the database, if it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guests: Option<usize>,
    /// The failure of the start, or of the check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}
