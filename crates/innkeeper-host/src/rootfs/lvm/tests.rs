use super::*;

#[test]
fn remedy_extends_the_full_part_of_the_pool() {
    let remedy = |data, metadata| make_room("vg/thin", PoolUse { data, metadata }, 85);
    assert!(remedy(90.0, 5.0).contains("--size +10G vg/thin"));
    assert!(!remedy(90.0, 5.0).contains("poolmetadata"));
    assert!(remedy(5.0, 90.0).contains("--poolmetadatasize +256M vg/thin"));
    assert!(!remedy(5.0, 90.0).contains("--size +10G"));
    assert!(remedy(90.0, 90.0).contains(" and "));
    assert!(make_pool("vg/thin").contains("--name thin vg`"));
}

#[test]
fn damaged_pool_is_parsed_from_lvms_error() {
    let failed = |stderr: &str| CommandError::Failed {
        program: "lvchange".to_owned(),
        status: std::process::ExitStatus::default(),
        stderr: stderr.to_owned(),
    };
    let damaged = failed(
        "WARNING: setpriority -18 failed: Permission denied.\n  \
         Check of pool vg/thin failed (status:64). Manual repair required!\n",
    );
    assert_eq!(damaged_pool(&damaged), Some("vg/thin"));
    assert!(repair_pool("vg/thin").contains("`lvconvert --repair vg/thin`"));
    assert_eq!(damaged_pool(&failed("Insufficient free space")), None);
}

#[test]
fn holds_something_ignores_an_empty_directory() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let rootfs = dir.path().join("rootfs");
    assert!(!holds_something(&rootfs).expect("looks"));
    fs::create_dir(&rootfs).expect("creates");
    assert!(!holds_something(&rootfs).expect("looks"));
    fs::create_dir(rootfs.join("etc")).expect("creates");
    assert!(holds_something(&rootfs).expect("looks"));
}
