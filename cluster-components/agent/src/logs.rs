//! A unit's journal, read by journalctl: the journal's format is systemd's own business.

use futures::StreamExt;
use futures::stream::BoxStream;
use slipway_agent_api::v1::LogLines;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tonic::Status;

const MOST: u32 = 10_000;
const DEFAULT: u32 = 100;
/// Lines per message, at most.
const BATCH: usize = 200;

/// The last `lines` of a unit's journal, and what follows if asked. Dropping the stream ends journalctl.
pub fn journal(unit: &str, lines: u32, follow: bool) -> Result<BoxStream<'static, Result<LogLines, Status>>, Status> {
    let lines = if lines == 0 { DEFAULT } else { lines.min(MOST) };
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "--quiet", "--output=short-iso", &format!("--lines={lines}"), &format!("--unit={unit}")]);
    if follow {
        command.arg("--follow");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Status::internal(format!("journalctl: {e}")))?;
    let stdout = child.stdout.take().ok_or_else(|| Status::internal("journalctl without output"))?;
    let reader = Reader { lines: BufReader::new(stdout).lines(), _child: child };
    let stream = futures::stream::unfold(reader, |mut reader| async move {
        let lines = reader.batch().await?;
        Some((Ok(LogLines { lines }), reader))
    });
    Ok(stream.boxed())
}

struct Reader {
    lines: Lines<BufReader<ChildStdout>>,
    /// Killed when it is dropped.
    _child: Child,
}

impl Reader {
    /// The next line, with those that are there already.
    async fn batch(&mut self) -> Option<Vec<String>> {
        let mut batch = vec![self.lines.next_line().await.ok()??];
        while batch.len() < BATCH {
            // Ready at once or not at all: nobody waits for a full batch.
            match futures::poll!(std::pin::pin!(self.lines.next_line())) {
                std::task::Poll::Ready(Ok(Some(line))) => batch.push(line),
                _ => break,
            }
        }
        Some(batch)
    }
}
