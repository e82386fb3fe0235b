//! A fresh Authorization value for each dial: from a file, or from a command of the user's.
//!
//! Invariant: what the command prints to stdout is never logged.

use std::future::Future;
use std::process::Stdio;
use std::time::Duration;

use log::info;
use tokio::io::{AsyncRead, AsyncReadExt, copy, sink};
use tokio::process::Command;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::config::{Authorization, Value};

/// Reads the current value. The error is a sentence, which never quotes the value.
pub(super) async fn fresh(authorization: &Authorization) -> Result<Value, String> {
    match authorization {
        Authorization::Fixed(value) => Ok(value.clone()),
        Authorization::File(path) => {
            let path = path.clone();
            // A network file system may hang.
            let reading = spawn_blocking(move || Value::read(&path));
            let read = soon(reading).await?.map_err(|_| late())?;
            read.map_err(|why| format!("the authorization file {why}"))
        }
        Authorization::Command(command) => run(command).await,
    }
}

async fn run(command: &str) -> Result<Value, String> {
    let wrong = |err| format!("the authorization command can't be run: {err}");
    let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let mut child = Command::new(shell)
        .args([flag, command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(wrong)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let gathered = soon(async {
        tokio::join!(gather(stdout, MOST_OUTPUT), gather(stderr, MOST_WORDS), child.wait())
    });
    let (output, words, status) = gathered.await?;
    let words = String::from_utf8_lossy(&words);
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    if !words.is_empty() {
        info!("authorization: the command says {words:?}");
    }
    let status = status.map_err(wrong)?;
    if !status.success() {
        return Err(format!("the authorization command failed: {status}"));
    }
    let wrong = |why| format!("what the authorization command printed {why}");
    Value::of_bytes(output).map_err(wrong)
}

/// Reads to the end and keeps `most` bytes: a program blocks while its pipe is full.
async fn gather(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = (&mut pipe).take(most).read_to_end(&mut kept).await;
        let _ = copy(&mut pipe, &mut sink()).await;
    }
    kept
}

async fn soon<T>(future: impl Future<Output = T>) -> Result<T, String> {
    timeout(PATIENCE, future).await.map_err(|_| late())
}

fn late() -> String {
    format!("there was no authorization within {} s", PATIENCE.as_secs())
}

const PATIENCE: Duration = Duration::from_secs(10);
/// More than [`Value`] takes, so that a value that is too long is noticed.
const MOST_OUTPUT: u64 = 16 * 1024;
const MOST_WORDS: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    async fn by(command: &str) -> Result<Value, String> {
        fresh(&Authorization::Command(command.to_owned())).await
    }

    #[tokio::test]
    async fn a_command_prints_the_value_and_nothing_else_of_it_counts() {
        let value = by("echo aside >&2; printf '%s\\r\\n' \"Basic dTpw\"").await.unwrap();
        assert_eq!(value.reveal(), "Basic dTpw");
        assert_eq!(by("echo a.b.c").await.unwrap().reveal(), "Bearer a.b.c");
    }

    #[tokio::test]
    async fn a_command_that_fails_says_how() {
        let table = [
            ("exit 3", "exit status: 3"),
            ("echo secret; exit 1", "exit status: 1"),
            ("true", "printed is empty"),
            ("echo secret; echo secret", "more than one line"),
            ("yes secret | head -c 1000000", "more than"),
            ("no-such-program-anywhere", "exit status: 127"),
        ];
        for (command, part) in table {
            let why = by(command).await.unwrap_err();
            assert!(why.contains(part) && !why.contains("secret"), "{command}: {why}");
        }
        // A full pipe would keep this one from its end.
        assert!(by("head -c 1000000 /dev/zero >&2; echo x").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_never_ends_is_given_up() {
        let why = by("exec sleep 600").await.unwrap_err();
        assert_eq!(why, late());
    }
}
