//! The parent domain of the previews' host names.

/// Maximum length of the domain: 253 for a host name, minus 64 for a preview's label with its dot.
const MAX_LENGTH: usize = 189;

/// The text cannot be the previews' domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' {reason}{}", remedy(suggestion.as_deref()))]
pub struct InvalidDomain {
    text: String,
    reason: &'static str,
    suggestion: Option<String>,
}

fn remedy(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(domain) => format!("; write {domain}"),
        None => "; write it like preview.example.com".to_owned(),
    }
}

/// Validates a plain domain: labels of a-z, 0-9 and '-', separated by dots.
///
/// # Errors
/// [`InvalidDomain`] names the problem, and the domain that was probably meant.
pub fn check_domain(text: &str) -> Result<(), InvalidDomain> {
    match problem(text) {
        None => Ok(()),
        Some(reason) => Err(InvalidDomain {
            text: text.to_owned(),
            reason,
            suggestion: suggestion(text),
        }),
    }
}

fn problem(text: &str) -> Option<&'static str> {
    let last = text.rsplit('.').next().unwrap_or_default();
    let labels_are_valid = text.split('.').all(|label| {
        (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    });
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    Some(match text {
        _ if text.contains("://") => "is a URL instead of a domain",
        _ if text.contains('/') => "has a path",
        _ if text.contains('*') => "is a wildcard: previews get host names below the domain anyway",
        _ if text.contains(':') => "has a port, which belongs in previews.port",
        _ if text.ends_with('.') => "ends with a dot",
        _ if text.starts_with('.') => "starts with a dot",
        _ if !text.is_ascii() => "is not ASCII: DNS and certificates use Punycode",
        _ if text.contains(|c: char| c.is_ascii_uppercase()) => {
            "has upper-case letters, but browsers send lower case"
        }
        _ if !text.chars().all(plain) => "has characters other than a-z, 0-9, '-' and '.'",
        _ if !labels_are_valid => {
            "has a label that is empty, longer than 63 characters, or starts or ends with '-'"
        }
        _ if last.bytes().all(|byte| byte.is_ascii_digit()) => {
            "is an IP address, which has no host names below it"
        }
        _ if text.len() > MAX_LENGTH => "is longer than 189 characters",
        _ => return None,
    })
}

/// Returns the domain that was probably meant.
fn suggestion(text: &str) -> Option<String> {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let text = text.split(['/', '?', '#']).next()?;
    let text = text.split(':').next()?;
    let text = text.trim().trim_start_matches(['*', '.']);
    // Ideographic and full-width dots separate labels too (UTS 46).
    let text = text
        .replace(['\u{3002}', '\u{ff0e}', '\u{ff61}'], ".")
        .to_lowercase();
    let labels = text.trim_end_matches('.').split('.').map(ascii_label);
    let domain = labels.collect::<Option<Vec<_>>>()?.join(".");
    problem(&domain).is_none().then_some(domain)
}

/// Encodes a lower-case label for DNS. `None` when that would need Unicode's tables.
fn ascii_label(label: &str) -> Option<String> {
    if label.is_ascii() {
        return Some(label.to_owned());
    }
    let is_short = label.len() <= 4 * 63;
    let is_stable = label
        .chars()
        .all(|c| c.is_ascii() || is_mapped_to_itself(c));
    (is_short && is_stable).then(|| format!("xn--{}", punycode(label)))
}

/// Reports whether IDNA (UTS 46) maps a character to itself, without normalization. Lists only blocks in which that holds
/// for each character.
fn is_mapped_to_itself(c: char) -> bool {
    matches!(c,
        'ß'..='ö' | 'ø'..='ÿ'            // Latin-1
        | 'ά'..='ώ'                       // Greek
        | 'а'..='џ'                       // Cyrillic
        | 'א'..='ת'                       // Hebrew
        | 'ぁ'..='ゖ' | 'ァ'..='ヺ' | 'ー'  // Kana
        | '\u{4e00}'..='\u{9fff}'         // Han
        | '가'..='힣')
        || (('ā'..='ž').contains(&c) && !matches!(c, 'ĳ' | 'ŀ' | 'ŉ') && c.is_lowercase())
}

/// Encodes a label in Punycode (RFC 3492, sections 5 and 6).
fn punycode(label: &str) -> String {
    const BASE: u32 = 36;
    const T_MIN: u32 = 1;
    const T_MAX: u32 = 26;
    let digit = |value: u32| char::from_digit(value, 36);
    // Punycode's digits are a-z, then 0-9; `char::from_digit` has 0-9 first.
    let digit = |value: u32| digit((value + 10) % 36).unwrap_or_default();

    let mut output: String = label.chars().filter(char::is_ascii).collect();
    let basic = u32::try_from(output.len()).unwrap_or(u32::MAX);
    if basic > 0 {
        output.push('-');
    }
    let codes: Vec<u32> = label.chars().map(u32::from).collect();
    let (mut handled, mut least, mut delta, mut bias) = (basic, 128, 0_u32, 72);
    while let Some(next) = codes.iter().copied().filter(|code| *code >= least).min() {
        delta += (next - least) * (handled + 1);
        for code in &codes {
            if *code < next {
                delta += 1;
            }
            if *code != next {
                continue;
            }
            let (mut quotient, mut k) = (delta, BASE);
            loop {
                let threshold = k.saturating_sub(bias).clamp(T_MIN, T_MAX);
                if quotient < threshold {
                    break;
                }
                let step = BASE - threshold;
                output.push(digit(threshold + (quotient - threshold) % step));
                quotient = (quotient - threshold) / step;
                k += BASE;
            }
            output.push(digit(quotient));
            bias = adapted(delta, handled + 1, handled == basic);
            delta = 0;
            handled += 1;
        }
        delta += 1;
        least = next + 1;
    }
    output
}

/// Computes the bias for the next code (RFC 3492, section 6.1).
fn adapted(delta: u32, count: u32, is_first: bool) -> u32 {
    let mut delta = if is_first { delta / 700 } else { delta / 2 };
    delta += delta / count;
    let mut k = 0;
    while delta > (36 - 1) * 26 / 2 {
        delta /= 36 - 1;
        k += 36;
    }
    k + 36 * delta / (delta + 38)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_check_accepts_plain_domains() {
        let longest = format!(
            "{}.example.com",
            ["a".repeat(59), "b".repeat(59), "c".repeat(57)].join(".")
        );
        assert_eq!(longest.len(), MAX_LENGTH);
        for domain in [
            "preview.example.com",
            "localhost",
            "a1.b-c.example",
            "xn--bcher-kva.example",
            &longest,
        ] {
            assert_eq!(check_domain(domain), Ok(()), "{domain}");
        }
    }

    #[test]
    fn domain_check_suggests_the_intended_domain() {
        for (text, reason, suggestion) in [
            (
                "https://preview.example.com/",
                "is a URL",
                Some("preview.example.com"),
            ),
            (
                "preview.example.com/x",
                "has a path",
                Some("preview.example.com"),
            ),
            (
                "*.preview.example.com",
                "is a wildcard",
                Some("preview.example.com"),
            ),
            (
                "preview.example.com:8443",
                "has a port",
                Some("preview.example.com"),
            ),
            (
                "preview.example.com.",
                "ends with a dot",
                Some("preview.example.com"),
            ),
            (".example.com", "starts with a dot", Some("example.com")),
            (
                "Preview.Example.com",
                "has upper-case letters",
                Some("preview.example.com"),
            ),
            (
                "bücher.example",
                "is not ASCII",
                Some("xn--bcher-kva.example"),
            ),
            (
                "https://*.BÜCHER.example./",
                "is a URL",
                Some("xn--bcher-kva.example"),
            ),
            (
                "straße.example",
                "is not ASCII",
                Some("xn--strae-oqa.example"),
            ),
            (
                "例え。テスト",
                "is not ASCII",
                Some("xn--r8jz45g.xn--zckzah"),
            ),
            (
                "пример.испытание",
                "is not ASCII",
                Some("xn--e1afmkfd.xn--80akhbyknj4f"),
            ),
            (
                "παράδειγμα.δοκιμή",
                "is not ASCII",
                Some("xn--hxajbheg2az3al.xn--jxalpdlp"),
            ),
            // No guess where normalization would be needed.
            ("bu\u{308}cher.example", "is not ASCII", None),
            ("ﬁsh.example", "is not ASCII", None),
            ("my_app.example", "has characters other than", None),
            ("a b.example", "has characters other than", None),
            ("a..example", "has a label", None),
            ("-a.example", "has a label", None),
            ("192.0.2.1", "is an IP address", None),
        ] {
            let error = check_domain(text).expect_err(text);
            assert!(error.reason.starts_with(reason), "{text}: {error}");
            assert_eq!(error.suggestion.as_deref(), suggestion, "{text}");
        }
        let long = "a.".repeat(95) + "b";
        assert!(
            check_domain(&long)
                .expect_err("long")
                .reason
                .contains("189")
        );
        assert_eq!(
            check_domain("bücher.example")
                .expect_err("refused")
                .to_string(),
            "'bücher.example' is not ASCII: DNS and certificates use Punycode; write xn--bcher-kva.example"
        );
    }

    /// The samples of RFC 3492, section 7.1, that IDNA does not change.
    #[test]
    fn punycode_matches_the_rfc() {
        for (text, encoded) in [
            ("他们为什么不说中文", "ihqwcrb4cv8a8dqg056pqjye"),
            ("למההםפשוטלאמדבריםעברית", "4dbcagdahymbxekheh6e0a7fei0b"),
            (
                "なぜみんな日本語を話してくれないのか",
                "n8jok5ay5dzabd5bym9f0cm5685rrjetr6pdxa",
            ),
            (
                "почемужеонинеговорятпорусски",
                "b1abfaaepdrnnbgefbadotcwatmq2g4l",
            ),
            ("3年b組金八先生", "3b-ww4c5e180e575a65lsy2b"),
            ("ひとつ屋根の下2", "2-u9tlzr9756bt3uc0v"),
        ] {
            assert_eq!(punycode(text), encoded, "{text}");
        }
    }
}
