//! A server behind a socket file.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
};

use crate::harness::{Ran, Server, annals, json_lines};

fn start() -> Server {
    Server::start_on("unix:annals.sock", tempfile::tempdir().unwrap())
}

#[test]
fn every_road_leads_through_the_socket() {
    let server = start();
    let path = server.scratch().canonicalize().unwrap().join("annals.sock");
    assert_eq!(server.ready()["grpc"], format!("unix:{}", path.display()), "whole, for clients anywhere");
    assert!(server.ready()["port"].is_null());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    json_lines(&server.ok(&["ping"], b""));
    server.ok(&["produce", "t", "-p", "0"], b"a\nb\n");
    assert_eq!(server.ok(&["consume", "t", "-g", "g", "-f", "raw"], b""), b"a\nb\n");
    server.ok(&["consume", "t", "-g", "g", "--server", &format!("unix://{}", path.display())], b"");
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(&format!("grpcurl -plaintext -unix {} list", path.display())), "{answer}");
}

#[test]
fn a_socket_goes_with_its_server_and_a_dead_one_is_replaced() {
    let mut server = start();
    server.ok(&["produce", "t", "-p", "0"], b"a\n");
    let path = server.scratch().join("annals.sock");
    server.kill();
    assert!(path.exists(), "a killed server cannot clear up");
    let mut server = Server::start_on("unix:annals.sock", server.leave());
    assert_eq!(server.ok(&["consume", "t", "-f", "raw"], b""), b"a\n");
    server.stop();
    assert!(!path.exists(), "one that ends in order does");
    let ran = server.run(&["ping"]);
    assert_eq!(ran.code, 5);
    assert!(ran.said.contains("annals.sock") && ran.said.contains("annals serve"), "{}", ran.said);
}

#[test]
fn a_path_that_is_taken_or_impossible_is_refused_and_nothing_is_made() {
    let server = start();
    let folder = tempfile::tempdir().unwrap();
    let refused = |listen: &str| -> Ran {
        let mut command = annals(&["serve", "--grpc", listen, "--data"]);
        command.arg(folder.path().join("data")).output().unwrap().into()
    };
    let ran = refused(server.address());
    assert_eq!(ran.code, 6, "{}", ran.said);
    assert!(ran.said.contains(server.address()) && ran.said.contains("in use"), "{}", ran.said);
    server.ok(&["ping"], b"");
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    let ran = refused(&format!("unix:{}", file.display()));
    assert_eq!(ran.code, 1, "{}", ran.said);
    assert!(ran.said.contains("not a socket"), "{}", ran.said);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    let ran = refused(&format!("unix:{}/{}", folder.path().display(), "x".repeat(100)));
    assert_eq!(ran.code, 2, "{}", ran.said);
    assert!(ran.said.contains("at most 107") && ran.said.contains("--grpc"), "{}", ran.said);
    assert_eq!(refused("unix:").code, 2);
    let ran = refused(&format!("unix:{}/none/a.sock", folder.path().display()));
    assert_eq!(ran.code, 1, "{}", ran.said);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the file that was there");
}
