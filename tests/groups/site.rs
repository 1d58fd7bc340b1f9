//! The built server on a socket file that stays the same across restarts.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use annals::clock::{Clock as _, SystemClock};
use annals_client::{Backoff, Client, ClientOptions};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Time since the first call.
pub(crate) fn now() -> Duration {
    static CLOCK: OnceLock<SystemClock> = OnceLock::new();
    CLOCK.get_or_init(SystemClock::new).monotonic()
}

/// A server's process; killed when it is dropped.
pub(crate) struct Site {
    dir: PathBuf,
    child: Child,
}

impl Site {
    pub(crate) fn start(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), child: serve(dir) }
    }

    /// Where clients find it.
    pub(crate) fn address(&self) -> String {
        format!("unix:{}", self.dir.join("socket").display())
    }

    /// `kill -9`, and a new process at once.
    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = serve(&self.dir);
    }

    /// A connection of its own.
    pub(crate) fn channel(&self) -> impl Future<Output = Channel> + use<> {
        let socket = self.dir.join("socket");
        async move {
            let connect = move |_: Uri| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            };
            let endpoint = Endpoint::from_static("http://annals");
            endpoint.connect_with_connector(tower::service_fn(connect)).await.expect("it answers")
        }
    }

    pub(crate) async fn client(&self) -> Client {
        connect(&self.address()).await
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It may have ended by itself; then the test has failed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(dir: &Path) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_annals"))
        .args(["serve", "-f", "json", "--grpc"])
        .arg(format!("unix:{}", dir.join("socket").display()))
        .arg("--data")
        .arg(dir.join("data"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("a line");
    assert!(line.contains("grpc"), "the server says where it is: {line:?}");
    child
}

/// Patient: the server may be starting.
pub(crate) async fn connect(address: &str) -> Client {
    let patient =
        Backoff { attempts: 200, first: Duration::from_millis(50), longest: Duration::from_millis(200) };
    Client::connect_with(address, ClientOptions { connect: patient, backoff: patient })
        .await
        .expect("it answers")
}
