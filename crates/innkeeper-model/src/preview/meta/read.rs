//! Parses a [`Meta`] and collects all problems.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::problem::remedies;
use super::{
    DatabaseMode, ExtraHost, HealthPath, Meta, MetaProblem, MetaProblemKind, RoutePath,
    RouteProtocol, RouteRule, RouteTimeout, ServiceName,
};
use crate::GuestName;
use crate::preview::checked::shown;
use crate::preview::{EnvName, Visibility};

const FIELDS: &[&str] = &[
    "setupService",
    "appServices",
    "database",
    "routes",
    "hostSecrets",
    "extraHosts",
    "visibility",
];
const ROUTE_FIELDS: &[&str] = &[
    "path",
    "port",
    "stripPrefix",
    "protocol",
    "timeout",
    "healthPath",
];
const HOST_FIELDS: &[&str] = &["prefix", "routes"];
const DATABASES: &[&str] = &["host", "container"];
const VISIBILITIES: &[&str] = &[
    Visibility::Public.as_str(),
    Visibility::Team.as_str(),
    Visibility::Private.as_str(),
];
const PROTOCOLS: &[&str] = &[RouteProtocol::Http.name(), RouteProtocol::H2c.name()];

/// Maximum number of listed problems. A pull request could have millions.
const MAX_PROBLEMS: usize = 50;

pub(super) fn meta(json: &str) -> Result<Meta, Vec<MetaProblem>> {
    let whole = |kind| {
        Err(vec![MetaProblem {
            place: String::new(),
            kind,
        }])
    };
    if json.len() > Meta::MAX_BYTES {
        return whole(MetaProblemKind::TooLarge { bytes: json.len() });
    }
    match serde_json::from_str(json) {
        Ok(json) => value(&json),
        Err(error) => whole(MetaProblemKind::NotJson {
            message: error.to_string(),
        }),
    }
}

pub(super) fn value(value: &Value) -> Result<Meta, Vec<MetaProblem>> {
    let mut reader = Reader::default();
    match reader.meta(value) {
        Some(meta) if reader.problems.is_empty() => Ok(meta),
        _ => Err(reader.into_problems()),
    }
}

/// A value and its place.
#[derive(Clone)]
struct At<'v> {
    place: String,
    value: &'v Value,
}

impl<'v> At<'v> {
    fn entry(&self, index: usize, value: &'v Value) -> Self {
        Self {
            place: format!("{}/{index}", self.place),
            value,
        }
    }
}

/// A JSON object and its place.
struct Object<'v> {
    place: String,
    fields: &'v Map<String, Value>,
}

impl<'v> Object<'v> {
    fn place_of(&self, field: &str) -> String {
        format!(
            "{}/{}",
            self.place,
            field.replace('~', "~0").replace('/', "~1")
        )
    }

    fn get(&self, field: &str) -> Option<At<'v>> {
        let value = self.fields.get(field)?;
        Some(At {
            place: self.place_of(field),
            value,
        })
    }

    /// Returns an optional field. `null` is equivalent to omitting it.
    fn optional(&self, field: &str) -> Option<At<'v>> {
        self.get(field).filter(|at| !at.value.is_null())
    }
}

/// Collects problems. Each method reports the problems of a value, and returns `None` if it is invalid.
#[derive(Default)]
struct Reader {
    problems: Vec<MetaProblem>,
}

impl Reader {
    fn report(&mut self, place: &str, kind: MetaProblemKind) {
        self.problems.push(MetaProblem {
            place: place.to_owned(),
            kind,
        });
    }

    fn into_problems(mut self) -> Vec<MetaProblem> {
        let count = self.problems.len().saturating_sub(MAX_PROBLEMS);
        if count > 0 {
            self.problems.truncate(MAX_PROBLEMS);
            self.report("", MetaProblemKind::More { count });
        }
        self.problems
    }

    fn meta(&mut self, value: &Value) -> Option<Meta> {
        let place = String::new();
        let object = self.object(At { place, value }, FIELDS)?;
        let setup_service = self
            .required(&object, "setupService")
            .and_then(|at| self.service(&at));
        let app_services = self
            .required(&object, "appServices")
            .and_then(|at| self.services(&at));
        let database = self
            .required(&object, "database")
            .and_then(|at| self.database(&at));
        let routes = self
            .required(&object, "routes")
            .and_then(|at| self.routes(&at));
        let host_secrets = object.optional("hostSecrets");
        let host_secrets = host_secrets.map_or(Some(Vec::new()), |at| self.secrets(&at));
        let extra_hosts = object.optional("extraHosts");
        let extra_hosts = extra_hosts.map_or(Some(Vec::new()), |at| self.extra_hosts(&at));
        let visibility = object.optional("visibility");
        let visibility = visibility.map_or(Some(None), |at| self.visibility(&at).map(Some));
        let meta = Meta {
            setup_service: setup_service?,
            app_services: app_services?,
            database: database?,
            routes: routes?,
            host_secrets: host_secrets?,
            extra_hosts: extra_hosts?,
            visibility: visibility?,
        };
        if let Some(index) = meta
            .app_services
            .iter()
            .position(|s| *s == meta.setup_service)
        {
            self.report(
                &format!("/appServices/{index}"),
                MetaProblemKind::Duplicate {
                    text: meta.setup_service.to_string(),
                    first: "/setupService".to_owned(),
                },
            );
        }
        Some(meta)
    }

    fn database(&mut self, at: &At<'_>) -> Option<DatabaseMode> {
        match self.text(at)? {
            "host" => Some(DatabaseMode::Host),
            "container" => Some(DatabaseMode::Container),
            other => {
                self.report(
                    &at.place,
                    MetaProblemKind::Word {
                        found: other.to_owned(),
                        nearest: nearest(other, DATABASES),
                        known: DATABASES,
                    },
                );
                None
            }
        }
    }

    fn service(&mut self, at: &At<'_>) -> Option<ServiceName> {
        self.checked(at, ServiceName::parse, remedies::SERVICE)
    }

    fn services(&mut self, at: &At<'_>) -> Option<Vec<ServiceName>> {
        let services = self.list(at, Meta::MAX_SERVICES, Self::service)?;
        self.no_duplicates(at, services.iter().map(|service| vec![service.to_string()]));
        Some(services)
    }

    fn secrets(&mut self, at: &At<'_>) -> Option<Vec<EnvName>> {
        let secrets = self.list(at, Meta::MAX_SECRETS, |reader, at| {
            reader.checked(at, EnvName::parse, remedies::SECRET)
        })?;
        self.no_duplicates(at, secrets.iter().map(|name| vec![name.to_string()]));
        Some(secrets)
    }

    fn extra_hosts(&mut self, at: &At<'_>) -> Option<Vec<ExtraHost>> {
        let hosts = self.list(at, Meta::MAX_EXTRA_HOSTS, Self::extra_host)?;
        self.no_duplicates(at, hosts.iter().map(|host| vec![host.prefix.to_string()]));
        Some(hosts)
    }

    fn extra_host(&mut self, at: &At<'_>) -> Option<ExtraHost> {
        let object = self.object(at.clone(), HOST_FIELDS)?;
        let prefix = self
            .required(&object, "prefix")
            .and_then(|at| self.prefix(&at));
        let routes = self
            .required(&object, "routes")
            .and_then(|at| self.routes(&at));
        Some(ExtraHost {
            prefix: prefix?,
            routes: routes?,
        })
    }

    fn prefix(&mut self, at: &At<'_>) -> Option<GuestName> {
        let text = self.text(at)?;
        match GuestName::parse(text) {
            Ok(prefix) if text.len() <= ExtraHost::MAX_PREFIX => Some(prefix),
            _ => {
                let message = format!(
                    "'{}' is not a DNS label of at most {} characters",
                    shown(text),
                    ExtraHost::MAX_PREFIX
                );
                let remedy = remedies::PREFIX;
                self.report(&at.place, MetaProblemKind::Text { message, remedy });
                None
            }
        }
    }

    /// Reads at least one route; the most specific is first in the result.
    fn routes(&mut self, at: &At<'_>) -> Option<Vec<RouteRule>> {
        let mut routes = self.list(at, Meta::MAX_ROUTES, Self::route)?;
        if routes.is_empty() {
            self.report(&at.place, MetaProblemKind::Empty);
            return None;
        }
        self.no_duplicates(at, routes.iter().map(RouteRule::claims));
        routes.sort_by(RouteRule::by_specificity);
        Some(routes)
    }

    fn route(&mut self, at: &At<'_>) -> Option<RouteRule> {
        let object = self.object(at.clone(), ROUTE_FIELDS)?;
        let path = self
            .required(&object, "path")
            .and_then(|at| self.checked(&at, RoutePath::parse, remedies::PATH));
        let port = self.required(&object, "port").and_then(|at| self.port(&at));
        let strip_prefix = object.optional("stripPrefix");
        let strip_prefix = strip_prefix.map_or(Some(false), |at| self.boolean(&at));
        let protocol = object.optional("protocol");
        let protocol = protocol.map_or(Some(RouteProtocol::Http), |at| self.protocol(&at));
        let timeout = object.optional("timeout");
        let timeout = timeout.map_or(Some(None), |at| self.timeout(&at, protocol).map(Some));
        let health_path = object.optional("healthPath");
        let health_path = health_path.map_or(Some(None), |at| {
            self.checked(&at, HealthPath::parse, remedies::HEALTH_PATH)
                .map(Some)
        });
        Some(RouteRule {
            health_path: health_path?,
            protocol: protocol?,
            timeout: timeout?,
            ..RouteRule::new(path?, port?, strip_prefix?)
        })
    }

    fn protocol(&mut self, at: &At<'_>) -> Option<RouteProtocol> {
        let found = self.text(at)?;
        let protocol = RouteProtocol::ALL
            .into_iter()
            .find(|protocol| protocol.name() == found);
        if protocol.is_none() {
            self.report(
                &at.place,
                MetaProblemKind::Word {
                    found: found.to_owned(),
                    nearest: nearest(found, PROTOCOLS),
                    known: PROTOCOLS,
                },
            );
        }
        protocol
    }

    fn visibility(&mut self, at: &At<'_>) -> Option<Visibility> {
        let found = self.text(at)?;
        let visibility = found.parse().ok();
        if visibility.is_none() {
            self.report(
                &at.place,
                MetaProblemKind::Word {
                    found: found.to_owned(),
                    nearest: nearest(found, VISIBILITIES),
                    known: VISIBILITIES,
                },
            );
        }
        visibility
    }

    fn timeout(&mut self, at: &At<'_>, protocol: Option<RouteProtocol>) -> Option<RouteTimeout> {
        // Caddy 2.6 has no timeout for it.
        if protocol == Some(RouteProtocol::H2c) {
            let message = "a route with the protocol \"h2c\" has no timeout".to_owned();
            let remedy = remedies::H2C_TIMEOUT;
            self.report(&at.place, MetaProblemKind::Text { message, remedy });
            return None;
        }
        let Value::Number(number) = at.value else {
            return self.wrong_type(at, "a number");
        };
        let timeout = number
            .as_u64()
            .and_then(|seconds| u16::try_from(seconds).ok())
            .and_then(|seconds| RouteTimeout::try_from(seconds).ok());
        if timeout.is_none() {
            let message = format!("{number} is not a supported timeout");
            let remedy = remedies::TIMEOUT;
            self.report(&at.place, MetaProblemKind::Text { message, remedy });
        }
        timeout
    }

    fn port(&mut self, at: &At<'_>) -> Option<u16> {
        let Value::Number(number) = at.value else {
            return self.wrong_type(at, "a number");
        };
        let port = number
            .as_u64()
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n > 0);
        if port.is_none() {
            let found = number.to_string();
            self.report(&at.place, MetaProblemKind::Port { found });
        }
        port
    }

    fn boolean(&mut self, at: &At<'_>) -> Option<bool> {
        at.value
            .as_bool()
            .or_else(|| self.wrong_type(at, "true or false"))
    }

    fn text<'v>(&mut self, at: &At<'v>) -> Option<&'v str> {
        at.value
            .as_str()
            .or_else(|| self.wrong_type(at, "a string"))
    }

    /// Reads a text by the rules of a type.
    fn checked<T>(
        &mut self,
        at: &At<'_>,
        parse: fn(&str) -> Result<T, crate::preview::InvalidText>,
        remedy: &'static str,
    ) -> Option<T> {
        parse(self.text(at)?)
            .map_err(|error| {
                let message = error.to_string();
                self.report(&at.place, MetaProblemKind::Text { message, remedy });
            })
            .ok()
    }

    /// Reads all entries of a list, to report all problems. `None` if any entry is invalid.
    fn list<'v, T>(
        &mut self,
        at: &At<'v>,
        max: usize,
        mut read: impl FnMut(&mut Self, &At<'v>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Value::Array(entries) = at.value else {
            return self.wrong_type(at, "a list");
        };
        if entries.len() > max {
            let found = entries.len();
            self.report(&at.place, MetaProblemKind::TooMany { found, max });
            return None;
        }
        let read: Vec<_> = entries
            .iter()
            .enumerate()
            .map(|(index, value)| read(self, &at.entry(index, value)))
            .collect();
        read.into_iter().collect()
    }

    /// Reports each entry of a list that has a claim in common with an earlier one.
    fn no_duplicates(&mut self, at: &At<'_>, entries: impl Iterator<Item = Vec<String>>) {
        let mut seen = BTreeMap::new();
        for (index, claims) in entries.enumerate() {
            let place = format!("{}/{index}", at.place);
            let taken = claims
                .iter()
                .find_map(|claim| Some((claim.clone(), seen.get(claim).cloned()?)));
            if let Some((text, first)) = taken {
                self.report(&place, MetaProblemKind::Duplicate { text, first });
            }
            for claim in claims {
                seen.entry(claim).or_insert_with(|| place.clone());
            }
        }
    }

    /// Reads an object and reports its unknown fields.
    fn object<'v>(&mut self, at: At<'v>, known: &'static [&'static str]) -> Option<Object<'v>> {
        let Value::Object(fields) = at.value else {
            return self.wrong_type(&at, "an attribute set");
        };
        let object = Object {
            place: at.place,
            fields,
        };
        for field in fields
            .keys()
            .filter(|field| !known.contains(&field.as_str()))
        {
            let nearest = nearest(field, known);
            self.report(
                &object.place_of(field),
                MetaProblemKind::Unknown { nearest, known },
            );
        }
        Some(object)
    }

    fn required<'v>(&mut self, object: &Object<'v>, field: &str) -> Option<At<'v>> {
        let found = object.get(field);
        if found.is_none() {
            self.report(&object.place_of(field), MetaProblemKind::Missing);
        }
        found
    }

    fn wrong_type<T>(&mut self, at: &At<'_>, expected: &'static str) -> Option<T> {
        let found = match at.value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an attribute set",
        };
        self.report(&at.place, MetaProblemKind::Type { expected, found });
        None
    }
}

/// Returns the known word that is most similar, if any.
fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let likeness = |known: &str| strsim::jaro_winkler(&word.to_lowercase(), &known.to_lowercase());
    known
        .iter()
        .map(|known| (likeness(known), *known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
