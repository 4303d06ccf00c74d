//! Server-sent events, as far as the daemon uses them (WHATWG HTML, section 9.2, "Parsing an event stream"):
//! the data of each message. Everything else about a message stands in its data, too.

/// Puts messages together from the pieces that arrive.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    data: Option<String>,
}

/// A message is longer than anything the daemon sends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of more than {} bytes", Parser::MAX_MESSAGE)]
pub(crate) struct TooLong;

impl Parser {
    /// The longest line and the longest message, in bytes.
    const MAX_MESSAGE: usize = 4 << 20;

    /// Takes the next piece and returns the data of the messages that it completes.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<Vec<String>, TooLong> {
        let mut complete = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            let held = self.line.len() + self.data.as_ref().map_or(0, String::len);
            if held > Self::MAX_MESSAGE {
                return Err(TooLong);
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                complete.extend(self.line_ended(&line));
            }
        }
        Ok(complete)
    }

    /// Takes a whole line. An empty one ends a message.
    fn line_ended(&mut self, line: &[u8]) -> Option<String> {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() {
            return self.data.take();
        }
        // A line without a colon is a field without a value; one that starts with it is a comment.
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b": hello\r\nid: 1\r\ndata: {\"a\":\r\ndata:1}\r\n\r\nevent: x\n\ndata: two\n\ndata: cut";

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        for size in 1..=STREAM.len() {
            let mut parser = Parser::default();
            let messages: Vec<String> = STREAM
                .chunks(size)
                .flat_map(|piece| parser.push(piece).expect("short"))
                .collect();
            assert_eq!(messages, ["{\"a\":\n1}", "two"], "in pieces of {size}");
        }
    }

    #[test]
    fn a_message_without_end_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..10)
            .map(|_| parser.push(&piece))
            .any(|result| result == Err(TooLong));
        assert!(refused);
    }
}
