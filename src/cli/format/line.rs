//! A record as a line for people.
//!
//! Whatever a record holds, a terminal gets printable text: control characters and bytes that are no text are shown
//! escaped, so that nobody's event moves a cursor or renames a window.

use std::{fmt, io::Write as _};

use jiff::{Timestamp, tz::TimeZone};

use super::{Headers, View};

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Dim what is not the event.
    pub(super) colour: bool,
    /// Columns of the terminal; 0 = do not cut.
    pub(super) width: usize,
}

/// Appends `orders[2]@7  2026-11-01 00:00:00.123  key  value  {name=value}` and a line feed.
pub(super) fn push_record<'a, H: Headers<'a>>(out: &mut Vec<u8>, style: Style, record: &View<'a, H>) {
    let mut head = format!("{}[{}]@{}", record.topic, record.partition, record.offset);
    if let Ok(time) = Timestamp::from_millisecond(record.timestamp_ms) {
        let time = time.to_zoned_datetime(TimeZone::UTC);
        head = format!("{head}  {}", time.strftime("%Y-%m-%d %H:%M:%S%.3fZ"));
    }
    let mut body = String::from("  ");
    push_shown(&mut body, record.key);
    body.push_str("  ");
    push_shown(&mut body, record.value);
    for (name, value) in record.headers.clone() {
        body.push_str("  ");
        push_shown(&mut body, Some(name.as_bytes()));
        body.push('=');
        push_shown(&mut body, value);
    }
    let room = style.width.saturating_sub(head.chars().count());
    let body = if style.width > 0 { cut(&body, room.max(20)) } else { body };
    // Writing to a Vec cannot fail.
    let _ = if style.colour {
        writeln!(out, "\x1b[2m{head}\x1b[0m{body}")
    } else {
        writeln!(out, "{head}{body}")
    };
}

/// Appends bytes as text; `-` for absent ones.
fn push_shown(out: &mut String, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        out.push('-');
        return;
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || is_bidi(character) {
                out.extend(character.escape_default());
            } else {
                out.push(character);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = fmt::Write::write_fmt(out, format_args!("\\x{byte:02x}"));
        }
    }
}

/// Characters that reorder the text around them.
fn is_bidi(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{print, view};

    fn line(key: Option<&[u8]>, value: Option<&[u8]>) -> String {
        String::from_utf8(print("table", &view(key, value, &[("n", Some(b"v"))]))).unwrap()
    }

    #[test]
    fn a_line_says_where_when_and_what() {
        assert_eq!(line(Some(b"k"), Some(b"v")), "orders[2]@7  2026-11-01 00:00:00.123Z  k  v  n=v\n");
        assert_eq!(line(None, None), "orders[2]@7  2026-11-01 00:00:00.123Z  -  -  n=v\n");
    }

    #[test]
    fn nothing_reaches_the_terminal_unescaped() {
        let shown = line(Some(b"\x1b[2J"), Some(b"a\xff\n\xe2\x80\xae"));
        assert!(shown.contains("\\u{1b}[2J") && shown.contains("a\\xff\\n"), "{shown}");
        let shown = shown.trim_end_matches('\n');
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }

    #[test]
    fn long_values_are_cut_to_the_terminal() {
        let shown = line(None, Some(&[b'x'; 500]));
        assert_eq!(shown.trim_end().chars().count(), 60);
        assert!(shown.trim_end().ends_with('…'));
    }
}
