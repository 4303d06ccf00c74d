//! Checks of the configured keys, credentials and name servers.

use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::chain;

use super::SecretsConfig;

pub(super) fn keys(config: &SecretsConfig) -> Check {
    let remedy = "Put a line such as `ssh-ed25519 AAAA… name` into the configuration's authorized keys, or into ADMIN_SSH_KEY.";
    let (verdict, finding) = match config.authorized_keys() {
        Err(error) => (Verdict::Broken, chain(&error)),
        Ok(keys) if keys.invalid > 0 => (
            Verdict::Warning,
            format!(
                "{} of {} authorized keys are invalid",
                keys.invalid,
                keys.invalid + keys.valid.len()
            ),
        ),
        Ok(keys) if keys.valid.is_empty() => (
            Verdict::Warning,
            "no authorized keys: guests reject all SSH logins".to_owned(),
        ),
        Ok(keys) => (Verdict::Ok, format!("{} authorized keys", keys.valid.len())),
    };
    check("authorized keys", verdict, finding, remedy)
}

pub(super) fn credentials(config: &SecretsConfig) -> Check {
    let Some(directory) = &config.credentials else {
        return check(
            "credentials",
            Verdict::Ok,
            "none are configured".to_owned(),
            "",
        );
    };
    let directory = directory.display();
    let (verdict, finding) = match config.credentials() {
        Err(error) => (Verdict::Broken, chain(&error)),
        Ok(found) => match found.skipped.first() {
            Some((name, reason)) => (
                Verdict::Warning,
                format!(
                    "{directory}/{} is not copied to guests: {reason}",
                    name.display()
                ),
            ),
            None => (
                Verdict::Ok,
                format!("{} files in {directory}", found.files.len()),
            ),
        },
    };
    let remedy = "Keep only regular files of at most 64 KiB with plain names there.";
    check("credentials", verdict, finding, remedy)
}

pub(super) fn nameservers(config: &SecretsConfig) -> Check {
    let (verdict, finding) = match config.nameservers.read() {
        Err(error) => (Verdict::Broken, chain(&error)),
        Ok(found) if found.is_empty() => (
            Verdict::Warning,
            "no name server that guests can reach: they cannot resolve names".to_owned(),
        ),
        Ok(found) => {
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            (Verdict::Ok, found.join(", "))
        }
    };
    check(
        "name servers",
        verdict,
        finding,
        "Set name servers in the configuration, such as 9.9.9.9.",
    )
}

fn check(subject: &str, verdict: Verdict, finding: String, remedy: &str) -> Check {
    let remedy = (verdict != Verdict::Ok).then(|| remedy.to_owned());
    Check {
        subject: subject.to_owned(),
        verdict,
        finding,
        remedy,
    }
}
