//! Atomic replacement of a small file, the one way it is done: temporary file, flush, rename, flush of the directory.

use std::{io, sync::Arc};

use super::disk::{Disk, File};

/// Writes `dir/name` so that after any crash it holds either what it held or all of `parts`.
pub(crate) fn replace(disk: &Arc<dyn Disk>, dir: &str, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let temporary = temporary(dir, name);
    write_flushed(disk, &temporary, parts)?;
    put_in_place(disk, dir, &temporary, name)
}

/// The first half: a flushed temporary file.
pub(crate) fn write_flushed(disk: &Arc<dyn Disk>, temporary: &str, parts: &[&[u8]]) -> io::Result<()> {
    let file = create_anew(disk, temporary)?;
    file.write_at(parts, 0)?;
    file.sync()
}

/// The second half: the name.
pub(crate) fn put_in_place(disk: &Arc<dyn Disk>, dir: &str, temporary: &str, name: &str) -> io::Result<()> {
    disk.rename(temporary, &join(dir, name))?;
    disk.sync_dir(dir)
}

/// Creates a file whose name may be taken by a leftover that holds nothing.
pub(crate) fn create_anew(disk: &Arc<dyn Disk>, path: &str) -> io::Result<Arc<dyn File>> {
    match disk.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(path)?;
            disk.create(path)
        }
        other => other,
    }
}

/// Where the temporary file of `dir/name` lies.
pub(crate) fn temporary(dir: &str, name: &str) -> String {
    join(dir, &format!("{name}.tmp"))
}

/// A path below a directory; `""` is the data directory.
pub(crate) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}
