//! The other machine: takes what a test tells, flushes it to a file, answers.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::journal::{Entry, MAGIC, VERSION, entries, head};
use crate::cli::{
    connect,
    exit::{Exit, Failure, io_failure},
    out::{Out, Reader, talk},
};

/// Takes one test after the other until Ctrl-C; all must be of the same run.
pub(super) fn run(address: &str, to: &Path) -> Result<Exit, Failure> {
    connect::run_to_end(async |mut interrupt| {
        let listening = async {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|error| io_failure(format!("address {address}"), &error))?;
            let bound = listener.local_addr().map_err(|error| io_failure("the address", &error))?;
            let mut file = FileOfAcks::create(to)?;
            let line = format!("listening on {bound}, writing to {}\n", to.display());
            if Out::new().write(line.as_bytes())? == Reader::Gone {
                return Ok(Exit::Failed);
            }
            loop {
                let (stream, from) =
                    listener.accept().await.map_err(|error| io_failure("a connection", &error))?;
                talk(format_args!("a test at {from}"));
                match file.take(stream).await {
                    Ok(frames) => talk(format_args!("it has ended; {frames} frames are on disk")),
                    Err(error) => talk(format_args!("it was cut off: {error}")),
                }
            }
        };
        tokio::select! {
            failed = listening => failed,
            () = interrupt.came() => Ok(Exit::Ok),
        }
    })
}

struct FileOfAcks {
    file: File,
    run: Option<u64>,
}

impl FileOfAcks {
    /// A new file, its name on disk, too.
    fn create(path: &Path) -> Result<Self, Failure> {
        let failure = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Failure::new(Exit::Conflict, format!("{} exists", path.display()))
                    .next("Name a new file: acks of two runs do not mix")
            }
            _ => io_failure(path.display(), &error),
        };
        let mut file = File::options().write(true).create_new(true).open(path).map_err(failure)?;
        file.write_all(&MAGIC).and_then(|()| file.sync_all()).map_err(failure)?;
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(above).and_then(|above| above.sync_all()).map_err(failure)?;
        Ok(Self { file, run: None })
    }

    /// Takes a test's frames until it ends. A frame is written only once it is whole and right.
    async fn take(&mut self, mut stream: TcpStream) -> io::Result<u64> {
        stream.set_nodelay(true)?;
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut frames = 0_u64;
        loop {
            let mut start = [0; 8];
            match stream.read_exact(&mut start).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(frames),
                Err(error) => return Err(error),
            }
            let (length, crc) = head(start).ok_or_else(|| wrong("what came is no frame"))?;
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            if crc32fast::hash(&body) != crc {
                return Err(wrong("a frame does not match its crc"));
            }
            let told = entries(&body).ok_or_else(|| wrong("an entry of another version"))?;
            if frames == 0 {
                match told.first() {
                    Some(Entry::Hello { version: VERSION, run, .. })
                        if self.run.is_none_or(|known| known == *run) =>
                    {
                        self.run = Some(*run);
                    }
                    Some(Entry::Hello { version: VERSION, .. }) => return Err(wrong("another run")),
                    _ => return Err(wrong("another version")),
                }
            }
            self.file.write_all(&start)?;
            self.file.write_all(&body)?;
            self.file.sync_data()?;
            frames += 1;
            stream.write_u64_le(frames).await?;
        }
    }
}
