//! Names of objects.
//!
//! `<tenant>/<day>/<min>-<max>-<ulid>.blk`, `<tenant>/<day>/manifest.json`, `<tenant>/tenant.json`. A tenant id may hold
//! `a-zA-Z0-9!-_.*'()` and is used as it is: all of these are safe in object stores and file names, and escaping them could make a name
//! longer than file names may be. Only a dot at its beginning is written `=2E`, so that no tenant is a hidden file, the lock of the folder,
//! or a folder above; no tenant id has a `=`.

use tailwater_model::TenantId;
use ulid::Ulid;

use super::Day;

/// A dot at the beginning of a tenant id.
const DOT: &str = "=2E";

/// The folder of a tenant.
#[must_use]
pub fn tenant_folder(tenant: &TenantId) -> String {
    match tenant.as_str().strip_prefix('.') {
        Some(rest) => format!("{DOT}{rest}"),
        None => tenant.to_string(),
    }
}

/// Whose folder it is; `None`: not a tenant's.
#[must_use]
pub fn tenant_of_folder(folder: &str) -> Option<TenantId> {
    let id = match folder.strip_prefix(DOT) {
        Some(rest) => format!(".{rest}"),
        None => folder.to_owned(),
    };
    let tenant = TenantId::parse(&id).ok()?;
    (tenant_folder(&tenant) == folder).then_some(tenant)
}

/// The object with the days of a tenant.
#[must_use]
pub fn tenant_path(tenant: &TenantId) -> String {
    format!("{}/tenant.json", tenant_folder(tenant))
}

/// The folder of a day.
#[must_use]
pub fn day_folder(tenant: &TenantId, day: Day) -> String {
    format!("{}/{day}", tenant_folder(tenant))
}

/// The object with the blocks of a day.
#[must_use]
pub fn manifest_path(tenant: &TenantId, day: Day) -> String {
    format!("{}/manifest.json", day_folder(tenant, day))
}

/// A block.
#[must_use]
pub fn block_path(tenant: &TenantId, day: Day, min: i64, max: i64, id: Ulid) -> String {
    format!("{}/{min}-{max}-{id}.blk", day_folder(tenant, day))
}

/// What the path of a block says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockName {
    /// Whose it is.
    pub tenant: TenantId,
    /// Of which day.
    pub day: Day,
    /// Its earliest timestamp.
    pub min: i64,
    /// Its latest.
    pub max: i64,
    /// Its id.
    pub id: Ulid,
}

impl BlockName {
    /// Reads a path; `None`: it is not a block's.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        let (tenant, day, file) = (parts.next()?, parts.next()?, parts.next()?);
        let (range, id) = file.strip_suffix(".blk")?.rsplit_once('-')?;
        // The first number may begin with a minus, which is not the one between them.
        let between = range.get(1..)?.find('-')? + 1;
        let name = Self {
            tenant: tenant_of_folder(tenant)?,
            day: day.parse().ok()?,
            min: range.get(..between)?.parse().ok()?,
            max: range.get(between + 1..)?.parse().ok()?,
            id: Ulid::from_string(id).ok()?,
        };
        (name.path() == path).then_some(name)
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> String {
        block_path(&self.tenant, self.day, self.min, self.max, self.id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_tenant_is_hidden_or_above() {
        for (id, folder) in [(".lock", "=2Elock"), ("..a", "=2E.a"), ("...", "=2E.."), ("a..", "a.."), ("a", "a")] {
            let tenant = TenantId::parse(id).unwrap();
            assert_eq!(tenant_folder(&tenant), folder);
            assert_eq!(tenant_of_folder(folder), Some(tenant));
        }
        for folder in ["", ".a", "=2E", "=2E.", "=2Ea|b", "a=b", "a:b", "lost+found", "a/b"] {
            assert_eq!(tenant_of_folder(folder), None, "{folder}");
        }
    }

    proptest! {
        #[test]
        fn names_survive(
            id in r"[a-zA-Z0-9!\-_.*'()]{1,150}", min: i64, max: i64, ulid: u128, days in -100_000_i32..100_000,
        ) {
            prop_assume!(id != "." && id != "..");
            let tenant = TenantId::parse(&id).unwrap();
            let folder = tenant_folder(&tenant);
            prop_assert_eq!(tenant_of_folder(&folder), Some(tenant.clone()));
            prop_assert!(!folder.starts_with('.') && !folder.contains('/') && folder.len() < 255);
            let day = Day::of(i64::from(days) * 86_400_000_000_000);
            let name = BlockName { tenant, day, min, max, id: Ulid(ulid) };
            prop_assert_eq!(BlockName::parse(&name.path()), Some(name));
        }

        #[test]
        fn any_path_is_read_or_not(path in ".{0,60}") {
            let _ = BlockName::parse(&path);
        }
    }
}
