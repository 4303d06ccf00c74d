//! Reads environment files by systemd's grammar (systemd.exec(5), `EnvironmentFile=`).
//!
//! This is the only parser of such files in the workspace. It follows `src/basic/env-file.c` of systemd 254 and later;
//! `tests/env` compares it with a real systemd. It differs where systemd rejects the whole file or swallows the following
//! lines, so that a mistake in one line affects one variable:
//!
//! | input | systemd | here |
//! | --- | --- | --- |
//! | an unclosed quote | the rest of the file is the value | the variable is invalid, and parsing continues with the next line |
//! | a value with NUL, a Unicode noncharacter or bytes that are not UTF-8 | the file is rejected | the variable is invalid |
//! | `export NAME=value` | the line is ignored | read as `NAME=value`: shells read such files too |

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use super::env::is_unrepresentable;
use crate::Secret;

/// The contents of an environment file.
#[derive(Clone, Debug, Default)]
pub struct EnvFile {
    /// The last assignment of each variable.
    pub variables: BTreeMap<String, Result<Secret, InvalidLine>>,
    /// Lines without an assignment. systemd ignores them.
    pub ignored: Vec<InvalidLine>,
    /// All assignments in the order of the file, with the bytes of their lines.
    pub(super) places: Vec<(String, Range<usize>)>,
}

/// An invalid line of an environment file. Its text is never shown: it may be a secret.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} {fault}")]
pub struct InvalidLine {
    /// The line's number, from 1; the first line of a value with several.
    pub line: usize,
    /// The problem.
    pub fault: LineError,
    /// The variable that it probably should assign.
    about: Option<String>,
}

/// The problem of an invalid line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It has no `=`, or no variable's name before it.
    #[error("is not of the form NAME=value")]
    NoAssignment,
    /// A quote is still open at the end of the file.
    #[error("has a quote that is not closed")]
    OpenQuote,
    /// The value is not UTF-8.
    #[error("has a value that is not UTF-8")]
    NotUtf8,
    /// The value has a character that cannot be in a service's environment.
    #[error("has a value with a character that systemd rejects")]
    Character,
}

impl InvalidLine {
    /// Reports whether the line probably should assign this variable: `TOKEN abc` or `TOKEN: abc`.
    #[must_use]
    pub fn is_about(&self, variable: &str) -> bool {
        self.about.as_deref() == Some(variable)
    }
}

impl fmt::Debug for InvalidLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Omits `about`: if the line is just a secret, `about` is that secret.
        write!(f, "InvalidLine({self})")
    }
}

impl EnvFile {
    /// Parses a file's contents. Never fails: invalid lines are kept with their problem.
    #[must_use]
    pub fn parse(contents: &[u8]) -> Self {
        let mut file = Self::default();
        let mut reader = Reader { contents, at: 0 };
        loop {
            while reader.next_if(is_white).is_some() {}
            match reader.peek() {
                None => return file,
                Some(b'#' | b';') => reader.skip_line(),
                Some(_) => file.read_assignment(&mut reader),
            }
        }
    }

    /// Returns the value of a variable, if the file assigns one.
    ///
    /// # Errors
    /// The invalid line that assigns it, or probably should.
    pub fn get(&self, variable: &str) -> Result<Option<&Secret>, &InvalidLine> {
        match self.variables.get(variable) {
            Some(value) => value.as_ref().map(Some),
            None => match self.ignored.iter().find(|bad| bad.is_about(variable)) {
                Some(bad) => Err(bad),
                None => Ok(None),
            },
        }
    }

    /// Returns all invalid lines.
    pub fn invalid_lines(&self) -> impl Iterator<Item = &InvalidLine> {
        let invalid = self.variables.values();
        invalid
            .filter_map(|value| value.as_ref().err())
            .chain(&self.ignored)
    }

    fn read_assignment(&mut self, reader: &mut Reader<'_>) {
        let start = reader.at;
        let line = reader.line_of(start);
        let bad = |fault, about: Option<&str>| InvalidLine {
            line,
            fault,
            about: about.map(str::to_owned),
        };
        let mut reading = Reader { ..*reader };
        let Some(name) = reading.name() else {
            self.ignored.push(bad(
                LineError::NoAssignment,
                first_word(reading.since(start)),
            ));
            reader.at = reading.at;
            return;
        };
        let value = reading.value();
        if value.is_some() {
            reader.at = reading.at;
        } else {
            reader.skip_line();
        }
        match valid_name(name) {
            None => self
                .ignored
                .push(bad(LineError::NoAssignment, first_word(name))),
            Some(name) => {
                let value = value
                    .as_deref()
                    .ok_or(LineError::OpenQuote)
                    .and_then(checked)
                    .map_err(|fault| bad(fault, Some(name)));
                self.variables.insert(name.to_owned(), value);
                self.places.push((name.to_owned(), start..reader.at));
            }
        }
    }
}

/// Converts a value to text.
fn checked(value: &[u8]) -> Result<Secret, LineError> {
    let text = std::str::from_utf8(value).map_err(|_| LineError::NotUtf8)?;
    if text.contains(is_unrepresentable) {
        return Err(LineError::Character);
    }
    Ok(Secret::new(text))
}

/// Returns a variable's name that systemd accepts (`env_name_is_valid`), without a leading `export`.
fn valid_name(name: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(name).ok()?;
    let name = match name.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start_matches([' ', '\t']),
        _ => name,
    };
    let valid = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    valid.then_some(name)
}

/// Returns the first word of a line without an assignment, if it could be a variable's name.
fn first_word(line: &[u8]) -> Option<&str> {
    let mut words = line
        .split(|byte| is_white(*byte) || *byte == b':')
        .filter(|word| *word != b"export");
    valid_name(words.next()?)
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// A position in a file. All significant characters are ASCII, so it works on bytes.
struct Reader<'t> {
    contents: &'t [u8],
    at: usize,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<u8> {
        self.contents.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        self.next_if(|_| true)
    }

    fn next_if(&mut self, wanted: impl FnOnce(u8) -> bool) -> Option<u8> {
        let byte = self.peek().filter(|byte| wanted(*byte))?;
        self.at += 1;
        Some(byte)
    }

    fn since(&self, start: usize) -> &'t [u8] {
        self.contents.get(start..self.at).unwrap_or_default()
    }

    /// Returns the line number of a position, from 1.
    fn line_of(&self, position: usize) -> usize {
        let before = self.contents.get(..position).unwrap_or_default();
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|byte| !is_newline(byte)) {}
    }

    /// Reads up to `=`. `None` when the line ends before it; the position is then behind the line.
    fn name(&mut self) -> Option<&'t [u8]> {
        let start = self.at;
        loop {
            match self.next() {
                Some(b'=') => break,
                Some(byte) if !is_newline(byte) => {}
                Some(_) | None => return None,
            }
        }
        self.contents
            .get(start..self.at - 1)
            .map(<[u8]>::trim_ascii_end)
    }

    /// Reads the value up to the end of its last line. `None` when a quote is not closed.
    ///
    /// A quote is significant only at the start of the value or directly after a closing quote.
    fn value(&mut self) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        loop {
            match self.next() {
                None | Some(b'\n' | b'\r') => return Some(value),
                Some(b'\'') => self.single_quoted(&mut value)?,
                Some(b'"') => self.double_quoted(&mut value)?,
                Some(b' ' | b'\t') => {}
                Some(_) => {
                    self.at -= 1;
                    self.bare(&mut value);
                    return Some(value);
                }
            }
        }
    }

    fn single_quoted(&mut self, value: &mut Vec<u8>) -> Option<()> {
        loop {
            match self.next()? {
                b'\'' => return Some(()),
                byte => value.push(byte),
            }
        }
    }

    fn double_quoted(&mut self, value: &mut Vec<u8>) -> Option<()> {
        loop {
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    byte @ (b'"' | b'\\' | b'`' | b'$') => value.push(byte),
                    b'\n' => {}
                    byte => value.extend([b'\\', byte]),
                },
                byte => value.push(byte),
            }
        }
    }

    /// Reads an unquoted value. Unescaped white space at its end is dropped.
    fn bare(&mut self, value: &mut Vec<u8>) {
        let mut length = value.len();
        while let Some(byte) = self.next() {
            match byte {
                b'\n' | b'\r' => break,
                b'\\' => {
                    value.extend(self.next().filter(|byte| !is_newline(*byte)));
                    length = value.len();
                }
                byte => {
                    value.push(byte);
                    if !is_white(byte) {
                        length = value.len();
                    }
                }
            }
        }
        value.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variables of a file, with the cause for those that are not valid.
    fn read(contents: impl AsRef<[u8]>) -> Vec<(String, Result<String, String>)> {
        let file = EnvFile::parse(contents.as_ref());
        let text = |value: Result<Secret, InvalidLine>| {
            value
                .map(|value| value.expose().to_owned())
                .map_err(|bad| bad.to_string())
        };
        file.variables
            .into_iter()
            .map(|(name, value)| (name, text(value)))
            .collect()
    }

    #[test]
    fn env_file_reads_values_as_systemd_documents() {
        for (text, value) in [
            ("A=", ""),
            ("A=plain", "plain"),
            ("A= padded \t", "padded"),
            ("A = spaces around", "spaces around"),
            ("  A=indented", "indented"),
            ("A=a=b=c", "a=b=c"),
            ("A=x # y", "x # y"),
            ("A=first\nA=second", "second"),
            ("A=crlf\r\n", "crlf"),
            ("# c\n; d\n\nA=b", "b"),
            ("# a comment ends with its line \\\nA=b", "b"),
            ("export A=b", "b"),
            // Quotes.
            (r"A='single $x \n'", r"single $x \n"),
            ("A='two\nlines'", "two\nlines"),
            (
                "A=\"-----BEGIN\nB=c\n-----END\n\"",
                "-----BEGIN\nB=c\n-----END\n",
            ),
            (r#"A="a\"b\\c\$d\`e\qf""#, r#"a"b\c$d`e\qf"#),
            ("A=\"one \\\nline\"", "one line"),
            ("A='one \\\nline'", "one \\\nline"),
            ("A='a' \"b\" c", "abc"),
            (r"A='it'\''s'", "it''s'"),
            ("A=a'b'\"c\"", "a'b'\"c\""),
            ("A='a' # b", "a# b"),
            // Outside of quotes, a backslash escapes the next character and joins lines.
            (r"A=a\ b\\c\n", r"a b\cn"),
            (r"A=trailing\  ", "trailing "),
            ("A=one \\\n  line", "one   line"),
            ("A=end\\", "end"),
        ] {
            let expected = vec![("A".to_owned(), Ok(value.to_owned()))];
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn env_file_limits_an_error_to_its_variable() {
        let line = |fault: &str| Err(format!("line 2 {fault}"));
        let open = || line("has a quote that is not closed");
        for (bad, broken) in [
            (&b"B='open"[..], open()),
            (b"B=\"open", open()),
            (b"B=\"open \\", open()),
            (b"B='a' 'open", open()),
            (b"B=\xff", line("has a value that is not UTF-8")),
            (
                b"B=a\0b",
                line("has a value with a character that systemd rejects"),
            ),
            (
                "B=\u{fdd0}".as_bytes(),
                line("has a value with a character that systemd rejects"),
            ),
        ] {
            let file = [b"A=1\n", bad, b"\nC=3\n"].concat();
            let expected = [
                ("A".to_owned(), Ok("1".to_owned())),
                ("B".to_owned(), broken),
                ("C".to_owned(), Ok("3".to_owned())),
            ];
            assert_eq!(read(&file), expected, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn env_file_relates_line_without_assignment_to_variable() {
        for bad in ["B", "B 2", "B: 2", "export B 2", "B C=2"] {
            let file = EnvFile::parse(format!("A=1\n{bad}\nC=3").as_bytes());
            assert_eq!(file.variables.len(), 2, "{bad}");
            let error = file.get("B").expect_err(bad);
            assert_eq!(error.to_string(), "line 2 is not of the form NAME=value");
            assert!(file.get("A").is_ok_and(|value| value.is_some()), "{bad}");
            assert!(file.get("D").is_ok_and(|value| value.is_none()), "{bad}");
        }
        // An assignment takes precedence, wherever it is: systemd ignores the other lines.
        let file = EnvFile::parse(b"B 2\nB=3\nB 4\n");
        assert_eq!(
            file.get("B").expect("assigned").map(Secret::expose),
            Some("3")
        );
        assert_eq!(file.invalid_lines().count(), 2);
    }

    #[test]
    fn env_file_never_shows_an_invalid_line() {
        let file = EnvFile::parse(b"hunter2\nhunter2: x\nA='hunter2\n1hunter2=x");
        assert_eq!(file.invalid_lines().count(), 4);
        assert!(!format!("{file:?} {file:#?}").contains("hunter2"));
    }
}
