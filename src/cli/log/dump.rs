//! `annals log dump`: what a file says, piece by piece.

use std::path::PathBuf;

use clap::Args;

use super::{is_json, not_checked, open, push_text};
use crate::{
    cli::{
        exit::{Exit, Failure, io_failure},
        format::Format,
        out::{Out, Reader},
    },
    storage::{self, Piece},
};

/// Print what a file of a data directory says, piece by piece; without a file, which files there are
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  annals log dump ./annals-data ANNALS")]
pub(super) struct Dump {
    /// The data directory
    directory: PathBuf,
    /// A file in it, as the list names it
    file: Option<String>,
    /// How to print: table or json [default: table on a terminal, json in a pipe]
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,
}

pub(super) fn run(args: &Dump) -> Result<Exit, Failure> {
    let out = Out::new();
    let json = is_json(args.format.as_ref(), out)?;
    let disk = open(&args.directory)?.disk;
    let Some(file) = &args.file else {
        let files =
            storage::files(&disk).map_err(|error| io_failure("the directory cannot be listed", &error))?;
        let mut bytes = Vec::new();
        for file in files {
            if json {
                push_text(&mut bytes, "{\"file\":", &file);
                bytes.extend_from_slice(b"}\n");
            } else {
                bytes.extend_from_slice(file.as_bytes());
                bytes.push(b'\n');
            }
        }
        return out.finish(&bytes, Exit::Ok);
    };
    let mut failed = None;
    let mut bytes = Vec::new();
    storage::dump(&disk, file, &mut |piece| {
        push_piece(&mut bytes, &piece, json);
        let written = out.write(&bytes);
        bytes.clear();
        match written {
            Ok(Reader::Here) => true,
            Ok(Reader::Gone) => false,
            Err(failure) => {
                failed = Some(failure);
                false
            }
        }
    })
    .map_err(|error| not_checked(&args.directory, &error))?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    Ok(Exit::Ok)
}

fn push_piece(out: &mut Vec<u8>, piece: &Piece, json: bool) {
    if json {
        out.extend_from_slice(
            format!("{{\"position\":{},\"kind\":\"{}\"", piece.position, piece.kind).as_bytes(),
        );
        for (name, value) in &piece.fields {
            push_text(out, ",", name);
            push_text(out, ":", value);
        }
        out.extend_from_slice(b"}\n");
        return;
    }
    let mut line = format!("{:>10}  {:<8}", piece.position, piece.kind);
    for (name, value) in &piece.fields {
        line += "  ";
        line += name;
        line += "=";
        line += value;
    }
    line.push('\n');
    out.extend_from_slice(line.as_bytes());
}
