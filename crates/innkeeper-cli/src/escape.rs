//! Text from guests, builds and repositories on its way to a terminal.
//!
//! A terminal executes control sequences: they move the cursor, rename the window, write to the clipboard (OSC 52) or
//! make a line look like another. All that these programs print passes through [`Escaper`]: it escapes such characters
//! when the output is a terminal, and changes nothing otherwise.

/// Makes control characters visible, for a stream of bytes that arrives in pieces.
#[derive(Debug)]
pub(crate) struct Escaper {
    terminal: bool,
    /// An unfinished character, or a carriage return that may be the first half of a line's end.
    held: Vec<u8>,
}

impl Escaper {
    /// For output that is a terminal, or is not.
    pub(crate) fn new(terminal: bool) -> Self {
        Self {
            terminal,
            held: Vec::new(),
        }
    }

    /// The next piece as it is printed.
    pub(crate) fn piece(&mut self, bytes: &[u8]) -> Vec<u8> {
        if !self.terminal {
            return bytes.to_vec();
        }
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        let end = all.len() - unfinished(&all);
        self.held = all.split_off(end);
        visible(&all).into_bytes()
    }

    /// The rest, when the stream has ended.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        visible(&std::mem::take(&mut self.held)).into_bytes()
    }
}

/// A whole text as it is printed on a terminal.
pub(crate) fn for_terminal(text: &str) -> String {
    visible(text.as_bytes())
}

/// How many bytes at the end mean something else when more bytes follow.
fn unfinished(bytes: &[u8]) -> usize {
    if bytes.ends_with(b"\r") {
        return 1;
    }
    let last = bytes.utf8_chunks().last();
    let cut = last.map_or(&[][..], |chunk| chunk.invalid());
    match std::str::from_utf8(cut) {
        Err(error) if error.error_len().is_none() => cut.len(),
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
                c if c.is_control() || misleads(c) => text.extend(c.escape_unicode()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Characters that reorder or hide the text around them: bidirectional marks (UAX #9, section 2), separators of lines,
/// and tags.
fn misleads(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}' | '\u{feff}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]]) -> String {
        let mut escaper = Escaper::new(true);
        let mut all: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| escaper.piece(piece))
            .collect();
        all.extend(escaper.end());
        String::from_utf8(all).expect("UTF-8")
    }

    #[test]
    fn what_a_terminal_would_execute_is_visible() {
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
    fn pieces_may_end_anywhere() {
        let text = "\u{65e5}\r\n\u{202e}\u{9b}x\r".as_bytes();
        let whole = shown(&[text]);
        assert_eq!(whole, "\u{65e5}\n\\u{202e}\\u{9b}x\\u{d}");
        for at in 0..text.len() {
            assert_eq!(shown(&[&text[..at], &text[at..]]), whole, "cut at {at}");
        }
    }

    #[test]
    fn a_pipe_gets_what_came() {
        let bytes = b"\x1b[2J\xff\r\xe6";
        let mut escaper = Escaper::new(false);
        assert_eq!(escaper.piece(bytes), bytes);
        assert_eq!(escaper.end(), b"");
    }
}
