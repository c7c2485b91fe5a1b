//! The known name that a misspelt one most likely means.

/// The nearest of `known` to `name`, if it is near at all. Dotted paths whose last part equals `name`'s win: a right key in the
/// wrong place is the commonest mistake.
pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str> + Clone) -> Option<&'k str> {
    let last = |path: &'k str| path.rsplit('.').next().unwrap_or(path);
    let wanted = name.rsplit('.').next().unwrap_or(name);
    if let Some(same) = known.clone().find(|path| last(path) == wanted) {
        return Some(same);
    }
    let (distance, best) = known.map(|path| (distance(name, path), path)).min_by_key(|(distance, _)| *distance)?;
    (distance <= 2 + name.len() / 4).then_some(best)
}

/// How many single letters have to be changed, added or removed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(MAX_LETTERS).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

/// Letters of a name that are looked at.
const MAX_LETTERS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_nonsense_is_not() {
        let known = ["server.http_listen_port", "limits_config.ingestion_rate_mb", "auth_enabled"];
        let nearest = |name| nearest(name, known.iter().copied());
        assert_eq!(nearest("auth_enable"), Some("auth_enabled"));
        assert_eq!(nearest("server.http_listen_prot"), Some("server.http_listen_port"));
        assert_eq!(nearest("http_listen_port"), Some("server.http_listen_port"));
        assert_eq!(nearest("ingester.ingestion_rate_mb"), Some("limits_config.ingestion_rate_mb"));
        assert_eq!(nearest("zzz"), None);
    }

    #[test]
    fn the_distance_counts_single_changes() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
