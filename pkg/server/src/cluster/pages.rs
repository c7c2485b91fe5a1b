//! `/ring` and `/memberlist`: who is in the cluster, as this process sees it; JSON for those who ask for it, a page for everybody else.
//!
//! Invariants: what other members say of themselves is text, never markup.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tailwater_cluster::{Member, State as Standing};

use super::Cluster;
use crate::answer::{self, Failure};
use crate::app::App;
use crate::form::Form;
use crate::read::query_string;

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2em;color:#222;background:#fff}\
table{border-collapse:collapse}th,td{text-align:left;padding:.3em .9em;border-bottom:1px solid #ddd;vertical-align:top}\
th{font-weight:600}code{font-size:12px}.active{color:#0a7d36}.joining{color:#8a6100}.leaving,.away{color:#b3261e}.me{background:#f3f6fb}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}th,td{border-color:#333}.me{background:#1e2530}\
.active{color:#58c27d}.joining{color:#d9a441}.leaving,.away{color:#f2857c}}";

/// See the module.
pub(crate) async fn members(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Response {
    let form = match Form::parse(b"", &query_string(&uri, &headers)) {
        Ok(form) => form,
        Err(why) => return Failure::bad_request(why).lined().into_response(),
    };
    let wants_json = match form.get("format") {
        "json" => true,
        "html" => false,
        "" => headers.get_all(ACCEPT).iter().any(names_json),
        other => {
            let text = format!("unknown format {other:?}; known are html and json");
            return Failure::new(StatusCode::BAD_REQUEST, text).lined().into_response();
        }
    };
    let mut response = if wants_json {
        answer::ok("application/json", described(app.cluster.as_ref()))
    } else {
        answer::ok("text/html; charset=utf-8", page(app.cluster.as_ref()))
    };
    response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
    response
}

/// Browsers name HTML as well, and want that.
fn names_json(accept: &HeaderValue) -> bool {
    accept.to_str().is_ok_and(|accept| accept.contains("application/json") && !accept.contains("text/html"))
}

fn described(cluster: Option<&Cluster>) -> String {
    let Some(cluster) = cluster else { return json!({ "cluster": null, "members": [] }).to_string() };
    let about = &cluster.about;
    json!({
        "cluster": { "name": about.cluster_id, "me": about.me, "replication_factor": about.replication_factor },
        "members": cluster.members.borrow().members,
        "replication": cluster.replication.as_ref().map(|replication| replication()),
    })
    .to_string()
}

fn page(cluster: Option<&Cluster>) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Tailwater</title><style>{STYLE}</style></head><body>"
    );
    match cluster {
        None => page.push_str("<h1>Tailwater</h1><p>This process is alone: it is in no cluster.</p>"),
        Some(cluster) => table(&mut page, cluster),
    }
    page.push_str("</body></html>\n");
    page
}

fn table(page: &mut String, cluster: &Cluster) {
    let about = &cluster.about;
    let members = cluster.members.borrow().clone();
    // Writing to a text does not fail.
    let _written = write!(
        page,
        "<h1>{}</h1><p>{} members as <b>{}</b> sees them; {} of each log. <a href=\"?format=json\">JSON</a></p>\
         <table><tr><th>name<th>state<th>role<th>zone<th>version<th>addresses<th>logs</tr>",
        escaped(&about.cluster_id),
        members.members.len(),
        escaped(&about.me),
        if about.replication_factor == 1 {
            "one copy".to_owned()
        } else {
            format!("{} copies", about.replication_factor)
        },
    );
    for member in &members.members {
        row(page, member, member.name == about.me);
    }
    page.push_str("</table>");
}

fn row(page: &mut String, member: &Member, me: bool) {
    let (class, state) = match member.state {
        _ if !member.alive => ("away", format!("not heard of ({})", member.state)),
        Standing::Active => ("active", member.state.to_string()),
        Standing::Joining => ("joining", member.state.to_string()),
        Standing::Leaving => ("leaving", member.state.to_string()),
    };
    let logs: Vec<_> = member.logs.iter().map(|log| format!("<code>{log}</code>")).collect();
    let _written = write!(
        page,
        "<tr{}><td>{}<td class=\"{class}\">{state}<td>{}<td>{}<td>{}<td>{}<br>grpc {}<br>gossip {}<td>{}</tr>",
        if me { " class=\"me\"" } else { "" },
        escaped(&member.name),
        member.role,
        escaped(member.zone.as_deref().unwrap_or_default()),
        escaped(&member.version),
        escaped(&member.http),
        member.grpc,
        member.gossip,
        logs.join("<br>"),
    );
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}
