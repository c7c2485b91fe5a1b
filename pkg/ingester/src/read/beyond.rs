//! A follow of a copy from a position that the copy has not reached: readers may have seen more of the original.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tailwater_wire::node::{FollowEvent, HEARTBEAT};
use tokio::sync::watch;

use crate::log::{Account, ArrivalLog};

/// A little more often than promised, since timers are late.
const BEAT: Duration = HEARTBEAT.saturating_sub(Duration::from_millis(50));

/// Signs of life until the copy is ready and has reached the position; then it ends. It ends early when the node is closed.
pub(crate) fn not_beyond(
    log: Arc<ArrivalLog>,
    closed: Arc<AtomicBool>,
    ready: watch::Receiver<bool>,
    after: u64,
) -> impl Stream<Item = FollowEvent> + Send {
    // Only the watermark of it is looked at.
    let nobody = tailwater_model::TenantId::parse("nobody").ok().map(Account::new);
    stream::unfold((log, closed, ready, nobody, false), move |(log, closed, mut ready, nobody, waited)| async move {
        // Nothing is known of a log that is not back; whoever follows one waits in silence, as for a log of one's own.
        ready.wait_for(|is_ready| *is_ready).await.ok()?;
        if log.head() >= after || closed.load(Ordering::Acquire) {
            return None;
        }
        if waited {
            tokio::time::sleep(BEAT).await;
            if log.head() >= after {
                return None;
            }
        }
        let watermark = log.with_head(nobody.as_ref()?, || ()).0.watermark;
        Some((FollowEvent::Idle { through: after, watermark }, (log, closed, ready, nobody, true)))
    })
}
