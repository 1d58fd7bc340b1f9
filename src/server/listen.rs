//! The listening socket: takes connections, as many at a time as are allowed, until it is told to stop.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{
    connection::{self, Rules},
    socket::{Listener, Taken},
};
use crate::{grpc::Door, sync::Arc};

/// Pause after an accept failed: when files run out, trying again at once only burns the processor.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop` has a deadline, then waits for those that are open. Dropping it cuts them.
pub(super) async fn accept(
    listener: Listener,
    door: Door,
    most: u32,
    rules: Rules,
    stop: watch::Receiver<Option<Duration>>,
) {
    let room = Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS)));
    let mut open = JoinSet::new();
    let mut stopped = stop.clone();
    loop {
        let next = async {
            // Closed never: the semaphore lives as long as this loop.
            let permit = Arc::clone(&room).acquire_owned().await.ok();
            (permit, listener.take().await)
        };
        tokio::select! {
            biased;
            () = told(&mut stopped) => break,
            Some(_) = open.join_next() => {}
            (permit, accepted) = next => match accepted {
                Ok(taken) => {
                    let door = door.clone().facing(taken.peer());
                    let (rules, stop) = (rules.clone(), stop.clone());
                    open.spawn(async move {
                        match taken {
                            Taken::Tcp(stream) => connection::serve(stream, door, rules, stop).await,
                            Taken::Unix(stream) => connection::serve(stream, door, rules, stop).await,
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// Returns once `stop` is set; also if nobody is left who could set it.
pub(super) async fn told(stop: &mut watch::Receiver<Option<Duration>>) {
    let _ = stop.wait_for(Option::is_some).await;
}
