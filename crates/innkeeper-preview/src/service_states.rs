//! States of a preview's app services, as `systemctl show` prints their properties.

use innkeeper_model::preview::ServiceName;

/// The properties to request, in one argument.
pub(crate) const PROPERTIES: &str = "Type,ActiveState,Result,ExecMainStatus";

/// State of a service, or of all of an app's services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServiceState {
    /// It runs. One of `Type=oneshot` may have succeeded instead.
    Up,
    /// The guest's service manager is starting or stopping it, with the finding as a clause.
    Changing(String),
    /// It has ended, and the service manager does not start it again; with the finding as a clause.
    Ended(String),
}

/// Parses the output about these services, one block of properties for each in the same order. Returns the state of the
/// app: that of the worst service.
pub(crate) fn parse(services: &[ServiceName], shown: &str) -> ServiceState {
    let blocks: Vec<&str> = shown.trim().split("\n\n").collect();
    let mut worst = ServiceState::Up;
    for (number, service) in services.iter().enumerate() {
        let block = blocks.get(number).copied().unwrap_or_default();
        match state(service, block) {
            ended @ ServiceState::Ended(_) => return ended,
            changing @ ServiceState::Changing(_) => worst = changing,
            ServiceState::Up => {}
        }
    }
    worst
}

fn state(service: &ServiceName, block: &str) -> ServiceState {
    let property = |name: &str| {
        let mut lines = block.lines().filter_map(|line| line.trim().split_once('='));
        lines
            .find_map(|(key, value)| (key == name).then_some(value))
            .unwrap_or_default()
    };
    let (active, result) = (property("ActiveState"), property("Result"));
    match active {
        "active" | "reloading" => ServiceState::Up,
        "inactive" if property("Type") == "oneshot" && result == "success" => ServiceState::Up,
        "activating" | "deactivating" => {
            ServiceState::Changing(format!("the app service '{service}' is {active}"))
        }
        "inactive" | "failed" => {
            let end = end(result, property("ExecMainStatus"));
            ServiceState::Ended(format!("the app service '{service}' {end}"))
        }
        _ => ServiceState::Changing(format!(
            "the guest does not report the state of the app service '{service}'"
        )),
    }
}

/// Returns how a service ended, as a predicate. The guest can print anything.
fn end(result: &str, status: &str) -> String {
    let status: u32 = status.parse().unwrap_or_default();
    match result {
        "success" => "is stopped".to_owned(),
        "exit-code" => format!("ended with status {status}"),
        "signal" | "core-dump" => format!("was ended by signal {status}"),
        "oom-kill" => "was ended because the memory was exhausted".to_owned(),
        "start-limit-hit" => "ended too often".to_owned(),
        "timeout" => "did not start or stop in time".to_owned(),
        "watchdog" => "did not report to its watchdog".to_owned(),
        _ => "failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(names: &[&str]) -> Vec<ServiceName> {
        let name = |name: &&str| ServiceName::parse(name).expect("valid");
        names.iter().map(name).collect()
    }

    fn one(shown: &str) -> ServiceState {
        parse(&services(&["app.service"]), shown)
    }

    #[test]
    fn a_oneshot_service_counts_as_up_only_after_success() {
        let shown = "Type=oneshot\nResult=success\nActiveState=inactive\n";
        assert_eq!(one(shown), ServiceState::Up);
        let failed = "Type=oneshot\nResult=exit-code\nExecMainStatus=3\nActiveState=failed\n";
        let finding = "the app service 'app.service' ended with status 3";
        assert_eq!(one(failed), ServiceState::Ended(finding.to_owned()));
        let stopped = "Type=simple\nResult=success\nActiveState=inactive\n";
        let finding = "the app service 'app.service' is stopped";
        assert_eq!(one(stopped), ServiceState::Ended(finding.to_owned()));
    }

    #[test]
    fn the_worst_service_is_the_apps_state() {
        let [up, changing, ended] = [
            "ActiveState=active",
            "ActiveState=activating",
            "ActiveState=failed\nResult=signal\nExecMainStatus=9",
        ];
        let state = |blocks: [&str; 2]| parse(&services(&["a", "b"]), &blocks.join("\n\n"));
        assert_eq!(state([up, up]), ServiceState::Up);
        let finding = "the app service 'b.service' is activating".to_owned();
        assert_eq!(state([up, changing]), ServiceState::Changing(finding));
        let finding = "the app service 'b.service' was ended by signal 9".to_owned();
        assert_eq!(state([changing, ended]), ServiceState::Ended(finding));
    }

    #[test]
    fn output_that_is_not_systemctls_is_no_end() {
        for shown in ["", "ActiveState=", "garbage\n\n\u{1b}[31m", "ActiveState"] {
            let state = one(shown);
            assert!(matches!(state, ServiceState::Changing(_)), "{state:?}");
        }
    }
}
