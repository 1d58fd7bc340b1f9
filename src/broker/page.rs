//! Pages of lists: by name, each starting after the last name of the page before.

use annals_wire::limits::{DEFAULT_PAGE_SIZE, MAX_NAME_BYTES, MAX_PAGE_SIZE};

use super::{Error, PageRequest};

/// About what the items of a page may take in an answer; more than one item is never forced beyond it.
const MOST_BYTES: usize = 900 * 1024;

/// A page being filled.
#[derive(Debug)]
pub(crate) struct Filling {
    left: usize,
    bytes: usize,
    last: String,
    more: bool,
}

impl Filling {
    pub(crate) fn new(request: &PageRequest) -> Result<Self, Error> {
        for (field, text) in [("page_token", &request.page_token), ("prefix", &request.prefix)] {
            if text.len() > MAX_NAME_BYTES {
                let why = format!("{} bytes; no name has more than {MAX_NAME_BYTES}", text.len());
                return Err(Error::argument(field, why));
            }
        }
        let size = match request.page_size {
            0 => DEFAULT_PAGE_SIZE,
            asked => asked.min(MAX_PAGE_SIZE),
        };
        Ok(Self {
            left: usize::try_from(size).unwrap_or(usize::MAX),
            bytes: 0,
            last: String::new(),
            more: false,
        })
    }

    /// Whether an item of this name and about so many bytes goes on the page. The first that does not is where the next
    /// page starts.
    pub(crate) fn takes(&mut self, name: &str, bytes: usize) -> bool {
        let first = self.bytes == 0;
        if self.left == 0 || (!first && self.bytes + bytes > MOST_BYTES) {
            self.more = true;
            return false;
        }
        self.left -= 1;
        self.bytes += bytes.max(1);
        name.clone_into(&mut self.last);
        true
    }

    /// What to ask the next page with.
    pub(crate) fn next_page_token(self) -> String {
        if self.more { self.last } else { String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_by_count_or_by_size() {
        let mut page = Filling::new(&PageRequest { page_size: 2, ..PageRequest::default() }).unwrap();
        assert!(page.takes("a", 10) && page.takes("b", 10) && !page.takes("c", 10));
        assert_eq!(page.next_page_token(), "b");
        let mut page = Filling::new(&PageRequest::default()).unwrap();
        assert!(page.takes("a", 2 << 20), "one item comes even if large");
        assert!(!page.takes("b", 1));
        assert_eq!(page.next_page_token(), "a");
        let mut page = Filling::new(&PageRequest::default()).unwrap();
        assert!(page.takes("a", 1));
        assert_eq!(page.next_page_token(), "", "nothing more");
    }

    #[test]
    fn a_token_that_is_no_name_is_refused() {
        let request = PageRequest { page_token: "x".repeat(250), ..PageRequest::default() };
        assert_eq!(Filling::new(&request).unwrap_err().reason(), "MALFORMED");
    }
}
