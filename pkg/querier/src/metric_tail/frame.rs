//! What a step says: its value or why it has none, and what its reader should know beside it.

use bytes::Bytes;
use tailwater_logql::metric::Evaluated;
use tailwater_model::Timestamp;
use tailwater_wire::answer::{Sample, step_error, step_scalar, step_vector};
use tailwater_wire::node::Late;

use crate::{Error, Kind};

/// What came too late, or was gone before it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Lines that would have counted in steps that were answered before.
    pub(super) late: Late,
    /// Lines, counting or not, that a log trimmed before they were read: at least so many.
    pub(super) trimmed: u64,
}

impl std::ops::AddAssign for Told {
    fn add_assign(&mut self, more: Self) {
        self.late += more.late;
        self.trimmed += more.trimmed;
    }
}

impl Told {
    /// The same in words, if there is anything to tell.
    fn warnings(self) -> impl Iterator<Item = String> {
        let Self { late: Late { lines, oldest }, trimmed } = self;
        let were = |n: u64, one: &'static str, many: &'static str| if n == 1 { one } else { many };
        let late = (lines > 0).then(|| {
            let came = were(lines, "line came", "lines came");
            format!("{lines} {came} too late for steps that had been answered, the oldest of {}", seconds(oldest))
        });
        let trimmed = (trimmed > 0).then(|| {
            let were = were(trimmed, "line was", "lines were");
            format!("at least {trimmed} {were} trimmed from the log before being read")
        });
        late.into_iter().chain(trimmed)
    }
}

/// Seconds since 1970, to the nanosecond.
fn seconds(time: Timestamp) -> String {
    let (whole, rest) = (time.nanos().div_euclid(1_000_000_000), time.nanos().rem_euclid(1_000_000_000));
    if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:09}").trim_end_matches('0').to_owned() }
}

/// The frame of a step. `missing`: what each node that had no part in it says, and what nodes could not look at.
pub(super) fn frame(time: Timestamp, value: &Result<Evaluated, Error>, told: Told, missing: &[String]) -> Bytes {
    let warnings: Vec<String> = missing.iter().cloned().chain(told.warnings()).collect();
    let sample = |value| Sample { timestamp: time, value };
    let text = match value {
        Ok(Evaluated::Scalar(value)) => step_scalar(sample(*value), &warnings),
        Ok(Evaluated::Series(series)) => {
            let samples: Vec<_> = series.iter().filter_map(|s| Some((s.labels.clone(), sample(s.get(0)?)))).collect();
            step_vector(time, &samples, &warnings)
        }
        Err(error) => step_error(time, word(error), &error.to_string(), &warnings),
    };
    text.into()
}

/// The kind of an error in Prometheus's API.
fn word(error: &Error) -> &'static str {
    match error.kind() {
        Kind::BadRequest => "execution",
        Kind::Unavailable => "unavailable",
        Kind::Internal => "internal",
        Kind::Timeout => "timeout",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_told_in_words() {
        let late = |lines, oldest| Late { lines, oldest: Timestamp(oldest) };
        let mut told = Told { late: late(1, 7_250_000_000), trimmed: 1 };
        assert_eq!(
            told.warnings().collect::<Vec<_>>(),
            [
                "1 line came too late for steps that had been answered, the oldest of 7.25",
                "at least 1 line was trimmed from the log before being read",
            ]
        );
        told += Told { late: late(2, 3_000_000_000), trimmed: 0 };
        let text = "3 lines came too late for steps that had been answered, the oldest of 3";
        assert_eq!(told.warnings().next().as_deref(), Some(text));
        assert_eq!(Told::default().warnings().count(), 0);
        assert_eq!(seconds(Timestamp(-1)), "-1.999999999", "before 1970 there are no steps");
    }
}
