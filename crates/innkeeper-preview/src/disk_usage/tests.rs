use innkeeper_facilities::DatabaseSpec;
use innkeeper_facilities::fake::DATABASE_BYTES;

use crate::fixture::{Harness, closure, slug};

#[tokio::test]
async fn database_is_part_of_the_disk_usage() {
    let harness = Harness::new().await;
    harness.claim().await;
    let components = &harness.previews.components;
    let guests = &components.guests;
    let created = guests.ensure(&slug(), &closure(), true).await;
    assert_eq!(created.expect("created"), None);
    let files = components.engine.disk_usage(&slug()).await.expect("read");
    let files = files.expect("a guest");
    let disk_usage = &components.disk_usage;
    let spec = DatabaseSpec {
        slug: slug(),
        template: None,
    };
    let database = harness.host.databases().ensure(&spec).await;
    database.expect("created");
    // A server that does not answer makes no measurement too small.
    harness.host.fail("database.size", 1);
    disk_usage.measure_due().await;
    assert_eq!(disk_usage.of(&slug()), None);
    disk_usage.measure_due().await;
    assert_eq!(disk_usage.of(&slug()), Some(files + DATABASE_BYTES));
}
