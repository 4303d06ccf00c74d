//! The volumes in a volume group, from the JSON of `lvs` (lvmreport(7)).

use std::fmt;

use innkeeper_model::{DaemonId, GuestName, RetainedId, SnapshotLabel};
use serde::Deserialize;

/// The requested columns: the fields of [`Row`].
pub(super) const COLUMNS: &str =
    "lv_name,lv_attr,lv_size,pool_lv,data_percent,metadata_percent,lv_tags";

/// The prefix of the names of guests' volumes.
const GUEST: &str = "innkeeper-guest-";

/// The prefix of the names of snapshots; the guest, a dot and the label follow. Neither contains a dot.
const SNAPSHOT: &str = "innkeeper-snap-";

/// The prefixes of the replacement of a guest's volume, and of the former volume.
const NEW: &str = "innkeeper-restore-";
const GONE: &str = "innkeeper-gone-";

/// The prefix of the names of destroyed agents' volumes; a number follows.
const RETAINED: &str = "innkeeper-retained-";

/// The prefix of the names of templates; their size in bytes follows.
const TEMPLATE: &str = "innkeeper-template-";

/// The prefix of the tag of a daemon's volumes; its identity follows.
const TAG: &str = "innkeeper-daemon-";

/// The name of a template that is being created.
pub(super) const NEW_TEMPLATE: &str = "innkeeper-new";

/// Returns the tag that marks a daemon's volumes (lvm(8), "Tags").
pub(super) fn tag(daemon: &DaemonId) -> String {
    format!("{TAG}{daemon}")
}

/// Returns the name of a guest's volume.
pub(super) fn guest_volume(guest: &GuestName) -> String {
    format!("{GUEST}{guest}")
}

/// Returns the name of a snapshot's volume.
pub(super) fn snapshot_volume(guest: &GuestName, label: &SnapshotLabel) -> String {
    format!("{SNAPSHOT}{guest}.{label}")
}

/// Returns the name of the replacement of a guest's volume.
pub(super) fn new_volume(guest: &GuestName) -> String {
    format!("{NEW}{guest}")
}

/// Returns the name of a guest's volume that is being replaced.
pub(super) fn gone_volume(guest: &GuestName) -> String {
    format!("{GONE}{guest}")
}

/// Returns the name of a destroyed agent's volume.
pub(super) fn retained_volume(id: RetainedId) -> String {
    format!("{RETAINED}{id}")
}

/// Returns the name of the template for volumes of a size in bytes.
pub(super) fn template_volume(size: u64) -> String {
    format!("{TEMPLATE}{size}")
}

/// The kind of a volume, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Volume {
    Guest(GuestName),
    Snapshot(GuestName, SnapshotLabel),
    /// A volume of a replacement in progress.
    Part(GuestName),
    /// Retained files of a destroyed agent.
    Retained(RetainedId),
    Template,
    Leftover,
    Foreign,
}

impl Volume {
    /// Returns the kind of a volume. `template` is the name of the current template; those of other sizes are leftovers.
    pub(super) fn of(name: &str, template: &str) -> Self {
        let guest = |name| GuestName::parse(name).ok();
        if let Some(rest) = name.strip_prefix(GUEST) {
            return guest(rest).map_or(Self::Foreign, Self::Guest);
        }
        if let Some(rest) = name.strip_prefix(NEW).or(name.strip_prefix(GONE)) {
            return guest(rest).map_or(Self::Foreign, Self::Part);
        }
        if let Some((rest, label)) = (name.strip_prefix(SNAPSHOT)).and_then(|r| r.split_once('.')) {
            let snapshot = guest(rest).zip(SnapshotLabel::parse(label).ok());
            return snapshot.map_or(Self::Foreign, |(guest, label)| Self::Snapshot(guest, label));
        }
        if let Some(rest) = name.strip_prefix(RETAINED) {
            // Only the canonical name: no sign, no leading zeros.
            let id = rest.parse().ok();
            let id = id.filter(|id: &RetainedId| id.0 > 0 && retained_volume(*id) == name);
            return id.map_or(Self::Foreign, Self::Retained);
        }
        if name == template {
            return Self::Template;
        }
        let size = name.strip_prefix(TEMPLATE);
        let former =
            size.is_some_and(|size| !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit()));
        if former || name == NEW_TEMPLATE {
            Self::Leftover
        } else {
            Self::Foreign
        }
    }
}

impl Volume {
    /// Returns the guest that it belongs to.
    pub(super) fn guest(&self) -> Option<&GuestName> {
        match self {
            Self::Guest(guest) | Self::Snapshot(guest, _) | Self::Part(guest) => Some(guest),
            Self::Retained(_) | Self::Template | Self::Leftover | Self::Foreign => None,
        }
    }
}

/// The use of a thin pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolUse {
    /// The use of its data, in percent.
    pub data: f64,
    /// The use of its metadata, in percent.
    pub metadata: f64,
}

impl PoolUse {
    /// Reports whether either has reached a limit in percent.
    pub(super) fn reaches(self, percent: u8) -> bool {
        let percent = f64::from(percent);
        self.data >= percent || self.metadata >= percent
    }
}

impl fmt::Display for PoolUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "data {:.1} %, metadata {:.1} %",
            self.data, self.metadata
        )
    }
}

/// The state of a pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pool {
    /// It does not exist.
    Missing,
    /// It is inactive, as for a while after a boot, and its use is unknown.
    Inactive,
    /// It is active, with its use.
    Active(PoolUse),
}

/// The visible volumes of a volume group.
#[derive(Debug)]
pub(super) struct Volumes(Vec<Row>);

#[derive(Debug, Deserialize)]
struct Report {
    report: Vec<Part>,
}

#[derive(Debug, Deserialize)]
struct Part {
    lv: Vec<Row>,
}

/// A row of the report.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    pub(super) lv_name: String,
    lv_attr: String,
    lv_size: String,
    pool_lv: String,
    pub(super) data_percent: String,
    metadata_percent: String,
    lv_tags: String,
}

impl Row {
    /// Returns the daemon of its tag.
    pub(super) fn daemon(&self) -> Option<DaemonId> {
        let mut daemons = self
            .lv_tags
            .split(',')
            .filter_map(|tag| tag.strip_prefix(TAG));
        daemons.find_map(|daemon| DaemonId::parse(daemon).ok())
    }

    /// Returns its size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.lv_size.parse().unwrap_or(0)
    }

    /// Returns the bytes that it holds, shared or not; 0 while it is inactive.
    pub(super) fn used(&self) -> u64 {
        // The report has two decimal places.
        let (whole, part) = self.data_percent.split_once('.').unwrap_or_default();
        let basis_points: u64 = format!("{whole}{part:0<2.2}").parse().unwrap_or(0);
        self.size() / 10_000 * basis_points
    }
}

impl Volumes {
    /// Parses a report.
    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let report: Report = serde_json::from_slice(json)?;
        Ok(Self(
            report.report.into_iter().flat_map(|part| part.lv).collect(),
        ))
    }

    /// The state of a pool.
    pub(super) fn pool(&self, name: &str) -> Pool {
        // lvs(8): the first letter of the attributes is the type, `t` for a thin pool.
        let is_pool = |row: &&Row| row.lv_name == name && row.lv_attr.starts_with('t');
        let Some(row) = self.0.iter().find(is_pool) else {
            return Pool::Missing;
        };
        match (row.data_percent.parse(), row.metadata_percent.parse()) {
            (Ok(data), Ok(metadata)) => Pool::Active(PoolUse { data, metadata }),
            _ => Pool::Inactive,
        }
    }

    /// Returns the size of a volume in bytes; 0 when it does not exist.
    pub(super) fn size(&self, name: &str) -> u64 {
        let row = self.0.iter().find(|row| row.lv_name == name);
        row.map_or(0, Row::size)
    }

    /// Returns the thin volumes in a pool.
    pub(super) fn rows<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a Row> {
        self.0.iter().filter(move |row| row.pool_lv == pool)
    }

    /// Returns the names of the thin volumes in a pool.
    pub(super) fn thin<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a str> {
        self.rows(pool).map(|row| row.lv_name.as_str())
    }

    /// Reports whether the pool has a thin volume of that name.
    pub(super) fn has(&self, pool: &str, name: &str) -> bool {
        self.thin(pool).any(|volume| volume == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of lvs 2.03.31 in the virtual tier of tests/vm.
    const REPORT: &[u8] = br#"  {
      "report": [
          {
              "lv": [
                  {"lv_name":"innkeeper-guest-web", "lv_attr":"Vwi-aotz--", "lv_size":"1073741824", "pool_lv":"thin", "data_percent":"3.60", "metadata_percent":"", "lv_tags":"mine,innkeeper-daemon-0123456789abcdef0123456789abcdef"},
                  {"lv_name":"innkeeper-template-1073741824", "lv_attr":"Vwi---tz--", "lv_size":"1073741824", "pool_lv":"thin", "data_percent":"", "metadata_percent":"", "lv_tags":""},
                  {"lv_name":"root", "lv_attr":"-wi-a-----", "lv_size":"8589934592", "pool_lv":"", "data_percent":"", "metadata_percent":"", "lv_tags":""},
                  {"lv_name":"thin", "lv_attr":"twi-aotz--", "lv_size":"2147483648", "pool_lv":"", "data_percent":"84.99", "metadata_percent":"10.74", "lv_tags":""}
              ]
          }
      ]
      ,
      "log": [
      ]
  }"#;

    fn volumes() -> Volumes {
        Volumes::parse(REPORT).expect("a report")
    }

    #[test]
    fn report_lists_volumes_and_use_of_the_pool() {
        let volumes = volumes();
        assert_eq!(
            volumes.pool("thin"),
            Pool::Active(PoolUse {
                data: 84.99,
                metadata: 10.74
            })
        );
        assert!(volumes.has("thin", "innkeeper-guest-web"));
        assert!(!volumes.has("thin", "root"));
        assert_eq!(volumes.thin("thin").count(), 2);
        assert_eq!(volumes.size("thin"), 2 << 30);
        let used: Vec<_> = volumes.rows("thin").map(Row::used).collect();
        assert_eq!(used, [107_374 * 360, 0]);
    }

    #[test]
    fn daemon_is_parsed_from_the_tag() {
        let volumes = volumes();
        let daemon = DaemonId::parse(&"0123456789abcdef".repeat(2)).expect("identity");
        let of = |name| {
            volumes
                .0
                .iter()
                .find(|row| row.lv_name == name)
                .and_then(Row::daemon)
        };
        assert_eq!(of("innkeeper-guest-web").as_ref(), Some(&daemon));
        assert_eq!(of("innkeeper-template-1073741824"), None);
        assert_eq!(tag(&daemon), format!("innkeeper-daemon-{daemon}"));
    }

    #[test]
    fn other_volumes_are_not_pools() {
        for name in ["root", "innkeeper-guest-web", "other", ""] {
            assert_eq!(volumes().pool(name), Pool::Missing, "{name}");
        }
    }

    #[test]
    fn inactive_pool_is_not_missing() {
        let row = r#"{"lv_name":"thin", "lv_attr":"twi---tz--", "lv_size":"2147483648", "pool_lv":"", "data_percent":"", "metadata_percent":"", "lv_tags":""}"#;
        let report = format!(r#"{{"report":[{{"lv":[{row}]}}]}}"#);
        let volumes = Volumes::parse(report.as_bytes()).expect("a report");
        assert_eq!(volumes.pool("thin"), Pool::Inactive);
    }

    #[test]
    fn parse_rejects_other_texts() {
        for text in [
            "",
            "{}",
            r#"{"report":[{}]}"#,
            r#"{"report":[{"lv":[{"lv_name":"a"}]}]}"#,
        ] {
            assert!(Volumes::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn either_of_data_and_metadata_makes_a_pool_full() {
        let used = |data, metadata| PoolUse { data, metadata };
        assert!(!used(84.99, 84.99).reaches(85));
        assert!(used(85.0, 0.0).reaches(85));
        assert!(used(0.0, 85.0).reaches(85));
        assert_eq!(used(85.0, 7.25).to_string(), "data 85.0 %, metadata 7.2 %");
    }

    #[test]
    fn volumes_are_known_by_their_names() {
        let of = |name: &str| Volume::of(name, &template_volume(4096));
        let web = GuestName::parse("web").expect("valid");
        assert_eq!(of(&guest_volume(&web)), Volume::Guest(web.clone()));
        for part in [new_volume(&web), gone_volume(&web)] {
            assert_eq!(of(&part), Volume::Part(web.clone()));
        }
        let label = SnapshotLabel::parse("before-upgrade").expect("valid");
        let snapshot = snapshot_volume(&web, &label);
        assert_eq!(snapshot, "innkeeper-snap-web.before-upgrade");
        assert_eq!(of(&snapshot), Volume::Snapshot(web, label));
        let kept = retained_volume(RetainedId(7));
        assert_eq!(of(&kept), Volume::Retained(RetainedId(7)));
        assert_eq!(of("innkeeper-template-4096"), Volume::Template);
        assert_eq!(of("innkeeper-template-8192"), Volume::Leftover);
        assert_eq!(of("innkeeper-new"), Volume::Leftover);
        for foreign in [
            "innkeeper",
            "innkeeper-template-",
            "innkeeper-template-old",
            "innkeeper-guest-",
            "innkeeper-guest-Web",
            "innkeeper-snap-web",
            "innkeeper-snap-web.",
            "innkeeper-snap-web.a.b",
            "innkeeper-gone-",
            "innkeeper-retained-",
            "innkeeper-retained-0",
            "innkeeper-retained-07",
            "innkeeper-retained-web",
            "root",
        ] {
            assert_eq!(of(foreign), Volume::Foreign, "{foreign}");
        }
    }
}
