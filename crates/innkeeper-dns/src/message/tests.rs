//! Queries as guests send them, and packets that are none.

use hickory_proto::rr::rdata::A;
use proptest::prelude::*;

use super::*;

/// Returns a query as the C library sends it.
pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(
        Name::from_ascii(name).expect("a name"),
        kind,
    ));
    message
}

/// Returns a query for a name of these labels with `|` between them, which may contain any other byte.
pub(crate) fn query_of_labels(labels: &str) -> Message {
    let mut message = query(".", RecordType::A);
    let labels = labels.split_terminator('|').map(str::as_bytes);
    let name = Name::from_labels(labels).expect("a name");
    message.queries[0].set_name(name);
    message
}

fn received(message: &Message) -> Query {
    match receive(&message.to_vec().expect("encoded")) {
        Received::Query(query) => *query,
        other => panic!("not a query: {other:?}"),
    }
}

fn parsed(response: &[u8]) -> Message {
    Message::from_vec(response).expect("a message")
}

fn code_of_invalid(packet: &[u8]) -> ResponseCode {
    match receive(packet) {
        Received::Invalid(response) => {
            assert_eq!(response.first_chunk::<2>(), packet.first_chunk());
            parsed(&response).metadata.response_code
        }
        other => panic!("not invalid: {other:?}"),
    }
}

#[test]
fn names_of_hosts_are_safe_names_of_files() {
    let host = |name: &str| received(&query(name, RecordType::A)).host();
    assert_eq!(
        host("Web-7.Preview.example.org.").as_deref(),
        Some("web-7.preview.example.org")
    );
    for labels in [
        "",
        "_sip",
        "*|example",
        ".",
        "..|example",
        "a.b",
        "a/b",
        "/",
        "a\0b",
        "\u{e4}",
    ] {
        let host = received(&query_of_labels(labels)).host();
        assert_eq!(host, None, "{labels:?}");
    }
    let mut chaos = query("web.example.org.", RecordType::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(received(&chaos).host(), None);
}

#[test]
fn own_hosts_have_an_ipv4_address_and_nothing_else() {
    let gateway = Ipv4Addr::new(10, 100, 0, 2);
    for (kind, is_answered) in [
        (RecordType::A, true),
        (RecordType::ANY, true),
        (RecordType::AAAA, false),
        (RecordType::HTTPS, false),
        (RecordType::SVCB, false),
        (RecordType::MX, false),
    ] {
        let question = query("Web.example.org.", kind);
        let response = parsed(&received(&question).address(gateway));
        assert_eq!(response.metadata.id, question.metadata.id);
        assert_eq!(response.metadata.message_type, MessageType::Response);
        assert_eq!(response.metadata.response_code, ResponseCode::NoError);
        assert!(response.metadata.recursion_desired && response.metadata.recursion_available);
        assert_eq!(response.queries, question.queries);
        let name = question.queries[0].name().clone();
        let expected = Record::from_rdata(name, TTL, RData::A(A(gateway)));
        let expected = is_answered.then_some(expected);
        assert_eq!(response.answers, Vec::from_iter(expected), "{kind}");
        assert!(response.authorities.is_empty() && response.additionals.is_empty());
        assert!(response.edns.is_none());
    }
    let mut question = query("web.example.org.", RecordType::A);
    question.set_edns(Edns::new());
    let edns = parsed(&received(&question).address(gateway)).edns;
    assert_eq!(edns.map(|edns| edns.max_payload()), Some(PAYLOAD));
}

#[test]
fn failures_repeat_the_question() {
    let question = query("example.org.", RecordType::MX);
    let query = received(&question);
    for (response, code) in [
        (query.failure(), ResponseCode::ServFail),
        (query.refusal(), ResponseCode::Refused),
        (query.truncated(), ResponseCode::NoError),
    ] {
        assert_eq!(is_truncated(&response), code == ResponseCode::NoError);
        let response = parsed(&response);
        assert_eq!(response.metadata.response_code, code);
        assert_eq!(response.metadata.id, question.metadata.id);
        assert_eq!(response.queries, question.queries);
    }
}

#[test]
fn packets_that_are_no_queries_are_ignored_or_refused() {
    let valid = query("example.org.", RecordType::A)
        .to_vec()
        .expect("encoded");
    // Shorter than a header.
    for length in 0..HEADER {
        assert!(matches!(receive(&valid[..length]), Received::Ignored));
    }
    // Truncated behind it.
    for length in HEADER..valid.len() {
        assert_eq!(code_of_invalid(&valid[..length]), ResponseCode::FormErr);
    }
    let changed = |place: usize, value: u8| {
        let mut packet = valid.clone();
        packet[place] = value;
        packet
    };
    // A response.
    assert!(matches!(receive(&changed(2, 0x81)), Received::Ignored));
    // An update.
    let update = changed(2, 5 << 3);
    assert_eq!(code_of_invalid(&update), ResponseCode::NotImp);
    // No question, and more than the packet has.
    for (place, value) in [(5, 0), (5, 2), (4, 0xff)] {
        let packet = changed(place, value);
        assert_eq!(code_of_invalid(&packet), ResponseCode::FormErr);
    }
    // More records than the packet has.
    assert_eq!(code_of_invalid(&changed(6, 0xff)), ResponseCode::FormErr);
    // Larger than any query.
    let mut large = valid.clone();
    large.resize(MAX_QUERY + 1, 0);
    assert_eq!(code_of_invalid(&large), ResponseCode::FormErr);
}

#[test]
fn compressed_names_that_lead_nowhere_are_refused() {
    let header = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let question_of = |name: &[u8]| [&header[..], name, &[0, 1, 0, 1]].concat();
    for name in [
        // To itself, to the header, and behind the end.
        &[0xc0, 12][..],
        &[0xc0, 0],
        &[0xff, 0xff],
        // A label and back to it.
        &[1, b'a', 0xc0, 12],
        // Two pointers at each other.
        &[0xc0, 14, 0xc0, 12],
        // Unknown kinds of labels.
        &[0x40, 0],
        &[0x80, 0],
        // Longer than the packet.
        &[63, b'a'],
    ] {
        assert_eq!(
            code_of_invalid(&question_of(name)),
            ResponseCode::FormErr,
            "{name:?}"
        );
    }
    // More than 255 bytes.
    let long = [&[63; 64][..]; 5].concat();
    let long = question_of(&[&long[..], &[0]].concat());
    assert_eq!(code_of_invalid(&long), ResponseCode::FormErr);
}

#[test]
fn only_the_response_to_the_question_is_accepted() {
    let question = query("example.org.", RecordType::A);
    let query = received(&question);
    let sent = query.bytes().to_owned();
    let answer = query.address(Ipv4Addr::LOCALHOST);
    assert!(query.is_answered_by(&sent, &answer));
    let changed = |place: usize, change: u8| {
        let mut response = answer.clone();
        response[place] ^= change;
        response
    };
    // The case of letters does not matter.
    assert!(query.is_answered_by(&sent, &changed(HEADER + 1, 0x20)));
    for (reason, response) in [
        ("another number", changed(0, 1)),
        ("a query", changed(2, 0x80)),
        ("another operation", changed(2, 0x10)),
        ("another name", changed(HEADER + 1, 1)),
        ("another type", changed(HEADER + 14, 1)),
        ("another class", changed(HEADER + 16, 1)),
        ("two questions", changed(5, 3)),
        ("no question", changed(5, 1)),
        ("no header", answer[..HEADER - 1].to_vec()),
        ("no whole question", answer[..HEADER + 5].to_vec()),
    ] {
        assert!(!query.is_answered_by(&sent, &response), "{reason}");
    }
    // A server that does not understand the query.
    let error = Message::error_msg(question.metadata.id, OpCode::Query, ResponseCode::FormErr);
    assert!(query.is_answered_by(&sent, &error.to_vec().expect("encoded")));
}

#[test]
fn only_the_query_for_the_version_is_that() {
    let mut question = query("VERSION.server.", RecordType::TXT);
    assert!(!received(&question).is_for_version());
    question.queries[0].set_query_class(DNSClass::CH);
    let query = received(&question);
    assert!(query.is_for_version());
    let response = parsed(&query.version());
    assert_eq!(response.answers.len(), 1);
    assert!(
        response.answers[0]
            .to_string()
            .contains(env!("CARGO_PKG_VERSION"))
    );
}

/// Any bytes, and valid queries with some bytes changed.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let any_bytes = proptest::collection::vec(any::<u8>(), 0..600);
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let mut question = query("web-7.preview.example.org.", RecordType::A);
    question.set_edns(Edns::new());
    let valid = question.to_vec().expect("encoded");
    let changed = changes.prop_map(move |changes| {
        let mut packet = valid.clone();
        for (place, value) in changes {
            let place = place.index(packet.len());
            packet[place] = value;
        }
        packet
    });
    prop_oneof![any_bytes, changed]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn no_packet_causes_a_panic(packet in packets(), response in packets()) {
        match receive(&packet) {
            Received::Ignored => {}
            Received::Invalid(response) => prop_assert_eq!(response.len(), HEADER),
            Received::Query(query) => {
                if let Some(host) = query.host() {
                    prop_assert!(!host.contains(['/', '\0']) && !host.contains(".."));
                    prop_assert!(!host.starts_with('.') && host.len() < 255);
                }
                query.is_answered_by(&packet, &response);
                for response in [query.address(Ipv4Addr::LOCALHOST), query.failure(), query.truncated()] {
                    prop_assert!(response.len() <= 512);
                    prop_assert!(Message::from_vec(&response).is_ok());
                }
            }
        }
    }
}
