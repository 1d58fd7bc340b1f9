//! Fields of fixed width, written one after the other into an array that has room for exactly them.

use bytes::BufMut;

/// Fills an array from its front. The caller's layout is constant, so running out of room is a bug that every test meets.
pub(crate) struct Writer<'a> {
    rest: &'a mut [u8],
}

impl<'a> Writer<'a> {
    pub(crate) fn new(rest: &'a mut [u8]) -> Self {
        Self { rest }
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.rest.put_slice(bytes);
    }

    /// A one-byte tag and a value of fixed width.
    pub(crate) fn tagged<const N: usize>(&mut self, tag: u8, value: [u8; N]) {
        self.rest.put_u8(tag);
        self.rest.put_slice(&value);
    }
}
