//! Parser for the daemon's server-sent events (WHATWG HTML, section 9.2, "Parsing an event stream").
//!
//! It returns the data of each message only: the other fields repeat parts of the data.

/// Assembles messages from chunks.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    data: Option<String>,
}

/// A message longer than any that the daemon sends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("message exceeds {} bytes", Parser::MAX_MESSAGE)]
pub(crate) struct TooLong;

impl Parser {
    /// Maximum length of a line and of a message, in bytes.
    const MAX_MESSAGE: usize = 4 << 20;

    /// Adds a chunk and returns the data of the messages that it completes.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<Vec<String>, TooLong> {
        let mut complete = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            let held = self.line.len() + self.data.as_ref().map_or(0, String::len);
            if held > Self::MAX_MESSAGE {
                return Err(TooLong);
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                complete.extend(self.end_line(&line));
            }
        }
        Ok(complete)
    }

    /// Processes a complete line. An empty line ends a message.
    fn end_line(&mut self, line: &[u8]) -> Option<String> {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() {
            return self.data.take();
        }
        // A line without a colon is a field without a value; a line that starts with one is a comment.
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
    fn messages_are_independent_of_chunk_boundaries() {
        for size in 1..=STREAM.len() {
            let mut parser = Parser::default();
            let messages: Vec<String> = STREAM
                .chunks(size)
                .flat_map(|chunk| parser.push(chunk).expect("short"))
                .collect();
            assert_eq!(messages, ["{\"a\":\n1}", "two"], "in chunks of {size}");
        }
    }

    #[test]
    fn oversized_message_is_rejected() {
        let mut parser = Parser::default();
        let chunk = vec![b'x'; 1 << 20];
        let rejected = (0..10)
            .map(|_| parser.push(&chunk))
            .any(|result| result == Err(TooLong));
        assert!(rejected);
    }
}
