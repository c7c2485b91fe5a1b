//! Why a command ended without success, and with which exit code: 1 failed, 2 bad usage or configuration.

use std::io;
use std::process::ExitCode;

/// The one error of the command line. Its text says what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An argument, a flag or the configuration cannot be used. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The command was understood and did not succeed. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// As [`Error::Failed`], but the user has been told already. Exit code 1.
    #[error("failed")]
    Told,
    /// Standard output cannot be written. A closed pipe (`| head`) is a normal end, not a failure.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    /// The server could not be reached or refused.
    #[error("{0}")]
    Client(#[from] crate::client::ClientError),
}

impl Error {
    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    /// What to print on standard error, if anything.
    pub(crate) fn message(&self) -> Option<String> {
        match self {
            Self::Told => None,
            Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => None,
            other => Some(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_a_quiet_success() {
        let closed = Error::Output(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(closed.exit_code(), ExitCode::SUCCESS);
        assert_eq!(closed.message(), None);
        let full = Error::Output(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.exit_code(), ExitCode::FAILURE);
        assert!(full.message().unwrap().starts_with("cannot write to standard output"));
    }

    #[test]
    fn bad_usage_is_told_from_failure() {
        assert_eq!(Error::Usage("x".into()).exit_code(), ExitCode::from(2));
        assert_eq!(Error::Failed("x".into()).exit_code(), ExitCode::FAILURE);
        assert_eq!(Error::Told.message(), None);
    }
}
