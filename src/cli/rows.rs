//! Lists: topics, groups, partitions, as a table, JSON lines, CSV or plain cells.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{
    exit::{Exit, Failure},
    format::{Format, push_csv_cell, push_json_string},
    out::Out,
};

/// A value in a list. Machines get it exactly, people get it readable.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
    /// A measured number.
    Real(f64),
    /// A size.
    Bytes(i64),
    /// A point in time, milliseconds since 1970.
    Time(i64),
    /// A length of time in milliseconds.
    Span(i64),
    /// Several texts.
    List(Vec<String>),
    /// Not known, or none.
    Nothing,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Self::Number(i64::from(number))
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// A list with named columns; every row has a cell for each.
#[derive(Debug)]
pub(crate) struct Rows {
    columns: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

impl Rows {
    /// An empty list.
    pub(crate) fn new(columns: &'static [&'static str]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn push<const N: usize>(&mut self, row: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len(), "a cell for each column");
        self.rows.push(row.into());
    }

    /// No rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Prints the list and ends with `exit`.
    pub(crate) fn print(&self, out: Out, asked: Option<&Format>, exit: Exit) -> Result<Exit, Failure> {
        out.finish(&self.bytes(out, asked)?, exit)
    }

    /// The list as it is printed.
    pub(crate) fn bytes(&self, out: Out, asked: Option<&Format>) -> Result<Vec<u8>, Failure> {
        self.render(&Format::choose(asked, out.terminal), out.colour)
    }

    fn render(&self, format: &Format, colour: bool) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        match format {
            Format::Table => self.table(&mut bytes, colour),
            Format::Json => self.json(&mut bytes),
            Format::Csv => self.csv(&mut bytes),
            Format::Raw => {
                for row in &self.rows {
                    let cells: Vec<String> = row.iter().map(exact).collect();
                    bytes.extend_from_slice(cells.join("\t").as_bytes());
                    bytes.push(b'\n');
                }
            }
            Format::Template(_) => {
                return Err(Failure::usage("a template prints records, and this is a list")
                    .next("Use -f table, json, csv or raw"));
            }
        }
        Ok(bytes)
    }

    fn json(&self, bytes: &mut Vec<u8>) {
        for row in &self.rows {
            for (index, (name, cell)) in self.columns.iter().zip(row).enumerate() {
                bytes.push(if index == 0 { b'{' } else { b',' });
                push_json_string(bytes, name);
                bytes.push(b':');
                push_json(bytes, cell);
            }
            bytes.extend_from_slice(b"}\n");
        }
    }

    fn csv(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.columns.join(",").as_bytes());
        bytes.push(b'\n');
        for row in &self.rows {
            for (index, cell) in row.iter().enumerate() {
                if index > 0 {
                    bytes.push(b',');
                }
                push_csv_cell(bytes, exact(cell).as_bytes());
            }
            bytes.push(b'\n');
        }
    }

    fn table(&self, bytes: &mut Vec<u8>, colour: bool) {
        let titles: Vec<String> = self.columns.iter().map(|name| title(name)).collect();
        let lines: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(readable).collect()).collect();
        let widths: Vec<usize> = titles
            .iter()
            .enumerate()
            .map(|(column, title)| {
                let cells = lines.iter().filter_map(|line| line.get(column));
                cells.chain([title]).map(|cell| cell.chars().count()).max().unwrap_or_default()
            })
            .collect();
        let numeric: Vec<bool> = (0..titles.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let cell = cells.into_iter().find(|cell| **cell != Cell::Nothing);
                matches!(cell, Some(Cell::Number(_) | Cell::Real(_) | Cell::Bytes(_) | Cell::Span(_)))
            })
            .collect();
        let (bold, plain) = if colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        bytes.extend_from_slice(format!("{bold}{}{plain}\n", align(&titles, &widths, &numeric)).as_bytes());
        for line in &lines {
            bytes.extend_from_slice(align(line, &widths, &numeric).as_bytes());
            bytes.push(b'\n');
        }
    }
}

fn title(name: &str) -> String {
    name.trim_end_matches("_ms").replace('_', " ").to_uppercase()
}

fn align(cells: &[String], widths: &[usize], numeric: &[bool]) -> String {
    let mut line = String::new();
    for ((cell, width), numeric) in cells.iter().zip(widths).zip(numeric) {
        let (width, gap) = (*width, if line.is_empty() { "" } else { "  " });
        // Writing to a String cannot fail.
        let _ =
            if *numeric { write!(line, "{gap}{cell:>width$}") } else { write!(line, "{gap}{cell:<width$}") };
    }
    line.truncate(line.trim_end().len());
    line
}

fn push_json(bytes: &mut Vec<u8>, cell: &Cell) {
    match cell {
        Cell::Text(text) => push_json_string(bytes, text),
        Cell::Number(number) | Cell::Bytes(number) | Cell::Time(number) | Cell::Span(number) => {
            bytes.extend_from_slice(number.to_string().as_bytes());
        }
        // As JSON has no word for what is no number.
        Cell::Nothing => bytes.extend_from_slice(b"null"),
        Cell::Real(number) if !number.is_finite() => bytes.extend_from_slice(b"null"),
        Cell::Real(number) => bytes.extend_from_slice(number.to_string().as_bytes()),
        Cell::List(texts) => {
            bytes.push(b'[');
            for (index, text) in texts.iter().enumerate() {
                if index > 0 {
                    bytes.push(b',');
                }
                push_json_string(bytes, text);
            }
            bytes.push(b']');
        }
    }
}

fn exact(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => text.clone(),
        Cell::Number(number) | Cell::Bytes(number) | Cell::Time(number) | Cell::Span(number) => {
            number.to_string()
        }
        Cell::Real(number) => number.to_string(),
        Cell::List(texts) => texts.join(" "),
        Cell::Nothing => String::new(),
    }
}

fn readable(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => text.clone(),
        Cell::Number(number) => grouped(*number),
        Cell::Real(number) => real(*number),
        Cell::Bytes(bytes) => size(*bytes),
        Cell::Time(0) | Cell::Nothing => "-".to_owned(),
        Cell::Time(ms) => time(*ms),
        Cell::Span(ms) => span(*ms),
        Cell::List(texts) => texts.join(" "),
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// Three digits or more: `0.123`, `1.23`, `12.3`, `1,234`.
pub(crate) fn real(number: f64) -> String {
    match number.abs() {
        ..0.9995 => format!("{number:.3}"),
        ..9.995 => format!("{number:.2}"),
        ..99.95 => format!("{number:.1}"),
        #[allow(clippy::cast_possible_truncation, reason = "numbers that are no numbers go elsewhere")]
        ..1e15 => grouped(number.round() as i64),
        _ => number.to_string(),
    }
}

/// Bytes in the largest unit that leaves a digit before the point.
#[allow(clippy::cast_precision_loss, reason = "for people, three digits")]
pub(crate) fn size(bytes: i64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value.abs() < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// Milliseconds in the two largest units.
pub(crate) fn span(ms: i64) -> String {
    match ms {
        ..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
        3_600_000..86_400_000 => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{} d {} h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
    }
}

/// A point in time, to the second, in UTC.
fn time(ms: i64) -> String {
    let time = Timestamp::from_second(ms.div_euclid(1000));
    time.map_or_else(|_| ms.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        let mut rows = Rows::new(&["name", "bytes", "created_ms", "lag_ms", "topics"]);
        let list = Cell::List(vec!["x".to_owned(), "y\"".to_owned()]);
        rows.push(["a,b".into(), Cell::Bytes(1536), Cell::Time(1_793_491_200_000), Cell::Span(61_000), list]);
        rows.push(["longer".into(), Cell::Bytes(7), Cell::Time(0), Cell::Span(0), Cell::List(Vec::new())]);
        rows
    }

    fn render(format: &Format) -> String {
        String::from_utf8(rows().render(format, false).unwrap()).unwrap()
    }

    #[test]
    fn people_get_aligned_columns_and_units() {
        let want = [
            "NAME      BYTES  CREATED                   LAG  TOPICS",
            "a,b     1.5 KiB  2026-11-01T00:00:00Z  1 min 1 s  x y\"",
            "longer      7 B  -                          0 ms",
        ];
        let table = render(&Format::Table);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with(&want[0][..30]), "{table}");
        assert_eq!(lines[1], want[1]);
        assert!(lines[2].starts_with(&want[2][..20]), "{table}");
    }

    #[test]
    fn machines_get_exact_values() {
        let json: Vec<serde_json::Value> =
            render(&Format::Json).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(json[0]["bytes"], 1536);
        assert_eq!(json[0]["topics"][1], "y\"");
        assert_eq!(json[1]["lag_ms"], 0);
        let csv = render(&Format::Csv);
        assert_eq!(csv.lines().nth(1), Some("\"a,b\",1536,1793491200000,61000,\"x y\"\"\""));
        assert_eq!(render(&Format::Raw).lines().nth(1), Some("longer\t7\t0\t0\t"));
    }

    #[test]
    fn a_list_takes_no_template() {
        let template = "%t".parse().unwrap();
        assert_eq!(rows().render(&template, false).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            (grouped(0), grouped(1_234_567), grouped(-1000)),
            ("0".into(), "1,234,567".into(), "-1,000".into())
        );
        let reals = [0.0, 0.12345, 0.9999, 1.234, 12.34, 123.4, 1_234_567.8, -1.5, f64::NAN].map(real);
        assert_eq!(reals, ["0.000", "0.123", "1.00", "1.23", "12.3", "123", "1,234,568", "-1.50", "NaN"]);
        assert_eq!((size(0), size(1023), size(5 << 30)), ("0 B".into(), "1023 B".into(), "5.0 GiB".into()));
        assert_eq!(
            (span(5), span(1500), span(90_000_000)),
            ("5 ms".into(), "1.5 s".into(), "1 d 1 h".into())
        );
    }
}
