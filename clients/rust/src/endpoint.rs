//! Where a server is, as people write it.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::error::{Code, Error, Result, reason};

/// Port used where none is given.
pub const DEFAULT_PORT: u16 = 7411;
/// Window of one stream: what may be on its way to us.
const STREAM_WINDOW: u32 = 4 << 20;
/// Window of the connection.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Opens a channel to `HOST:PORT`, `HOST` (port 7411), `http://HOST:PORT` or `unix:PATH`. Connects with the first call,
/// and again when the connection is lost.
pub(crate) fn channel(server: &str) -> Result<Channel> {
    let uri = uri(server)?;
    let endpoint = Endpoint::from_shared(uri).map_err(|error| bad(server, &error.to_string()))?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size((1 << 20) as u32)
        // Servers and proxies close connections of clients that ping more often than they like.
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .user_agent(concat!("annals-client-rust/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| bad(server, &error.to_string()))?
        .connect_lazy())
}

fn bad(server: &str, why: &str) -> Error {
    Error::new(
        Code::InvalidArgument,
        "",
        format!("\"{server}\" names no server ({why}): write HOST:PORT or unix:PATH"),
    )
}

fn uri(server: &str) -> Result<String> {
    if let Some(path) = server.strip_prefix("unix:") {
        let path = path.trim_start_matches("//");
        return if path.is_empty() { Err(bad(server, "no path")) } else { Ok(format!("unix:{path}")) };
    }
    let authority = server.strip_prefix("http://").unwrap_or(server).trim_end_matches('/');
    if authority.contains("://") {
        return Err(bad(server, "only plain connections are served"));
    }
    if authority.is_empty() || authority.contains(['/', '@', ' ', '?', '#']) {
        return Err(bad(server, "not HOST:PORT"));
    }
    let (host, port) = match authority.rsplit_once(':') {
        // An IPv6 address stands in brackets, and its colons are no port's.
        Some((host, port)) if !port.ends_with(']') && !host.ends_with(':') => (host, port),
        _ => (authority, ""),
    };
    let port: u16 = match port {
        "" => DEFAULT_PORT,
        port => port.parse().map_err(|_| bad(server, "not a port"))?,
    };
    if host.is_empty() || port == 0 {
        return Err(bad(server, "not HOST:PORT"));
    }
    Ok(format!("http://{host}:{port}"))
}

/// Says which server could not be reached.
pub(crate) fn name_server(error: Error, server: &str) -> Error {
    if error.is_unreachable() {
        let message = format!("cannot reach a server at {server}: {}", error.message());
        return Error::new(error.code(), reason::UNREACHABLE, message);
    }
    error
}

/// Says that something listens there which is no server of ours: the first answer of one always has a meaning.
pub(crate) fn no_annals(error: Error, server: &str) -> Error {
    if error.reason().is_empty() {
        let message = format!(
            "cannot reach a server at {server}: what listens there does not answer as Annals does ({})",
            error.message()
        );
        return Error::new(Code::Unavailable, reason::UNREACHABLE, message);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_meaning_is_no_server_of_ours() {
        let told = no_annals(Error::new(Code::Internal, "", "h2 protocol error"), "host:1");
        assert!(told.is_unreachable());
        assert!(told.message().contains("host:1") && told.message().contains("h2 protocol error"), "{told}");
        let refused = Error::new(Code::Unavailable, reason::RECOVERING, "starting");
        assert_eq!(no_annals(refused, "host:1").reason(), reason::RECOVERING);
    }

    #[test]
    fn servers_are_named_as_people_do() {
        for (server, want) in [
            ("127.0.0.1:7411", "http://127.0.0.1:7411"),
            ("localhost", "http://localhost:7411"),
            ("http://example.org:80/", "http://example.org:80"),
            ("[::1]:9", "http://[::1]:9"),
            ("[::1]", "http://[::1]:7411"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(uri(server).unwrap(), want, "{server}");
        }
    }

    #[test]
    fn other_names_are_refused_with_the_form() {
        for server in
            ["", ":7411", "host:x", "host:0", "host:70000", "a/b", "https://x:1", "ftp://x", "u@h:1", "unix:"]
        {
            let error = uri(server).expect_err(server);
            assert!(error.message().contains("HOST:PORT"), "{error}");
        }
    }
}
