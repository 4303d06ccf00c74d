//! Recognizes requests of crawlers and scanners, which wake no preview.
//!
//! By what they send, since nothing else is known about them: the rules name the common ones and may miss others. A path that no
//! route of a preview has needs no rule here: Caddy responds 404 to it.

use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, HeaderValue};

/// Words in the user agents of crawlers, scanners and programs that look at links in messages.
const AGENTS: [&str; 24] = [
    "bingpreview",
    "censys",
    "crawl",
    "embedly",
    "expanse",
    "facebookexternalhit",
    "feroxbuster",
    "gobuster",
    "internet-measurement",
    "l9explore",
    "masscan",
    "mediapartners-google",
    "nikto",
    "nmap",
    "nuclei",
    "scanner",
    "slack-imgproxy",
    "slurp",
    "spider",
    "sqlmap",
    "whatsapp",
    "wpscan",
    "zgrab",
    "zmap",
];

/// Beginnings of paths that scanners try on every host, and of files for crawlers. In lower case.
const PATHS: [&str; 26] = [
    "/.well-known/security.txt",
    "/_ignition",
    "/actuator",
    "/ads.txt",
    "/autodiscover/",
    "/boaform",
    "/cgi-bin/luci",
    "/debug/default/view",
    "/ecp/",
    "/hnap1",
    "/manager/html",
    "/owa/",
    "/phpinfo",
    "/phpmyadmin",
    "/pma/",
    "/robots.txt",
    "/server-status",
    "/sitemap.xml",
    "/solr/",
    "/telescope/",
    "/vendor/phpunit",
    "/wp-admin",
    "/wp-config",
    "/wp-content/",
    "/wp-includes/",
    "/wp-login.php",
];

/// Header of requests by current browsers, on encrypted connections.
const BROWSER: &str = "sec-fetch-mode";

/// Reports whether a request comes from a crawler or a scanner, judging by its user agent and its path.
pub(crate) fn is_bot(headers: &HeaderMap, path: &str) -> bool {
    let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes);
    let agent = agent.map(|agent| String::from_utf8_lossy(agent).to_ascii_lowercase());
    agent.is_some_and(|agent| is_bots_agent(&agent))
        // A person may look at a preview of an app that has such a path.
        || !headers.contains_key(BROWSER) && is_scanners_path(path)
}

/// Reports whether a user agent, in lower case, is that of a bot.
fn is_bots_agent(agent: &str) -> bool {
    let mut words = agent.split(|c: char| !c.is_ascii_alphanumeric());
    // `Googlebot`, `AhrefsBot`, `bot`. Cubot is a maker of phones.
    words.any(|word| (word.ends_with("bot") || word.ends_with("bots")) && word != "cubot")
        || AGENTS.iter().any(|name| agent.contains(name))
}

fn is_scanners_path(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let is_hidden = |segment: &str| segment.starts_with('.') && segment != ".well-known";
    path.split('/').any(is_hidden)
        || path.ends_with("/xmlrpc.php")
        || PATHS.iter().any(|start| path.starts_with(start))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn asks(agent: &str, path: &str, browser: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_str(agent).expect("valid"));
        if browser {
            let mode = HeaderValue::from_static("navigate");
            headers.insert(HeaderName::from_static(BROWSER), mode);
        }
        is_bot(&headers, path)
    }

    #[test]
    fn crawlers_scanners_and_link_previews_are_bots() {
        for agent in [
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0)",
            "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
            "facebookexternalhit/1.1",
            "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
            "Mozilla/5.0 zgrab/0.x",
            "Mozilla/5.0 (compatible; CensysInspect/1.1)",
            "Baiduspider+(+http://www.baidu.com/search/spider.htm)",
        ] {
            assert!(asks(agent, "/", false), "{agent}");
            assert!(asks(agent, "/", true), "{agent}");
        }
    }

    #[test]
    fn browsers_and_programs_are_no_bots() {
        for agent in [
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Mozilla/5.0 (Linux; Android 10; CUBOT KINGKONG 5) AppleWebKit/537.36 Chrome/120 Mobile Safari/537.36",
            "curl/8.14.1",
            "python-requests/2.32",
            "Go-http-client/2.0",
            "GitHub-Hookshot/abc",
            "",
        ] {
            for path in ["/", "/api/users?x=.env", "/.well-known/acme-challenge/x"] {
                assert!(
                    !asks(agent, path.split('?').next().expect("one"), false),
                    "{agent} {path}"
                );
            }
        }
    }

    #[test]
    fn paths_of_scanners_are_for_browsers_only() {
        for path in [
            "/.env",
            "/.git/config",
            "/api/.env",
            "/WP-login.php",
            "/blog/xmlrpc.php",
            "/robots.txt",
        ] {
            assert!(asks("curl/8", path, false), "{path}");
            assert!(!asks("Mozilla/5.0 Firefox/140.0", path, true), "{path}");
        }
    }
}
