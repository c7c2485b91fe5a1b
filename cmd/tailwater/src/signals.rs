//! Ctrl-C and SIGTERM: the first asks the command to come to an end, the second ends the process at once. SIGHUP: files that were read are
//! to be read again.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::error::Error;

/// Exit code of a process that a second Ctrl-C ended (128 + SIGINT).
const INTERRUPTED: i32 = 130;

/// Tells when the user has asked the command to stop. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Starts to listen for the signals. Needs a runtime.
    pub(crate) fn listen() -> Result<Self, Error> {
        let failed = |e| Error::Failed(format!("cannot listen for signals: {e}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            for asked in 1.. {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if asked > 1 {
                    std::process::exit(INTERRUPTED);
                }
                sender.send_replace(true);
            }
        });
        Ok(Self(receiver))
    }

    /// A stop that its sender triggers, for commands that end themselves and for tests.
    pub(crate) fn manual() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Whether the user has asked.
    pub(crate) fn asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the user asks, at once if that has happened. Cancel-safe.
    pub(crate) async fn wait(&mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Tells when files are to be read again.
pub(crate) struct Hangup(Signal);

impl Hangup {
    /// Starts to listen for the signal, which ends the process no more. Needs a runtime.
    pub(crate) fn listen() -> Result<Self, Error> {
        signal(SignalKind::hangup()).map(Self).map_err(|e| Error::Failed(format!("cannot listen for signals: {e}")))
    }

    /// Waits for the next one; false if there will be none. Cancel-safe.
    pub(crate) async fn next(&mut self) -> bool {
        self.0.recv().await.is_some()
    }
}
