//! Reads the load of the host's processors: `/proc/pressure/cpu` (Linux manual, "PSI"), or `/proc/loadavg` on a kernel without it.

use std::fs;
use std::path::PathBuf;

use innkeeper_facilities::{FacilityError, Load};
use innkeeper_model::{Code, Explain};

use crate::pressure::average;
use crate::{FileError, FileErrorExt};

/// Sources of the host's load.
#[derive(Clone, Debug)]
pub struct HostLoad {
    proc: PathBuf,
}

impl Default for HostLoad {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
        }
    }
}

/// The load cannot be read.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the host's load")]
    Unreadable(#[from] FileError),
    /// The file has another form.
    #[error("the kernel does not report a load in /proc/loadavg")]
    Missing,
}

impl Explain for LoadError {
    fn code(&self) -> Code {
        match self {
            Self::Unreadable(error) => error.code_or(Code::KernelFeatureMissing),
            Self::Missing => Code::KernelFeatureMissing,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Unreadable(error) => error.remedy(),
            Self::Missing => Some("Mount /proc as proc(5) describes it.".to_owned()),
        }
    }
}

impl From<LoadError> for FacilityError {
    fn from(error: LoadError) -> Self {
        Self::new(error)
    }
}

impl HostLoad {
    fn waiting(&self, processors: f64) -> Result<f64, LoadError> {
        if let Some(waiting) = average(&self.proc.join("pressure/cpu"), "some") {
            return Ok(waiting);
        }
        let path = self.proc.join("loadavg");
        let text = fs::read_to_string(&path).on("read", &path)?;
        let load = text.split_ascii_whitespace().next();
        let load: f64 = load
            .and_then(|load| load.parse().ok())
            .ok_or(LoadError::Missing)?;
        Ok(excess_percent(load, processors))
    }
}

impl Load for HostLoad {
    fn waiting_percent(&self) -> Result<f64, FacilityError> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let processors = u32::try_from(processors).unwrap_or(u32::MAX);
        Ok(self.waiting(f64::from(processors))?)
    }
}

/// Returns the share of processes that can run and have no processor, in percent: the closest that a load average tells.
fn excess_percent(load: f64, processors: f64) -> f64 {
    match load > processors {
        true => (load - processors) / load * 100.0,
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(files: &[(&str, &str)]) -> Option<f64> {
        let proc = tempfile::tempdir().expect("a directory");
        fs::create_dir(proc.path().join("pressure")).expect("made");
        for (name, text) in files {
            fs::write(proc.path().join(name), text).expect("written");
        }
        let load = HostLoad {
            proc: proc.path().to_owned(),
        };
        load.waiting(2.0).ok()
    }

    #[test]
    fn load_is_the_time_in_which_processes_wait() {
        let pressure = "\
some avg10=12.50 avg60=0.02 avg300=0.00 total=1
full avg10=0.00 avg60=0.00 avg300=0.00 total=0
";
        let average = ("loadavg", "8.00 1.00 1.00 1/100 42\n");
        assert_eq!(waiting(&[("pressure/cpu", pressure), average]), Some(12.5));
        assert_eq!(waiting(&[average]), Some(75.0));
        assert_eq!(waiting(&[("loadavg", "1.50 1.00 1.00 1/9 4\n")]), Some(0.0));
        assert_eq!(waiting(&[("loadavg", "")]), None);
        assert_eq!(waiting(&[]), None);
    }
}
