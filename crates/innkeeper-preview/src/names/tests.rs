use innkeeper_model::preview::Meta;

use super::*;
use crate::fixture::{preview, sha, with_live};

fn named(slug: &str, prefixes: &[&str]) -> Preview {
    let mut named = with_live(preview(), sha('a'));
    named.record.slug = GuestName::parse(slug).expect("a name");
    let hosts: Vec<String> = prefixes
        .iter()
        .map(|prefix| format!(r#"{{"prefix":"{prefix}","routes":[{{"path":"/","port":3000}}]}}"#))
        .collect();
    let meta = format!(
        r#"{{"setupService":"setup","appServices":["app"],"database":"host",
            "routes":[{{"path":"/","port":3000}}],"extraHosts":[{}]}}"#,
        hosts.join(",")
    );
    named.live_meta = Some(Meta::parse(&meta).expect("valid"));
    named
}

#[test]
fn doctor_reports_older_names_and_shared_hosts() {
    assert!(checks(&[named("web-7", &["admin"])], &[]).is_empty());
    let previews = [
        named("web-7", &["admin", "api"]),
        named("admin-web-7", &[]),
        named("2048-7", &[]),
    ];
    let found: Vec<_> = checks(&previews, &[])
        .into_iter()
        .map(|check| format!("{}: {}", check.subject, check.finding))
        .collect();
    assert_eq!(
        found,
        [
            "preview web-7: the prefix 'api' of its extraHosts: it is reserved for a host of Innkeeper; it is older and stays",
            "preview 2048-7: names of the form '<digits>-…' are reserved for hosts of Innkeeper; the preview is older and keeps its host",
            "host admin-web-7: several claim it, and the one that had it first keeps it: preview web-7 with extraHosts, preview admin-web-7",
        ]
    );
}
