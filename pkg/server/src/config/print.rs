//! The configuration as YAML (`/config`).

use serde_json::{Map, Value};

use tailwater_model::Limits;

use super::Config;
use super::keys::{CONFIG_KEYS, LIMIT_KEYS};

/// What of the configuration to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All settings.
    All,
    /// All settings as they would be if nothing were set.
    Defaults,
    /// Only what differs from the defaults.
    Diff,
}

impl Config {
    /// The settings as a configuration file, sorted by key.
    pub(crate) fn to_yaml(&self, mode: Mode) -> String {
        let defaults = Self::default();
        let shown = if mode == Mode::Defaults { &defaults } else { self };
        let mut root = Map::new();
        for key in CONFIG_KEYS {
            let value = (key.get)(shown);
            if mode != Mode::Diff || value != (key.get)(&defaults) {
                insert(&mut root, key.path, value);
            }
        }
        for key in LIMIT_KEYS {
            let value = (key.get)(&shown.limits);
            if mode != Mode::Diff || value != (key.get)(&defaults.limits) {
                insert(&mut root, &format!("limits_config.{}", key.path), value);
            }
        }
        for (tenant, limits) in &shown.overrides {
            let mut own = Map::new();
            for key in LIMIT_KEYS {
                let value = (key.get)(limits);
                if value != (key.get)(&shown.limits) {
                    own.insert(key.path.to_owned(), value);
                }
            }
            // Tenant ids may contain dots: never through a path.
            if let Value::Object(all) = root.entry("overrides").or_insert_with(|| Value::Object(Map::new())) {
                all.insert(tenant.to_string(), Value::Object(own));
            }
        }
        if root.is_empty() {
            return "{}\n".to_owned();
        }
        yaml(&Value::Object(root))
    }
}

fn insert(root: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            root.insert(path.to_owned(), value);
        }
        Some((section, below)) => {
            if let Value::Object(section) = root.entry(section).or_insert_with(|| Value::Object(Map::new())) {
                insert(section, below, value);
            }
        }
    }
}

impl Config {
    /// The limits of a tenant by name.
    #[expect(clippy::unused_self, reason = "the configuration knows how its settings are written")]
    pub(crate) fn limits_of(&self, limits: &Limits) -> Map<String, Value> {
        LIMIT_KEYS.iter().map(|key| (key.path.to_owned(), (key.get)(limits))).collect()
    }

    /// The limits of a tenant as YAML.
    pub(crate) fn limits_yaml(&self, limits: &Limits) -> String {
        yaml(&Value::Object(self.limits_of(limits)))
    }
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|error| format!("# not printable: {error}\n"))
}
