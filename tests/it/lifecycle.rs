//! Starting, stopping, starting again; and directories that must not be touched.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use annals::server::{self, Config, ServeError};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::{site, site_at};

fn config(data: &Path) -> Config {
    let mut config = Config::default();
    config.data = data.into();
    config.grpc = "127.0.0.1:0".into();
    config
}

async fn refused(data: &Path) -> ServeError {
    match server::start(config(data)).await {
        Ok(_) => panic!("{} was taken", data.display()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let first = site_at(data.clone()).await;
    assert!(first.server.report().created);
    first.store("t", &["a", "b"]).await;
    first.server.shutdown().await.unwrap();
    let second = site_at(data.clone()).await;
    assert_eq!((second.server.report().records, second.server.report().topics), (2, 1));
    assert_eq!(second.values("t", 0).await, [(0, "a".into()), (1, "b".into())]);
    assert_eq!(second.store("t", &["c"]).await, 2);
    second.server.shutdown().await.unwrap();
    assert_eq!(
        fs::metadata(&data).unwrap().permissions().mode() & 0o077,
        0,
        "the directory is its user's alone"
    );
}

#[tokio::test]
async fn a_directory_or_a_port_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = site_at(folder.path().join("data")).await;
    let error = refused(&folder.path().join("data")).await;
    assert_eq!(error.exit_code(), 6);
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    let other = folder.path().join("other");
    let mut taken = config(&other);
    taken.grpc = first.server.address().to_string();
    let error = server::start(taken).await.expect_err("the port is taken");
    assert_eq!(error.exit_code(), 6);
    assert!(error.to_string().contains("--grpc 127.0.0.1:0"), "{error}");
    assert!(!other.exists(), "nothing was written");
    first.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn foreign_and_newer_directories_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("notes.txt"), "mine").unwrap();
    let error = refused(&foreign).await;
    assert_eq!(error.exit_code(), 6);
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1, "nothing was written");
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(refused(&file).await, ServeError::NotADirectory { .. }));
}

#[tokio::test]
async fn health_follows_the_server() {
    let site = site().await;
    let mut health = HealthClient::new(site.channel.clone());
    for service in ["", "annals.v1.ProducerService", "annals.v1.TopicService"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let status = health.check(HealthCheckRequest { service: "nothing".into() }).await.unwrap_err();
    assert_eq!(
        (status.code(), crate::support::reason(&status).as_str()),
        (Code::NotFound, "SERVICE_UNKNOWN")
    );
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let stopping = tokio::spawn(site.server.shutdown_within(std::time::Duration::from_millis(500)));
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn reflection_lists_every_service_in_both_versions() {
    let site = site().await;
    let services = [
        "annals.v1.ConsumerService",
        "annals.v1.GroupService",
        "annals.v1.OffsetService",
        "annals.v1.ProducerService",
        "annals.v1.ServerService",
        "annals.v1.StatsService",
        "annals.v1.TopicService",
        "grpc.health.v1.Health",
    ];
    macro_rules! listed {
        ($version:ident) => {{
            let mut client =
                $version::server_reflection_client::ServerReflectionClient::new(site.channel.clone());
            let request = $version::ServerReflectionRequest {
                host: String::new(),
                message_request: Some($version::server_reflection_request::MessageRequest::ListServices(
                    String::new(),
                )),
            };
            let mut answers =
                client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
            match answers.message().await.unwrap().unwrap().message_response.unwrap() {
                $version::server_reflection_response::MessageResponse::ListServicesResponse(list) => {
                    list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
                }
                other => panic!("{other:?}"),
            }
        }};
    }
    for listed in [listed!(v1), listed!(v1alpha)] {
        for service in services {
            assert!(listed.iter().any(|name| name == service), "{service} is not in {listed:?}");
        }
    }
}
