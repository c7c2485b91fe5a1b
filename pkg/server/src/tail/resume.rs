//! Tails that go on where they were, for clients that ask for tokens with `resume=true` and bring one as `resume=<token>`, or in the header
//! [`HEADER`]: a token may be longer than what proxies let through in a target.

use axum::http::HeaderMap;
use tailwater_querier::{Resume, TailRequest};

use crate::answer::Failure;
use crate::app::App;
use crate::form::Form;

/// The header that says what the parameter does; the parameter comes first.
const HEADER: &str = "x-tailwater-resume";

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing.
    No,
    /// Tokens.
    Tokens,
    /// To go on where this token says, and tokens.
    From(String),
}

/// What a client asks for. Whether a token is one is not known yet.
pub(super) fn asked(form: &Form, headers: &HeaderMap) -> Asked {
    let header = || headers.get(HEADER).map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned());
    let text = match form.get("resume") {
        "" => header().unwrap_or_default(),
        text => text.to_owned(),
    };
    match text.as_str() {
        "" | "0" | "false" => Asked::No,
        "1" | "true" => Asked::Tokens,
        _ => Asked::From(text),
    }
}

impl Asked {
    /// Steps of a metric query have no tokens. Who asks for some just gets none, but a token cannot be theirs.
    pub(super) fn check_steps(&self) -> Result<(), Failure> {
        match self {
            Self::From(_) => Err(Failure::bad_request("resume tokens are for log queries, this is a metric query")),
            Self::No | Self::Tokens => Ok(()),
        }
    }

    /// The tail that was asked for. What a token says of where it begins and of `delay_for` counts.
    pub(super) fn of(self, app: &App, form: &Form, request: TailRequest) -> Result<TailRequest, Failure> {
        let token = match self {
            Self::No => return Ok(request),
            Self::Tokens => return Ok(TailRequest { resume: Resume::Give, ..request }),
            Self::From(token) => token,
        };
        let from = app.querier.resumption(&request, &token)?;
        let delay_for = from.delay_for();
        if !form.get("delay_for").is_empty() && request.delay_for != delay_for {
            let seconds = delay_for.as_secs();
            return Err(Failure::bad_request(format!("the resume token is of a tail with delay_for={seconds}")));
        }
        Ok(TailRequest { resume: Resume::From(from), delay_for, ..request })
    }
}
