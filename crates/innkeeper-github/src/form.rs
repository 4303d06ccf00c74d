//! The content type that GitHub's page for new webhooks preselects: a form whose field `payload` contains the JSON.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// The media type of forms.
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

/// The field with the JSON.
const FIELD: &[u8] = b"payload";

/// Returns the JSON of a delivery's body. A body that is not a form by its `Content-Type` is returned unchanged, and so is
/// a JSON object that is declared a form: curl declares every body so by default. `None` for a form without the
/// field, or with more than one. The result is never longer than the body.
///
/// The signature covers the body as sent: verify it first.
#[must_use]
pub fn payload<'a>(content_type: Option<&str>, body: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    if !is_form(content_type) || body.trim_ascii_start().starts_with(b"{") {
        return Some(Cow::Borrowed(body));
    }
    let fields = body.split(|byte| *byte == b'&');
    let mut values = fields.filter_map(|field| {
        let mut parts = field.splitn(2, |byte| *byte == b'=');
        let (name, value) = (parts.next()?, parts.next().unwrap_or_default());
        percent_decode(name)
            .eq(FIELD.iter().copied())
            .then_some(value)
    });
    let value = values.next()?;
    values.next().is_none().then(|| Cow::Owned(decoded(value)))
}

/// Reports whether a `Content-Type` is that of a form, with any parameters.
fn is_form(content_type: Option<&str>) -> bool {
    let media_type = content_type.and_then(|value| value.split(';').next());
    media_type.is_some_and(|name| name.trim().eq_ignore_ascii_case(FORM))
}

/// Decodes a field's value.
fn decoded(value: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = value
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    percent_decode(&spaced).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_form(body: &str) -> Option<String> {
        let payload = payload(Some(FORM), body.as_bytes())?;
        Some(String::from_utf8(payload.into_owned()).expect("UTF-8"))
    }

    #[test]
    fn form_field_is_decoded() {
        let decoded = Some(r#"{"a": "é+&="}"#.to_owned());
        assert_eq!(
            of_form("payload=%7B%22a%22%3A+%22%C3%A9%2B%26%3D%22%7D"),
            decoded
        );
        assert_eq!(
            of_form("x=1&p%61yload=%7b%22a%22:%20%22%c3%a9%2b%26=%22}&y"),
            decoded
        );
        assert_eq!(of_form("payload="), Some(String::new()));
        assert_eq!(of_form("payload=%zz%"), Some("%zz%".to_owned()));
    }

    #[test]
    fn json_that_is_declared_a_form_is_unchanged() {
        for body in ["{}", "\n {\"a\": \"payload=1&b\"}"] {
            assert_eq!(of_form(body).as_deref(), Some(body));
        }
    }

    #[test]
    fn form_without_exactly_one_payload_is_invalid() {
        for body in ["", "&", "=", "payloads=1", "Payload=1", "[1]"] {
            assert_eq!(of_form(body), None, "{body:?}");
        }
        assert_eq!(of_form("payload=1&payload=1"), None);
        assert_eq!(of_form("payload=1&payl%6Fad"), None);
    }

    #[test]
    fn form_is_recognized_by_its_media_type() {
        let body = b"payload=1";
        let is_decoded = |content_type| payload(content_type, body).as_deref() == Some(b"1");
        assert!(is_decoded(Some(
            "Application/X-WWW-Form-Urlencoded ; charset=utf-8"
        )));
        for other in [None, Some("application/json"), Some(""), Some("a, b")] {
            assert_eq!(payload(other, body).as_deref(), Some(&body[..]));
        }
    }
}
