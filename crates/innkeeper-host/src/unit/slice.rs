//! The cgroups of systemd's slices.

use std::path::PathBuf;

/// Returns the cgroup of a slice: `a-b.slice` lies in `a.slice` (systemd.slice(5)).
pub(super) fn slice_path(slice: &str) -> PathBuf {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    if name == "-" {
        return PathBuf::new();
    }
    let ends = name
        .match_indices('-')
        .map(|(end, _)| end)
        .chain([name.len()]);
    ends.map(|end| format!("{}.slice", &name[..end])).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn slice_path_follows_its_name() {
        assert_eq!(slice_path("innkeeper.slice"), Path::new("innkeeper.slice"));
        assert_eq!(
            slice_path("a-b-c.slice"),
            Path::new("a.slice/a-b.slice/a-b-c.slice")
        );
        assert_eq!(slice_path("-.slice"), Path::new(""));
    }
}
