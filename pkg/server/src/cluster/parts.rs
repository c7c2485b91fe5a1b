//! The parts of a cluster, put together: gossip, calls between members, the directory of logs, copies.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tailwater_wire::host::Host;
use tailwater_wire::node::NodeError;

use super::forward::Lost;
use super::listen::Called;
use super::{Dial, Joined, Later, Plan};
use crate::storage::Storage;
use crate::{Config, Error};

/// What answers for the copies of others' logs that this process keeps; none where it keeps none.
///
/// # Errors
/// Their folder cannot be opened.
pub(crate) async fn copies(_config: &Config, _storage: &Storage) -> Result<Option<Arc<dyn Host>>, Error> {
    Ok(None)
}

/// Joins the cluster. It begins as joining; others hear of the rest with [`Joined::set_state`].
///
/// # Errors
/// What gossip needs cannot be had.
pub(crate) async fn join(plan: Plan, _host: Arc<dyn Host>) -> Result<Joined, Error> {
    let _me = plan.member(0);
    let _gossip = (plan.gossip_interval, plan.seeds, plan.secret);
    let _calls = (plan.incoming, call(plan.dial), plan.history, lost as fn(&NodeError, bool) -> Lost);
    Err(Error::Cluster("this build has no parts to join one with".to_owned()))
}

/// How members are called.
fn call(dial: Dial) -> impl Fn(SocketAddr) -> Later<io::Result<Called>> {
    move |to| {
        let dial = dial.clone();
        Box::pin(async move { dial.connect(to).await })
    }
}

/// What became of a push that was not answered. `sent`: a part of it may have arrived.
fn lost(error: &NodeError, sent: bool) -> Lost {
    if sent { Lost::After(error.to_string()) } else { Lost::Before(error.to_string()) }
}
