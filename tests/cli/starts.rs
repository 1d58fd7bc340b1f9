//! Directories and ports that a server cannot have: it says why, with the documented exit code, and writes nothing; whoever
//! has them serves on.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::harness::{Ran, Server, annals};

/// A user without rights: "nobody" wherever there is one.
const NOBODY: u32 = 65_534;

/// What a write would change of a file: its mode, its time, its bytes.
type Look = (u32, (i64, i64), Vec<u8>);

/// All that is below a directory, and itself.
fn seen(directory: &Path) -> BTreeMap<PathBuf, Look> {
    let mut all = BTreeMap::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(path) = open.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let mut bytes = Vec::new();
        if found.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            bytes = fs::read(&path).unwrap();
        }
        all.insert(path, (found.mode(), (found.mtime(), found.mtime_nsec()), bytes));
    }
    all
}

/// Runs a server that must not start.
#[track_caller]
fn refused(mut command: Command) -> Ran {
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("it started: {:?}", child.wait_with_output().unwrap());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap().into()
}

fn serve(data: &Path) -> Command {
    let mut command = annals(&["serve", "--grpc", "127.0.0.1:0", "--data"]);
    command.arg(data);
    command
}

/// It ends with this code, says this, prints nothing, and leaves the directory as it was.
#[track_caller]
fn refuses(command: Command, directory: &Path, code: i32, says: &[&str]) {
    let before = seen(directory);
    let ran = refused(command);
    assert_eq!(ran.code, code, "{}", ran.said);
    for words in says {
        assert!(ran.said.contains(words), "it does not say {words:?}: {}", ran.said);
    }
    assert_eq!(ran.said.lines().count(), 1, "one sentence and no trace: {}", ran.said);
    assert!(ran.printed.is_empty(), "{ran:?}");
    assert!(seen(directory) == before, "something was written into {}", directory.display());
}

fn golden(case: &str, to: &Path) {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden/1").join(case), to);
}

fn give_away(directory: &Path) {
    for path in seen(directory).keys() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// Root may write everywhere. So a test that root runs starts the server as somebody else: a copy of it, where that user can
/// reach it. As any other user the server runs as that user.
#[test]
fn a_directory_that_may_not_be_written_is_denied() {
    let root = rustix::process::geteuid().is_root();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("annals");
    fs::copy(crate::harness::ANNALS, &binary).unwrap();
    let serve = |data: &Path| {
        let mut command = Command::new(&binary);
        command.args(["serve", "--grpc", "127.0.0.1:0", "--data"]).arg(data);
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();

    let theirs = folder.path().join("theirs");
    golden("valid", &theirs);
    if root {
        give_away(&theirs);
    }
    for forbidding in [0o500, 0o000, 0o300] {
        mode(&theirs, forbidding);
        let name = theirs.to_str().unwrap();
        if root {
            refuses(serve(&theirs), &theirs, 4, &[name, "may not be written", "--data DIR"]);
        } else {
            assert_eq!(refused(serve(&theirs)).code, 4);
        }
    }
    mode(&theirs, 0o700);

    // Nothing there yet, and it cannot be made.
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    if root {
        give_away(&closed);
    }
    mode(&closed, 0o500);
    refuses(serve(&closed.join("data")), &closed, 4, &["closed/data", "may not be written"]);

    // The directory is this user's, what is in it is not.
    mode(&theirs.join("ANNALS"), 0o000);
    let before = if root { Some(seen(&theirs)) } else { None };
    let ran = refused(serve(&theirs));
    assert_eq!(ran.code, 4, "{}", ran.said);
    assert!(ran.said.contains("may not be written"), "{}", ran.said);
    assert!(before.is_none_or(|before| before == seen(&theirs)), "something was written");
    mode(&theirs.join("ANNALS"), 0o600);

    // With the rights back it starts as that user: it was the rights, not the user.
    let mut child = serve(&theirs).spawn().unwrap();
    let mut first = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(&first, b"Annals");
}

#[test]
fn a_foreign_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("holiday.jpg"), "x").unwrap();
    refuses(
        serve(&photos),
        folder.path(),
        6,
        &["not an Annals data directory", "holiday.jpg", "Nothing was written"],
    );
    let golden_one = folder.path().join("golden");
    golden("foreign-file", &golden_one);
    refuses(serve(&golden_one), folder.path(), 6, &["not an Annals data directory", "--data DIR"]);
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    refuses(serve(&file), folder.path(), 1, &["is not a directory", "--data DIR"]);
    refuses(serve(&file.join("below")), folder.path(), 1, &["is not a directory"]);
}

#[test]
fn a_newer_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let version = folder.path().join("version");
    golden("newer-format", &version);
    refuses(serve(&version), folder.path(), 6, &["newer version", "format version 2", "Nothing was written"]);

    // The same format with one more feature, everything else as it should be: magic 8, version 4, features 8 bytes.
    let feature = folder.path().join("feature");
    golden("valid", &feature);
    let mut bytes = fs::read(feature.join("ANNALS")).unwrap();
    bytes[19] |= 0x80;
    let (head, crc) = bytes.split_at_mut(124);
    crc.copy_from_slice(&crc32fast::hash(head).to_le_bytes());
    fs::write(feature.join("ANNALS"), bytes).unwrap();
    refuses(
        serve(&feature),
        folder.path(),
        6,
        &["newer version", "0x8000000000000000", "Nothing was written"],
    );
}

#[test]
fn a_directory_in_use_is_refused_with_its_owner_and_the_owner_serves_on() {
    let server = Server::start();
    server.ok(&["produce", "t", "-p", "0"], b"a\n");
    let ran = refused(serve(&server.data()));
    assert_eq!(ran.code, 6, "{}", ran.said);
    let owner = format!("process {}", server.pid());
    assert!(
        ran.said.contains(&owner) && ran.said.contains(&format!("kill {}", server.pid())),
        "{}",
        ran.said
    );
    assert!(ran.said.contains("--data DIR") && ran.printed.is_empty(), "{}", ran.said);
    let ran: Ran = annals(&["log", "verify"]).arg(server.data()).output().unwrap().into();
    let verdict = String::from_utf8(ran.printed).unwrap();
    assert!(
        ran.code == 0 && verdict.contains("\"server\":\"running\""),
        "looked at beside it: {verdict}{}",
        ran.said
    );
    server.ok(&["produce", "t", "-p", "0"], b"b\n");
    assert_eq!(server.ok(&["consume", "t", "-f", "raw"], b""), b"a\nb\n");
}

#[test]
fn a_port_in_use_is_refused_before_anything_is_made() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let mut command = annals(&["serve", "--grpc", server.address(), "--data"]);
    command.arg(folder.path().join("data"));
    refuses(command, folder.path(), 6, &[server.address(), "is in use", "--grpc 127.0.0.1:0"]);
    server.ok(&["produce", "t"], b"a\n");
    // Addresses that cannot be had at all.
    for (address, code) in [("192.0.2.1:0", 1), ("127.0.0.1", 2), ("127.0.0.1:70000", 2), (":1", 2)] {
        let mut command = annals(&["serve", "--grpc", address, "--data"]);
        command.arg(folder.path().join("data"));
        refuses(command, folder.path(), code, &[address]);
    }
}

#[test]
fn another_protocol_gets_a_sentence_that_names_the_right_one() {
    let server = Server::start();
    for (sent, begins) in [
        (b"GET /topics HTTP/1.1\r\nhost: x\r\n\r\n".as_slice(), "HTTP/1.1 400 Bad Request\r\n"),
        (b"OPTIONS * HTTP/1.0\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"),
        (b"*3\r\n$3\r\nSET\r\n", "This is the gRPC port"),
        (b"\0\0\0\x17\0\x12\0\x03\0\0\0\x01\0\x03cli", "This is the gRPC port"), // Kafka's ApiVersions
    ] {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(sent).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(begins), "{answer}");
        for words in
            ["gRPC over HTTP/2 without TLS", &format!("grpcurl -plaintext {} list", server.address())]
        {
            assert!(answer.contains(words), "{answer}");
        }
    }
    server.ok(&["ping"], b"");
    // And the other way round: something that is no gRPC server.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let web = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        let _ = stream.read(&mut [0; 64]);
    });
    let ran: Ran = annals(&["topic", "list", "--server", &address]).output().unwrap().into();
    assert_eq!(ran.code, 5, "{}", ran.said);
    let says = [&address, "does not answer as Annals does", "annals serve", "--server HOST:PORT"];
    assert!(says.iter().all(|words| ran.said.contains(words)), "{}", ran.said);
    web.join().unwrap();
}
