//! A state machine that is nothing but the list of its entries.

use crate::storage::{Machine, PartitionKey, Section};

/// Number and value of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Listed(pub(super) Vec<(u64, u64)>);

impl Machine for Listed {
    fn restore(&mut self, section: &Section) -> Result<(), String> {
        let number =
            |bytes: &[u8]| bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).unwrap_or_default();
        self.0.extend(
            section.bytes.chunks(16).map(|line| (number(line), number(line.get(8..).unwrap_or_default()))),
        );
        Ok(())
    }

    fn apply(&mut self, number: u64, entry: &[u8]) -> Result<(), String> {
        let value = entry.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).ok_or("a short entry")?;
        if self.0.last().is_none_or(|(last, _)| *last < number) {
            self.0.push((number, value));
        }
        Ok(())
    }

    fn lower_commits(&mut self, _end: &dyn Fn(PartitionKey) -> Option<i64>) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn capture(&self, number: u64) -> Vec<Section> {
        let lines = self.0.iter().flat_map(|(number, value)| [number.to_le_bytes(), value.to_le_bytes()]);
        vec![Section { number, bytes: lines.flatten().collect() }]
    }
}
