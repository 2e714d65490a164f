//! The pulse: whether a connection lives, and how long its round trip is.
//!
//! Each side keeps one stream open on each connection, on which it sends [`limits::PULSE_BYTES`] now and then
//! and the other side returns them. The question is asked very often while somebody attends to the node (waits for
//! the tokens of a job, say), now and then while streams are open, and rarely otherwise. Any
//! byte that arrives on any stream of the connection counts as a sign of life, so that a slow link with much
//! under way is not taken for a dead one.

use std::{sync::Arc, time::Duration};

use crate::mesh::streams::{Incoming, OpenError, Stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use crate::mesh::{limits, line::Line};

/// How often somebody who waits for an answer looks whether to go on waiting.
const LOOK: Duration = Duration::from_millis(100);

/// What the pulse of one connection found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Beat {
    /// It answers.
    Alive(libp2p::swarm::ConnectionId, Duration),
    /// It is attended to and has been silent for a moment; it may only be slow.
    Quiet(libp2p::swarm::ConnectionId),
    /// It does not.
    Dead(libp2p::swarm::ConnectionId),
}

/// Asks until the connection ends. `idle` is the pause between questions while no streams are open.
pub(crate) async fn run(
    line: Arc<Line>,
    opened: oneshot::Receiver<Result<Stream, OpenError>>,
    idle: Duration,
    beats: mpsc::Sender<Beat>,
) {
    let cut = line.cut.clone();
    let asking = async {
        let Ok(Ok(mut stream)) = opened.await else { return Some(()) };
        let mut rtt = Duration::from_millis(500);
        loop {
            rtt = ask(&line, &mut stream, rtt, &beats).await?;
            beats.send(Beat::Alive(line.id, rtt)).await.ok()?;
            pause(&line, idle).await;
        }
    };
    tokio::select! {
        () = cut.cancelled() => {}
        _ = asking => {
            let _ = beats.send(Beat::Dead(line.id)).await;
        }
    }
}

/// One question; `None` if the connection is dead.
async fn ask(
    line: &Line,
    stream: &mut Stream,
    rtt: Duration,
    beats: &mpsc::Sender<Beat>,
) -> Option<Duration> {
    let patience = limits::PULSE_PATIENCE.max(rtt * limits::PULSE_RTTS);
    let hush = limits::QUIET + rtt * limits::QUIET_RTTS;
    let sent = Instant::now();
    let mut bytes = [0_u8; limits::PULSE_BYTES];
    getrandom::fill(&mut bytes).ok()?;
    let mut answer = [0_u8; limits::PULSE_BYTES];
    let exchange = async {
        stream.write_all(&bytes).await.ok()?;
        stream.flush().await.ok()?;
        stream.read_exact(&mut answer).await.ok()
    };
    tokio::pin!(exchange);
    let mut told = false;
    loop {
        match timeout(LOOK, &mut exchange).await {
            Ok(Some(_)) => break,
            Ok(None) => return None,
            Err(_) => {}
        }
        let heard = Instant::from_std(line.since + line.heard());
        let quiet = Instant::now().saturating_duration_since(heard.max(sent));
        let doubt = limits::DOUBT + rtt * limits::QUIET_RTTS;
        if quiet >= patience || line.is_doubted() && quiet >= doubt {
            return None;
        }
        if quiet >= hush && !told && line.is_attended() {
            told = true;
            beats.send(Beat::Quiet(line.id)).await.ok()?;
        }
    }
    line.trust();
    (bytes == answer).then(|| sent.elapsed())
}

/// Waits for the next question: shorter while streams are open, none at all when asked to look now.
async fn pause(line: &Line, idle: Duration) {
    let began = Instant::now();
    loop {
        let wait = match line.streams() {
            _ if line.is_attended() => limits::PULSE_ATTENDED,
            0 => idle,
            _ => limits::PULSE_BUSY.min(idle),
        };
        let left = wait.saturating_sub(began.elapsed());
        if left.is_zero() {
            return;
        }
        tokio::select! {
            () = line.kick.notified() => return,
            () = tokio::time::sleep(left.min(limits::PULSE_BUSY)) => {}
        }
    }
}

/// Answers the questions of others, until the mesh ends.
pub(crate) async fn serve(mut incoming: Incoming) {
    while let Some(inbound) = incoming.recv().await {
        tokio::spawn(echo(inbound.stream));
    }
}

async fn echo(mut stream: Stream) {
    let mut bytes = [0_u8; limits::PULSE_BYTES];
    // The other side's longest pause and some more: a stream nobody asks on is given up.
    let patience = limits::PULSE_IDLE * 4;
    while let Ok(Ok(_)) = timeout(patience, stream.read_exact(&mut bytes)).await {
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}
