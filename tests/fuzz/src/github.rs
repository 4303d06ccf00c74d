//! Invariants of every delivery that `innkeeper_github` reads. A function panics when one does not hold.

use innkeeper_github::event::{self, Delivery};
use innkeeper_github::signature::SecretSet;
use innkeeper_model::Secret;

/// The value of the signature header on the first line, and a body after it: nothing but our own signature of
/// exactly that body is good.
pub fn signature(data: &[u8]) {
    let secrets = SecretSet::new([Secret::new("new"), Secret::new("old")]).expect("two secrets");
    let (header, body) = match data.iter().position(|&byte| byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[][..]),
    };
    let header = String::from_utf8_lossy(header);
    let right = secrets.sign(body);
    assert_eq!(secrets.verify(body, Some(&right)), Ok(()));
    assert!(secrets.verify(body, None).is_err());
    let old = SecretSet::new([Secret::new("old")])
        .expect("a secret")
        .sign(body);
    let is_ours = |ours: &str| header.eq_ignore_ascii_case(ours);
    if secrets.verify(body, Some(&header)).is_ok() {
        assert!(is_ours(&right) || is_ours(&old), "{header:?} was taken");
    }
    let longer = [body, b" "].concat();
    assert!(secrets.verify(&longer, Some(&right)).is_err());
}

/// The body of a `pull_request` delivery: what is read of it can be kept and read again as it was, and its texts can be
/// shown on one line.
pub fn event(data: &[u8]) {
    match event::parse("pull_request", "72d3162e-cc78-11e3-81ab-4c9367dc0958", data) {
        Ok(Delivery::PullRequest(event)) => {
            let kept = serde_json::to_string(&event).expect("serialises");
            assert_eq!(serde_json::from_str(&kept).ok().as_ref(), Some(&event));
            for text in [
                event.author.as_str(),
                event.sender.as_str(),
                event.head_branch.as_str(),
            ] {
                assert!(!text.chars().any(char::is_control), "{text:?}");
                assert!(text.len() <= 1024, "{} bytes", text.len());
            }
        }
        Ok(other) => unreachable!("not a pull request: {other:?}"),
        Err(error) => {
            let shown = error.to_string();
            assert!(
                !shown.is_empty() && !shown.chars().any(char::is_control),
                "{shown:?}"
            );
        }
    }
}
