//! Reads the host's memory: `/proc/meminfo` (proc_meminfo(5)) and `/proc/pressure/memory` (Linux manual, "PSI").

use std::fs;
use std::path::PathBuf;

use async_trait::async_trait;
use innkeeper_facilities::{FacilityError, Memory, MemoryReading};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Code, Explain};

use crate::pressure::average;
use crate::{FileError, FileErrorExt, unit};

/// Sources of the host's memory.
#[derive(Clone, Debug)]
pub struct HostMemory {
    proc: PathBuf,
}

impl Default for HostMemory {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
        }
    }
}

/// The memory cannot be read.
#[derive(Debug, thiserror::Error)]
enum MemoryError {
    /// The file cannot be read.
    #[error("cannot read the host's memory")]
    Unreadable(#[from] FileError),
    /// A line of the file is missing.
    #[error("the kernel does not report {0} in /proc/meminfo")]
    Missing(&'static str),
}

impl Explain for MemoryError {
    fn code(&self) -> Code {
        match self {
            Self::Unreadable(error) => error.code_or(Code::KernelFeatureMissing),
            Self::Missing(_) => Code::KernelFeatureMissing,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Unreadable(error) => error.remedy(),
            Self::Missing(_) => Some("Use Linux 3.14 or later.".to_owned()),
        }
    }
}

impl HostMemory {
    fn reading(&self) -> Result<MemoryReading, MemoryError> {
        let path = self.proc.join("meminfo");
        let text = fs::read_to_string(&path).on("read", &path)?;
        let field = |name: &'static str| meminfo(&text, name).ok_or(MemoryError::Missing(name));
        Ok(MemoryReading {
            total: field("MemTotal")?,
            available: field("MemAvailable")?,
            swap_total: field("SwapTotal")?,
            swap_free: field("SwapFree")?,
            stalled_percent: average(&self.proc.join("pressure/memory"), "full"),
        })
    }
}

/// Returns a field of `/proc/meminfo` in bytes, from a line such as `MemTotal:  16384 kB`.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[async_trait]
impl Memory for HostMemory {
    fn read(&self) -> Result<MemoryReading, FacilityError> {
        Ok(self.reading()?)
    }

    async fn check(&self) -> Vec<Check> {
        vec![match self.reading() {
            Ok(reading) => assess(&reading, unit::can_reclaim()),
            Err(error) => Check {
                subject: SUBJECT.to_owned(),
                verdict: Verdict::Broken,
                finding: innkeeper_model::chain(&error),
                remedy: error.remedy(),
            },
        }]
    }
}

/// Judges whether a paused guest's memory can be reclaimed.
fn assess(reading: &MemoryReading, can_reclaim: bool) -> Check {
    let (percent, total) = (reading.available_percent(), reading.total >> 20);
    let available = format!("{percent} % of {total} MiB is available");
    let (lack, remedy) = if !can_reclaim {
        (
            "the kernel cannot reclaim the memory of a guest",
            KERNEL_REMEDY,
        )
    } else if reading.swap_total == 0 {
        ("the host has neither swap nor zram", SWAP_REMEDY)
    } else {
        let (free, swap) = (reading.swap_free >> 20, reading.swap_total >> 20);
        return Check {
            subject: SUBJECT.to_owned(),
            verdict: Verdict::Ok,
            finding: format!("{available}; {free} MiB of {swap} MiB of swap are free"),
            remedy: None,
        };
    };
    Check {
        subject: SUBJECT.to_owned(),
        verdict: Verdict::Warning,
        finding: format!("{available}; a paused guest keeps its memory, because {lack}"),
        remedy: Some(remedy.to_owned()),
    }
}

/// The subject of the check.
const SUBJECT: &str = "memory";

const KERNEL_REMEDY: &str = "Use Linux 5.19 or later, with cgroups of version 2 and the controller `memory` where innkeeperd may write. Without it, only sleep frees a guest's memory.";

const SWAP_REMEDY: &str = "Add swap: on NixOS, set services.innkeeper.zram.enable = true; on Debian, install the package systemd-zram-generator, or add a swap file. docs/rest.md (\"Swap\") describes both.";

impl From<MemoryError> for FacilityError {
    fn from(error: MemoryError) -> Self {
        Self::new(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "\
MemTotal:       24573600 kB
MemFree:          614340 kB
MemAvailable:    2457360 kB
SwapCached:            0 kB
SwapTotal:       1048576 kB
SwapFree:         524288 kB
";

    fn host(meminfo: &str, pressure: Option<&str>) -> (tempfile::TempDir, HostMemory) {
        let proc = tempfile::tempdir().expect("a directory");
        fs::write(proc.path().join("meminfo"), meminfo).expect("written");
        fs::create_dir(proc.path().join("pressure")).expect("made");
        if let Some(text) = pressure {
            fs::write(proc.path().join("pressure/memory"), text).expect("written");
        }
        let memory = HostMemory {
            proc: proc.path().to_owned(),
        };
        (proc, memory)
    }

    #[test]
    fn fields_are_in_bytes() {
        let pressure = "\
some avg10=1.50 avg60=0.02 avg300=0.00 total=1
full avg10=12.25 avg60=0.01 avg300=0.00 total=1
";
        let (_proc, memory) = host(MEMINFO, Some(pressure));
        let expected = MemoryReading {
            total: 24_573_600 << 10,
            available: 2_457_360 << 10,
            swap_total: 1 << 30,
            swap_free: 512 << 20,
            stalled_percent: Some(12.25),
        };
        let reading = memory.reading().expect("read");
        assert_eq!(reading, expected);
        assert_eq!(reading.available_percent(), 10);
        let (_proc, memory) = host(MEMINFO, None);
        assert_eq!(memory.reading().expect("read").stalled_percent, None);
    }

    #[test]
    fn memory_of_this_machine_is_read() {
        let reading = HostMemory::default().reading().expect("read");
        assert!(reading.available > 0 && reading.available <= reading.total);
    }

    #[test]
    fn means_to_reclaim_are_checked() {
        let (_proc, memory) = host(MEMINFO, None);
        let with_swap = memory.reading().expect("read");
        let without_swap = MemoryReading {
            swap_total: 0,
            swap_free: 0,
            ..with_swap
        };
        for (reading, can_reclaim, verdict, words) in [
            (
                with_swap,
                true,
                Verdict::Ok,
                "512 MiB of 1024 MiB of swap are free",
            ),
            (
                without_swap,
                true,
                Verdict::Warning,
                "neither swap nor zram",
            ),
            (
                with_swap,
                false,
                Verdict::Warning,
                "the kernel cannot reclaim",
            ),
        ] {
            let check = assess(&reading, can_reclaim);
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(check.finding.contains(words), "{check:?}");
            assert_eq!(check.remedy.is_none(), verdict == Verdict::Ok);
        }
    }

    #[tokio::test]
    async fn missing_field_is_broken() {
        let (_proc, memory) = host("MemTotal: 5 kB\n", None);
        let checks = memory.check().await;
        assert_eq!(checks[0].verdict, Verdict::Broken);
        assert!(checks[0].finding.contains("MemAvailable"), "{checks:?}");
    }
}
