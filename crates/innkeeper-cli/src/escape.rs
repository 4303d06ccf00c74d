//! Escaping of text from guests, builds and repositories for a terminal.
//!
//! A terminal executes control sequences: they move the cursor, rename the window, write to the clipboard (OSC 52) or
//! disguise a line. All output of these programs passes through [`Escaper`], which escapes such characters if the output
//! is a terminal and changes nothing otherwise.

/// Makes control characters of a byte stream visible.
#[derive(Debug)]
pub(crate) struct Escaper {
    terminal: bool,
    /// An incomplete character, or a carriage return that a line feed may follow.
    pending: Vec<u8>,
}

impl Escaper {
    /// Creates an escaper. It changes nothing unless the output is a `terminal`.
    pub(crate) fn new(terminal: bool) -> Self {
        Self {
            terminal,
            pending: Vec::new(),
        }
    }

    /// Returns the next bytes to print.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if !self.terminal {
            return bytes.to_vec();
        }
        let mut all = std::mem::take(&mut self.pending);
        all.extend_from_slice(bytes);
        let end = all.len() - incomplete(&all);
        self.pending = all.split_off(end);
        visible(&all).into_bytes()
    }

    /// Returns the rest at the end of the stream.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        visible(&std::mem::take(&mut self.pending)).into_bytes()
    }
}

/// Escapes a complete text for a terminal.
pub(crate) fn for_terminal(text: &str) -> String {
    visible(text.as_bytes())
}

/// Number of bytes at the end whose meaning depends on the bytes that follow.
fn incomplete(bytes: &[u8]) -> usize {
    if bytes.ends_with(b"\r") {
        return 1;
    }
    let last = bytes.utf8_chunks().last();
    let tail = last.map_or(&[][..], |chunk| chunk.invalid());
    match std::str::from_utf8(tail) {
        Err(error) if error.error_len().is_none() => tail.len(),
        _ => 0,
    }
}

fn visible(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid().chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '\r' if rest.peek() == Some(&'\n') => {}
                '\n' | '\t' => text.push(c),
                c if c.is_control() || is_misleading(c) => text.extend(c.escape_unicode()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Reports whether a character reorders or hides the text around it: bidirectional marks (UAX #9, section 2), line
/// separators and tags.
fn is_misleading(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}' | '\u{feff}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(chunks: &[&[u8]]) -> String {
        let mut escaper = Escaper::new(true);
        let mut all: Vec<u8> = chunks
            .iter()
            .flat_map(|chunk| escaper.push(chunk))
            .collect();
        all.extend(escaper.finish());
        String::from_utf8(all).expect("UTF-8")
    }

    #[test]
    fn control_characters_are_made_visible() {
        for (bytes, expected) in [
            (&b"\x1b]52;c;aGk=\x07"[..], "\\u{1b}]52;c;aGk=\\u{7}"),
            (b"\x1b[2J\x08\x7f", "\\u{1b}[2J\\u{8}\\u{7f}"),
            ("\u{9b}2J".as_bytes(), "\\u{9b}2J"),
            (b"\x9b2J", "\\x9b2J"),
            (b"good\rbad", "good\\u{d}bad"),
            (
                "a\u{202e}b\u{2066}c\u{200f}".as_bytes(),
                "a\\u{202e}b\\u{2066}c\\u{200f}",
            ),
            (
                "caf\u{e9} \u{65e5}\tx\r\ny\n".as_bytes(),
                "caf\u{e9} \u{65e5}\tx\ny\n",
            ),
        ] {
            assert_eq!(shown(&[bytes]), expected, "{bytes:?}");
        }
    }

    #[test]
    fn escaping_is_independent_of_chunk_boundaries() {
        let text = "\u{65e5}\r\n\u{202e}\u{9b}x\r".as_bytes();
        let escaped = shown(&[text]);
        assert_eq!(escaped, "\u{65e5}\n\\u{202e}\\u{9b}x\\u{d}");
        for at in 0..text.len() {
            assert_eq!(shown(&[&text[..at], &text[at..]]), escaped, "cut at {at}");
        }
    }

    #[test]
    fn a_pipe_receives_unchanged_bytes() {
        let bytes = b"\x1b[2J\xff\r\xe6";
        let mut escaper = Escaper::new(false);
        assert_eq!(escaper.push(bytes), bytes);
        assert_eq!(escaper.finish(), b"");
    }
}
