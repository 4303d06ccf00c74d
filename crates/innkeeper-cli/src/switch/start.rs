//! Findings about the start of the new generation's daemon.

use innkeeper_model::{Code, Failure, StartReport};

use super::finding::{Class, Effect, Finding, Severity};
use super::host::Start;

/// Returns the findings. `schema` is the version of the present database, if it is known.
pub(crate) fn findings(start: &Start, schema: Option<i64>) -> Vec<Finding> {
    match start {
        Start::Absent => Vec::new(),
        Start::Silent(reason) => vec![
            Finding::new(
                Class::State,
                "innkeeper.service",
                Effect::Unknown,
                Severity::Interruption,
                format!("Whether the new daemon starts is unknown: {reason}. An earlier release refuses a database that a newer one has migrated."),
            )
            .with_remedy("For a rollback, have the copy of the database from before the upgrade ready (docs/install.md, \"Backups\")."),
        ],
        Start::Reported(report) => reported(report, schema),
    }
}

fn reported(report: &StartReport, schema: Option<i64>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(failure) = &report.failure {
        findings.push(failed(failure));
    }
    // A migration cannot be undone: a rollback needs the former database.
    let present = report.schema.or(schema);
    if report.failure.is_none()
        && let Some(present) = present
        && present < report.supported_schema
    {
        findings.push(
            Finding::new(
                Class::State,
                "database",
                Effect::Change,
                Severity::Note,
                format!(
                    "The daemon {} migrates the database from version {present} to {}. An earlier release does not open it afterwards.",
                    report.version, report.supported_schema
                ),
            )
            .with_remedy("Copy the database first, for a rollback (docs/install.md, \"Backups\")."),
        );
    }
    findings
}

fn failed(failure: &Failure) -> Finding {
    let reason = failure.message.clone();
    let finding = match failure.code {
        // The check failed, and not the start.
        Code::PermissionDenied | Code::StateLocked => Finding::new(
            Class::State,
            "database",
            Effect::Unknown,
            Severity::Note,
            format!("Whether the new daemon accepts the database is unknown: {reason}."),
        )
        .with_remedy("Run the command as root."),
        code => Finding::new(
            if code == Code::InvalidConfig {
                Class::Setting
            } else {
                Class::State
            },
            "innkeeper.service",
            Effect::Refuse,
            Severity::Cut,
            format!("The new daemon would not start: {reason}. Guests run on without a daemon."),
        ),
    };
    match (&finding.remedy, &failure.remedy) {
        (None, Some(remedy)) => finding.with_remedy(remedy),
        _ => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(failure: Option<Failure>) -> StartReport {
        StartReport {
            version: "2.0.0".to_owned(),
            supported_schema: 7,
            schema: failure.is_none().then_some(5),
            failure,
            ..StartReport::default()
        }
    }

    fn only(start: &Start) -> Finding {
        let mut findings = findings(start, None);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings.remove(0)
    }

    #[test]
    fn a_newer_database_is_refused_with_the_remedy_of_the_daemon() {
        let failure = Failure::new(Code::StoreTooNew, "the database has version 9")
            .with_remedy("Start the newer one.");
        let finding = only(&Start::Reported(Box::new(report(Some(failure)))));
        assert_eq!(
            (finding.class, finding.effect, finding.severity),
            (Class::State, Effect::Refuse, Severity::Cut)
        );
        assert_eq!(finding.remedy.as_deref(), Some("Start the newer one."));
    }

    #[test]
    fn a_migration_and_an_unreadable_database_are_notes() {
        let finding = only(&Start::Reported(Box::new(report(None))));
        assert_eq!(
            (finding.effect, finding.severity),
            (Effect::Change, Severity::Note)
        );
        assert!(
            finding.reason.contains("from version 5 to 7"),
            "{finding:?}"
        );
        let denied = Failure::new(Code::PermissionDenied, "cannot open it").with_remedy("x");
        let finding = only(&Start::Reported(Box::new(report(Some(denied)))));
        assert_eq!(
            (finding.effect, finding.severity),
            (Effect::Unknown, Severity::Note)
        );
        assert_eq!(finding.remedy.as_deref(), Some("Run the command as root."));
    }

    #[test]
    fn an_earlier_release_is_no_refusal() {
        let finding = only(&Start::Silent("it is old".to_owned()));
        assert_eq!(
            (finding.effect, finding.severity),
            (Effect::Unknown, Severity::Interruption)
        );
        assert_eq!(findings(&Start::Absent, Some(3)), []);
    }
}
