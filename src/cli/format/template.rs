//! Templates as kcat's: what is between the fields is printed as it stands, and nothing is added at the end.
//!
//! | written | prints |
//! |---|---|
//! | `%t` `%p` `%o` | topic, partition, offset |
//! | `%k` `%v` | key and value, their bytes as they are; nothing if absent |
//! | `%h{name}` | value of the first header of that name |
//! | `%T` | time, milliseconds since 1970 |
//! | `%%` | `%` |
//! | `\n` `\t` `\r` `\\` `\0` | as in C |

use std::io::Write as _;

use super::{Headers, View};

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    Value,
    Time,
    Header(String),
}

impl Template {
    /// Parses one; the error is a sentence.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            match character {
                '\\' => plain.push(escape(rest.next(), text)?),
                '%' => {
                    let part = match rest.next() {
                        Some('%') => {
                            plain.push(b'%');
                            continue;
                        }
                        Some('t') => Part::Topic,
                        Some('p') => Part::Partition,
                        Some('o') => Part::Offset,
                        Some('k') => Part::Key,
                        Some('v') => Part::Value,
                        Some('T') => Part::Time,
                        Some('h') => Part::Header(header_name(&mut rest, text)?),
                        other => return Err(unknown('%', other, text, "%t %p %o %k %v %h{name} %T %%")),
                    };
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(part);
                }
                other => plain.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    /// Appends one record.
    pub(super) fn push_record<'a, H: Headers<'a>>(&self, out: &mut Vec<u8>, record: &View<'a, H>) {
        for part in &self.parts {
            // Writing to a Vec cannot fail.
            let _ = match part {
                Part::Text(text) => out.write_all(text),
                Part::Topic => out.write_all(record.topic.as_bytes()),
                Part::Partition => write!(out, "{}", record.partition),
                Part::Offset => write!(out, "{}", record.offset),
                Part::Key => out.write_all(record.key.unwrap_or_default()),
                Part::Value => out.write_all(record.value.unwrap_or_default()),
                Part::Time => write!(out, "{}", record.timestamp_ms),
                Part::Header(name) => {
                    let found = record.headers.clone().find(|(have, _)| have == name);
                    out.write_all(found.and_then(|(_, value)| value).unwrap_or_default())
                }
            };
        }
    }
}

fn escape(letter: Option<char>, text: &str) -> Result<u8, String> {
    match letter {
        Some('n') => Ok(b'\n'),
        Some('t') => Ok(b'\t'),
        Some('r') => Ok(b'\r'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        other => Err(unknown('\\', other, text, r"\n \t \r \0 \\")),
    }
}

fn header_name(rest: &mut std::str::Chars<'_>, text: &str) -> Result<String, String> {
    let named = rest.as_str().strip_prefix('{').and_then(|rest| rest.split_once('}'));
    let Some((name, after)) = named.filter(|(name, _)| !name.is_empty()) else {
        return Err(format!("%h in template \"{text}\" wants a header's name: %h{{name}}"));
    };
    *rest = after.chars();
    Ok(name.to_owned())
}

fn unknown(sign: char, letter: Option<char>, text: &str, known: &str) -> String {
    match letter {
        Some(letter) => format!("{sign}{letter} in template \"{text}\" stands for nothing; known: {known}"),
        None => format!("template \"{text}\" ends in {sign}; known: {known}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{print, view};
    use super::*;

    #[test]
    fn each_field_prints() {
        let headers: &[(&str, Option<&[u8]>)] = &[("a", None), ("b c", Some(b"x")), ("b c", Some(b"y"))];
        let record = view(Some(b"k\xff"), Some(b"v"), headers);
        assert_eq!(
            print(r"%t[%p]@%o\t%k=%v %T %h{b c}%h{a}%h{none} 100%%\n", &record),
            b"orders[2]@7\tk\xff=v 1793491200123 x 100%\n"
        );
    }

    #[test]
    fn nothing_is_added() {
        assert_eq!(print("%v", &view(None, None, &[])), b"");
        assert_eq!(print("ä%v", &view(None, Some(b"1"), &[])), "ä1".as_bytes());
    }

    #[test]
    fn what_stands_for_nothing_is_refused() {
        for text in ["%x", "%", "%v\\q", "%v\\", "%h", "%hname", "%h{}", "%h{name"] {
            let error = Template::parse(text).expect_err(text);
            assert!(error.contains(text) || error.contains("stands for nothing"), "{error}");
        }
    }
}
