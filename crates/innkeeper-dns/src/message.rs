//! Queries and responses of the DNS (RFC 1035, RFC 6891).

use std::net::{Ipv4Addr, SocketAddrV4};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr::rdata::{SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// The size of a message's header.
const HEADER: usize = 12;

/// The maximum size of a query in bytes. Queries have one name and few options; larger ones carry something else.
const MAX_QUERY: usize = 4096;

/// The size that this program announces for responses over UDP, in bytes: it fits every path without fragments.
const PAYLOAD: u16 = 1232;

/// The time that a guest may keep the address of one of its hosts, in seconds. Short, since previews come and go.
const TTL: u32 = 5;

/// The name of the program's version, of the class CH (RFC 4892).
const VERSION_NAME: &str = "version.server.";

/// A packet by what is to be done with it.
#[derive(Debug)]
pub(crate) enum Received {
    /// A valid query.
    Query(Box<Query>),
    /// Another message, and the response to it.
    Invalid(Vec<u8>),
    /// No message, or a response: a reply could begin a loop.
    Ignored,
}

/// A valid query with one question.
#[derive(Debug)]
pub(crate) struct Query {
    bytes: Vec<u8>,
    message: Message,
    question: Question,
}

/// Reads a packet.
pub(crate) fn receive(bytes: &[u8]) -> Received {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Received::Ignored;
    };
    let [id_high, id_low, flags, _, questions @ ..] = *header;
    let is_response = flags & 0x80 != 0;
    if is_response {
        return Received::Ignored;
    }
    let id = u16::from_be_bytes([id_high, id_low]);
    let op_code = OpCode::from_u8((flags >> 3) & 0x0f);
    let refuse = |code| {
        let mut response = Message::error_msg(id, op_code, code);
        response.metadata.recursion_desired = flags & 1 != 0;
        encoded(&response).map_or(Received::Ignored, Received::Invalid)
    };
    if op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    // Before the message is parsed: the parser allocates memory for as many questions as the header announces.
    if bytes.len() > MAX_QUERY || questions[..2] != [0, 1] {
        return refuse(ResponseCode::FormErr);
    }
    let Ok(mut message) = Message::from_vec(bytes) else {
        return refuse(ResponseCode::FormErr);
    };
    let Some(question) = message.queries.pop() else {
        return refuse(ResponseCode::FormErr);
    };
    let query = Query {
        bytes: bytes.to_owned(),
        message,
        question,
    };
    // A pointer could only lead into the header, whose number changes on the way to a name server.
    if bytes.get(HEADER..query.end_of_name()) != Some(&query.plain_name()) {
        return refuse(ResponseCode::FormErr);
    }
    Received::Query(Box::new(query))
}

impl Query {
    /// Returns the query as the guest sent it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the maximum size of a response over UDP.
    pub(crate) fn max_payload(&self) -> usize {
        self.message.max_payload().into()
    }

    /// Returns the name in lower case and without the last dot, if it can be that of a host on the internet.
    ///
    /// The result has letters, digits, `-` and single dots between them only, so it is also a safe name of a file.
    pub(crate) fn host(&self) -> Option<String> {
        if self.question.query_class() != DNSClass::IN {
            return None;
        }
        let mut host = String::new();
        for label in self.name() {
            let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
            if label.is_empty() || !label.iter().all(is_plain) {
                return None;
            }
            if !host.is_empty() {
                host.push('.');
            }
            host.extend(
                label
                    .iter()
                    .map(|byte| char::from(byte.to_ascii_lowercase())),
            );
        }
        (!host.is_empty()).then_some(host)
    }

    /// Reports whether the name is in a zone, which is in lower case, whatever bytes its first labels have.
    pub(crate) fn is_in(&self, zone: &str) -> bool {
        let labels: Vec<_> = self.name().iter().collect();
        let zone: Vec<_> = zone.split('.').map(str::as_bytes).collect();
        let Some(others) = labels.len().checked_sub(zone.len()) else {
            return false;
        };
        let last = labels.into_iter().skip(others);
        last.zip(zone)
            .all(|(label, expected)| label.eq_ignore_ascii_case(expected))
    }

    /// Reports whether this is the query for the program's version.
    pub(crate) fn is_for_version(&self) -> bool {
        let question = &self.question;
        question.query_class() == DNSClass::CH
            && question.query_type() == RecordType::TXT
            && question
                .name()
                .to_ascii()
                .eq_ignore_ascii_case(VERSION_NAME)
    }

    /// Returns the response that the name has this address, and no records of other types.
    pub(crate) fn address(&self, address: Ipv4Addr) -> Vec<u8> {
        let is_asked_for = matches!(self.question.query_type(), RecordType::A | RecordType::ANY);
        let records = is_asked_for.then(|| self.record(TTL, RData::from(address)));
        self.respond(ResponseCode::NoError, records)
    }

    /// Returns the response that the app at an address, of the guest with this name, serves the name, and no records of other
    /// types. Its TTL is 0: Caddy has a time of its own.
    pub(crate) fn service(&self, app: SocketAddrV4, guest: &str) -> Vec<u8> {
        let is_asked_for = self.question.query_type() == RecordType::SRV;
        let target = Name::from_ascii(guest).ok().filter(|_| is_asked_for);
        let record =
            target.map(|target| self.record(0, RData::SRV(SRV::new(0, 0, app.port(), target))));
        self.respond(ResponseCode::NoError, record)
    }

    /// Returns the response that the name does not exist.
    pub(crate) fn absence(&self) -> Vec<u8> {
        self.respond(ResponseCode::NXDomain, None)
    }

    /// Returns the response with the program's version.
    pub(crate) fn version(&self) -> Vec<u8> {
        let text = concat!("innkeeper-dns ", env!("CARGO_PKG_VERSION"));
        let mut record = self.record(0, RData::TXT(TXT::new(vec![text.to_owned()])));
        record.dns_class = DNSClass::CH;
        self.respond(ResponseCode::NoError, Some(record))
    }

    /// Returns the response that resolving failed: the guest tries its next name server.
    pub(crate) fn failure(&self) -> Vec<u8> {
        self.respond(ResponseCode::ServFail, None)
    }

    /// Returns the response that this program does not resolve names for the client.
    pub(crate) fn refusal(&self) -> Vec<u8> {
        self.respond(ResponseCode::Refused, None)
    }

    /// Returns the response that the answer does not fit UDP: the guest repeats the query over TCP.
    pub(crate) fn truncated(&self) -> Vec<u8> {
        let mut response = self.response(ResponseCode::NoError);
        response.metadata.truncation = true;
        encoded(&response).unwrap_or_default()
    }

    /// Reports whether a message of a name server is the response to `sent`, which is this query with another number.
    pub(crate) fn is_answered_by(&self, sent: &[u8], response: &[u8]) -> bool {
        let (Some(header), Some(id)) = (response.first_chunk::<HEADER>(), sent.first_chunk::<2>())
        else {
            return false;
        };
        let is_response = header[2] & 0x80 != 0 && header[2] & 0x78 == 0;
        if !is_response || !header.starts_with(id) {
            return false;
        }
        match header[4..6] {
            // Servers that do not understand a query respond with a header.
            [0, 0] => header[3] & 0x0f != 0,
            [0, 1] => self.same_question(sent, response),
            _ => false,
        }
    }

    /// Returns the name as in a packet, without a pointer: each label follows its length, and an empty one is the last.
    fn plain_name(&self) -> Vec<u8> {
        let mut name = Vec::new();
        for label in self.name() {
            name.extend(u8::try_from(label.len()));
            name.extend_from_slice(label);
        }
        name.push(0);
        name
    }

    fn end_of_name(&self) -> usize {
        HEADER + self.plain_name().len()
    }

    /// Compares the questions, without letters' case: names, types and classes.
    fn same_question(&self, sent: &[u8], response: &[u8]) -> bool {
        let end = self.end_of_name() + 4;
        match (sent.get(HEADER..end), response.get(HEADER..end)) {
            (Some(sent), Some(response)) => sent.eq_ignore_ascii_case(response),
            _ => false,
        }
    }

    fn record(&self, ttl: u32, data: RData) -> Record {
        Record::from_rdata(self.name().clone(), ttl, data)
    }

    fn name(&self) -> &Name {
        self.question.name()
    }

    fn respond(&self, code: ResponseCode, record: Option<Record>) -> Vec<u8> {
        let mut response = self.response(code);
        response.add_answers(record);
        // Neither the question, which has been parsed, nor these records can fail to be encoded.
        encoded(&response).unwrap_or_default()
    }

    fn response(&self, code: ResponseCode) -> Message {
        let mut response = Message::new(
            self.message.metadata.id,
            MessageType::Response,
            OpCode::Query,
        );
        response.metadata.recursion_desired = self.message.metadata.recursion_desired;
        response.metadata.checking_disabled = self.message.metadata.checking_disabled;
        response.metadata.recursion_available = true;
        response.metadata.response_code = code;
        response.add_query(self.question.clone());
        if self.message.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD);
            response.set_edns(edns);
        }
        response
    }
}

/// Reports whether a response does not fit UDP, and is to be requested over TCP.
pub(crate) fn is_truncated(response: &[u8]) -> bool {
    response.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

fn encoded(message: &Message) -> Option<Vec<u8>> {
    message.to_vec().ok()
}

#[cfg(test)]
pub(crate) mod tests;
