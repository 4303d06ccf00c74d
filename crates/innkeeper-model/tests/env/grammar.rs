//! systemd's grammar of environment files, written down once more: systemd.exec(5), "EnvironmentFile=", and
//! what its reader does (`src/basic/env-file.c` of systemd 252 and 257). `systemd.rs` holds it against the
//! real one; here it is quick enough for thousands of files, and for fuzzing.

/// The assignments that systemd finds in a file, in their order.
pub(crate) fn read_by_systemds_grammar(file: &str) -> Vec<(String, String)> {
    let mut rest = file.chars().peekable();
    let mut found = Vec::new();
    loop {
        while rest.next_if(|c| WHITE.contains(c)).is_some() {}
        match rest.peek() {
            None => return found,
            Some('#' | ';') => skip_comment(&mut rest),
            Some(_) => found.extend(assignment(&mut rest)),
        }
    }
}

type Rest<'t> = std::iter::Peekable<std::str::Chars<'t>>;

const WHITE: [char; 4] = [' ', '\t', '\n', '\r'];
const NEWLINE: [char; 2] = ['\n', '\r'];

/// A comment goes on behind a `\` at the end of its line.
fn skip_comment(rest: &mut Rest<'_>) {
    while let Some(c) = rest.next() {
        if c == '\\' {
            rest.next();
        } else if NEWLINE.contains(&c) {
            return;
        }
    }
}

/// `name=value`. A line without `=` is ignored.
fn assignment(rest: &mut Rest<'_>) -> Option<(String, String)> {
    let mut name = String::new();
    loop {
        match rest.next()? {
            '=' => break,
            c if NEWLINE.contains(&c) => return None,
            c => name.push(c),
        }
    }
    Some((name.trim_end_matches(WHITE).to_owned(), read_value(rest)))
}

/// Quotes count only where the value has not begun with a bare character; behind a closing quote it has not.
fn read_value(rest: &mut Rest<'_>) -> String {
    let mut value = String::new();
    while let Some(c) = rest.next() {
        match c {
            '\n' | '\r' => break,
            '\'' => value.extend(rest.by_ref().take_while(|c| *c != '\'')),
            '"' => double_quoted(rest, &mut value),
            ' ' | '\t' => {}
            _ => {
                bare(c, rest, &mut value);
                break;
            }
        }
    }
    value
}

fn double_quoted(rest: &mut Rest<'_>, value: &mut String) {
    while let Some(c) = rest.next() {
        match c {
            '"' => return,
            '\\' => match rest.next() {
                Some(c @ ('"' | '\\' | '`' | '$')) => value.push(c),
                Some('\n') | None => {}
                Some(c) => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
}

/// To the end of the line; white space at the end does not count unless it was escaped.
fn bare(first: char, rest: &mut Rest<'_>, value: &mut String) {
    let mut next = Some(first);
    let mut kept = value.len();
    while let Some(c) = next {
        match c {
            '\n' | '\r' => break,
            '\\' => {
                value.extend(rest.next().filter(|c| !NEWLINE.contains(c)));
                kept = value.len();
            }
            c => {
                value.push(c);
                if !WHITE.contains(&c) {
                    kept = value.len();
                }
            }
        }
        next = rest.next();
    }
    value.truncate(kept);
}
