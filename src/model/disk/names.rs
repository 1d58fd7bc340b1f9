//! Names: what the process sees, and what a cut would leave of it.
//!
//! What was done in a directory since it was last flushed survives as a prefix; each directory for itself.

use std::collections::BTreeMap;

use super::super::rng::Rng;

/// Number of a file, whatever its name.
pub(super) type Node = usize;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File(Node),
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Set(String, Kind),
    Unset(String),
    Rename(String, String),
}

/// All names, by whole path.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    seen: BTreeMap<String, Kind>,
    kept: BTreeMap<String, Kind>,
    /// Changes since the last flush, by directory.
    pending: BTreeMap<String, Vec<Change>>,
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn apply(names: &mut BTreeMap<String, Kind>, change: &Change) {
    match change {
        Change::Set(path, kind) => {
            names.insert(path.clone(), *kind);
        }
        Change::Unset(path) => {
            names.remove(path);
        }
        Change::Rename(from, to) => {
            let below = format!("{from}/");
            let inside =
                names.range(below.clone()..).map_while(|(path, _)| path.starts_with(&below).then_some(path));
            let moved: Vec<String> =
                inside.chain(names.get_key_value(from).map(|(path, _)| path)).cloned().collect();
            for old in moved {
                if let Some(kind) = names.remove(&old) {
                    names.insert(format!("{to}{}", old.strip_prefix(from.as_str()).unwrap_or("")), kind);
                }
            }
        }
    }
}

impl Names {
    pub(super) fn get(&self, path: &str) -> Option<Kind> {
        self.seen.get(path).copied()
    }

    /// Last part and kind of everything in a directory.
    pub(super) fn list<'a>(&'a self, dir: &str) -> impl Iterator<Item = (&'a str, Kind)> + use<'a> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let below = self.seen.range(prefix.clone()..);
        below
            .map_while(move |(path, kind)| path.strip_prefix(prefix.as_str()).map(|name| (name, *kind)))
            .filter(|(name, _)| !name.contains('/'))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&String, Kind)> {
        self.seen.iter().map(|(path, kind)| (path, *kind))
    }

    /// Files that have a name or would have one after a cut.
    pub(super) fn named(&self) -> impl Iterator<Item = Node> {
        let kinds = self.seen.values().chain(self.kept.values());
        kinds.filter_map(|kind| if let Kind::File(node) = kind { Some(*node) } else { None })
    }

    pub(super) fn change(&mut self, change: Change) {
        let (Change::Set(path, _) | Change::Unset(path) | Change::Rename(path, _)) = &change;
        let dir = parent(path).to_owned();
        apply(&mut self.seen, &change);
        self.pending.entry(dir).or_default().push(change);
    }

    pub(super) fn sync(&mut self, dir: &str) {
        for change in self.pending.remove(dir).unwrap_or_default() {
            apply(&mut self.kept, &change);
        }
    }

    pub(super) fn cut(&mut self, rng: &mut Rng) {
        self.cut_to(|_, changes| rng.below(changes + 1));
    }

    /// Directories with so many changes that no flush has covered.
    pub(super) fn unflushed(&self) -> impl Iterator<Item = (&String, usize)> {
        self.pending.iter().map(|(dir, changes)| (dir, changes.len()))
    }

    /// A cut that leaves in each directory as many of its unflushed changes as `survive` says.
    pub(super) fn cut_to(&mut self, mut survive: impl FnMut(&str, usize) -> usize) {
        for (dir, changes) in std::mem::take(&mut self.pending) {
            let survive = survive(&dir, changes.len());
            changes.iter().take(survive).for_each(|change| apply(&mut self.kept, change));
        }
        // A name below a directory that is not there is not there.
        let names = &self.kept;
        let orphan = |path: &str| {
            path.match_indices('/').any(|(end, _)| path.get(..end).is_none_or(|dir| !names.contains_key(dir)))
        };
        let gone: Vec<String> = names.keys().filter(|path| orphan(path)).cloned().collect();
        for path in gone {
            self.kept.remove(&path);
        }
        self.seen.clone_from(&self.kept);
    }
}
