//! Talking to any Loki-compatible server: where it is, requests, WebSockets, and what its answers mean.

pub(crate) mod answer;
pub(crate) mod endpoint;
pub(crate) mod http;
pub(crate) mod socket;
pub(crate) mod tls;

use std::time::Duration;

use hyper::StatusCode;

pub(crate) use endpoint::{Endpoint, ServerArgs};
pub(crate) use http::{Answer, Http};

/// How long a connection may take to open.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request brought no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No connection.
    #[error(
        "cannot connect to {address}: {reason}\n  is a server running there? start one with `tailwater serve`, or name another with --addr"
    )]
    Connect {
        /// `host:port`.
        address: String,
        /// The system's reason.
        reason: String,
    },
    /// The connection broke, or the answer did not come in time.
    #[error("the connection to {address} failed: {reason}")]
    Transport {
        /// `host:port`.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The server answered and refused. The text is the server's own.
    #[error("the server answered {status}: {text}{hint}", hint = hint(*.status, text))]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// The body, without a newline at the end.
        text: String,
    },
    /// The answer is not what this endpoint of Loki answers.
    #[error("the server's answer cannot be read: {reason}\n  is {address} a Loki-compatible server?")]
    Answer {
        /// `host:port`.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// Whether the same request may succeed later (Loki's clients retry 429, 5xx and broken connections, nothing else).
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Transport { .. } => true,
            Self::Refused { status, .. } => is_temporary(*status),
            Self::Answer { .. } => false,
        }
    }
}

/// Whether a request answered with `status` may succeed later.
pub(crate) fn is_temporary(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// What helps against a refusal, starting on a new line; empty if the server's text says it all.
pub(crate) fn hint(status: StatusCode, text: &str) -> String {
    let advice = if status == StatusCode::UNAUTHORIZED && text.contains("no org id") {
        "this server has tenants: name yours with --org-id or LOKI_ORG_ID"
    } else if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        "log in with --username and --password, or --bearer-token"
    } else if text.contains("multiple org IDs present") {
        "lines are pushed for one tenant; several are read together if querier.multi_tenant_queries_enabled is true in the \
         server's configuration"
    } else if text.contains("max concurrent tail requests limit exceeded") {
        "the tenant has as many tails open as it may have; close some, or raise limits_config.max_concurrent_tail_requests \
         in the server's configuration (default 10, 0 = any number)"
    } else if text.contains("Per stream rate limit exceeded") {
        "spread the lines over more streams (--label), or raise limits_config.per_stream_rate_limit and \
         per_stream_rate_limit_burst in the server's configuration (default 3MB and 15MB)"
    } else if text.contains("ingestion rate limit exceeded") {
        "push less at a time, or raise limits_config.ingestion_rate_mb and ingestion_burst_size_mb in the server's \
         configuration (default 4 and 6)"
    } else if text.contains("max entries limit per query exceeded") {
        "use a smaller --batch; limits_config.max_entries_limit_per_query sets the largest"
    } else if status == StatusCode::NOT_FOUND && text.contains("404 page not found") {
        "does --addr name a Loki-compatible server, with the right path?"
    } else {
        return String::new();
    };
    format!("\n  {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_retried_is_what_lokis_clients_retry() {
        for (code, again) in
            [(429, true), (500, true), (503, true), (400, false), (413, false), (401, false), (204, false)]
        {
            assert_eq!(is_temporary(StatusCode::from_u16(code).unwrap()), again, "{code}");
        }
    }

    #[test]
    fn refusals_show_the_servers_text_and_what_helps() {
        let refused = |code: u16, text: &str| {
            ClientError::Refused { status: StatusCode::from_u16(code).unwrap(), text: text.into() }.to_string()
        };
        assert_eq!(refused(400, "parse error : x"), "the server answered 400 Bad Request: parse error : x");
        assert!(refused(401, "no org id").ends_with("--org-id or LOKI_ORG_ID"));
        assert!(refused(400, "multiple org IDs present").contains("querier.multi_tenant_queries_enabled"));
        assert!(refused(429, "ingestion rate limit exceeded for user x").contains("limits_config.ingestion_rate_mb"));
        assert!(refused(500, "max concurrent tail requests limit exceeded").contains("max_concurrent_tail_requests"));
    }
}
