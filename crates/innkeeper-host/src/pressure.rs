//! Files of `/proc/pressure` (Linux manual, "PSI").

use std::fs;
use std::path::Path;

/// Returns the average of the last ten seconds in one of the lines `some avg10=0.12 avg60=…` and `full avg10=0.12 avg60=…`. `None` on
/// a kernel without PSI, or where it is turned off: reading then fails.
pub(crate) fn average(file: &Path, line: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let fields = text
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(' '))?;
    let average = fields
        .split_ascii_whitespace()
        .find_map(|field| field.strip_prefix("avg10="))?;
    average.parse().ok()
}
