//! "Did you mean": the nearest name there is.

/// Names looked at; a server with more of them answers without a guess rather than late.
const MOST_NAMES: usize = 2_000;
/// Edits beyond which a name is another name.
const MOST_EDITS: usize = 2;

/// The name with the fewest edits to `wanted`, if that takes no more than 2 and leaves most of it as it is.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let most = MOST_EDITS.min(wanted.len() / 3);
    names
        .take(MOST_NAMES)
        .filter_map(|name| edits(wanted.as_bytes(), name.as_bytes(), most).map(|edits| (edits, name)))
        .min()
        .map(|(_, name)| name.to_owned())
}

/// Bytes to insert, remove or replace, or neighbours to swap, on the way from `a` to `b`; `None` if more than `most`.
fn edits(a: &[u8], b: &[u8], most: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (row, from) in a.iter().enumerate() {
        let mut next = Vec::with_capacity(b.len() + 1);
        next.push(row + 1);
        for (column, to) in b.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
            let replaced = at(&last, column) + usize::from(from != to);
            let mut best = replaced.min(at(&last, column + 1) + 1).min(at(&next, column) + 1);
            let swapped =
                row > 0 && column > 0 && a.get(row - 1) == Some(to) && b.get(column - 1) == Some(from);
            if swapped {
                best = best.min(at(&before_last, column - 1) + 1);
            }
            next.push(best);
        }
        if next.iter().all(|edits| *edits > most) {
            return None;
        }
        before_last = std::mem::replace(&mut last, next);
    }
    last.last().copied().filter(|edits| *edits <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_nothing_else() {
        let names = ["orders", "orders-eu", "payments", "mail"];
        let near = |wanted| nearest(wanted, names.iter().copied());
        assert_eq!(near("ordrs").as_deref(), Some("orders"));
        assert_eq!(near("oredrs").as_deref(), Some("orders"), "swapped neighbours");
        assert_eq!(near("paymentss").as_deref(), Some("payments"));
        assert_eq!(near("Mail").as_deref(), Some("mail"));
        assert_eq!(near("x"), None, "a short name is no slip of a longer one");
        assert_eq!(near("refunds"), None);
        assert_eq!(near(""), None);
    }

    #[test]
    fn counts_edits() {
        assert_eq!(edits(b"abc", b"abc", 2), Some(0));
        assert_eq!(edits(b"abc", b"acb", 2), Some(1));
        assert_eq!(edits(b"abc", b"xyz", 2), None);
        assert_eq!(edits(b"", b"ab", 2), Some(2));
    }
}
