//! What there is: labels, values, series, statistics (contract, Loki API §1.1-1.3).

use std::sync::Arc;

use tailwater_logql::ast::Matcher;
use tailwater_logql::go::bytes;
use tailwater_logql::{parse_match, parse_selector};
use tailwater_querier::{MetaRequest, busy};
use tailwater_wire::answer;
use tailwater_wire::node::Stats;

use super::logs::allowed_range;
use super::{Asked, label_of};
use crate::answer::Failure;
use crate::app::App;
use crate::params::{bounds, ordered_bounds};

/// `/loki/api/v1/labels`
pub(crate) async fn label_names(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    labels(&app, &asked, None).await
}

/// `/loki/api/v1/label/{name}/values`
pub(crate) async fn label_values(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    let name = label_of(&asked.uri)?;
    labels(&app, &asked, Some(&name)).await
}

async fn labels(app: &App, asked: &Asked, name: Option<&str>) -> Result<Vec<u8>, Failure> {
    let (start, end) = bounds(&asked.form, asked.now).map_err(Failure::bad_request)?;
    let selectors = match asked.form.get("query") {
        "" => Vec::new(),
        query => vec![busy(|| parse_selector(query))?],
    };
    let Some((start, end)) = allowed_range(asked, start, end)? else { return Ok(answer::labels::<&str>(&[], &[])) };
    let request = MetaRequest { tenants: asked.tenants.clone(), selectors, start, end };
    let found = app.querier.labels(&request, name).await?;
    Ok(answer::labels(&found.value, &found.warnings))
}

/// `/loki/api/v1/series`
pub(crate) async fn series(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    let (start, end) = bounds(&asked.form, asked.now).map_err(Failure::bad_request)?;
    let selectors = matches(&asked)?;
    let Some((start, end)) = allowed_range(&asked, start, end)? else { return Ok(answer::series(&[], &[])) };
    let request = MetaRequest { tenants: asked.tenants.clone(), selectors, start, end };
    let found = app.querier.series(&request).await?;
    Ok(answer::series(&found.value, &found.warnings))
}

/// The selectors of `match` and `match[]`. None, or `{}` alone, is everything.
fn matches(asked: &Asked) -> Result<Vec<Vec<Matcher>>, Failure> {
    let all: Vec<&str> = asked.form.all("match").chain(asked.form.all("match[]")).collect();
    if let [one] = all.as_slice()
        && one.split_whitespace().collect::<String>() == "{}"
    {
        return Ok(Vec::new());
    }
    all.into_iter()
        .map(|text| {
            let selector = busy(|| parse_match(text))?;
            // Beside others `{}` is held to the rule that one matcher must not match the empty string.
            if selector.is_empty() { busy(|| parse_selector(text)) } else { Ok(selector) }
        })
        .collect::<Result<_, _>>()
        .map_err(Failure::from)
}

/// `/loki/api/v1/index/stats`
pub(crate) async fn index_stats(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    Ok(answer::index_stats(&stats(&app, &asked).await?))
}

/// `/loki/api/v1/index/shards`: one, whatever size is asked for.
pub(crate) async fn index_shards(app: Arc<App>, asked: Asked) -> Result<Vec<u8>, Failure> {
    let size = asked.form.get("targetBytesPerShard");
    if !bytes::parse_humanize(size).is_ok_and(|size| size > 0) {
        return Err(Failure::bad_request("targetBytesPerShard must be a positive value"));
    }
    Ok(answer::index_shards(&stats(&app, &asked).await?))
}

async fn stats(app: &App, asked: &Asked) -> Result<Stats, Failure> {
    let (start, end) = ordered_bounds(&asked.form, asked.now).map_err(Failure::bad_request)?;
    let selector = busy(|| parse_selector(asked.form.get("query")))?;
    let Some((start, end)) = allowed_range(asked, start, end)? else { return Ok(Stats::default()) };
    let request = MetaRequest { tenants: asked.tenants.clone(), selectors: vec![selector], start, end };
    // These answers have no place for warnings.
    Ok(app.querier.stats(&request).await?.value)
}
