//! Tenant ids (Loki API, tenancy): at most 150 bytes of `a-zA-Z0-9!-_.*'()`, not `.` or `..`; a suffix `:k=v` is metadata
//! and is cut off; `a|b` names several.

use std::fmt;
use std::sync::Arc;

/// Longest tenant id, in bytes.
const MAX_TENANT_ID_BYTES: usize = 150;

/// The owner of streams. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// Why a text names no tenant. The texts are Loki's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// Nothing was given.
    #[error("no org id")]
    Missing,
    /// Several tenants where one is wanted.
    #[error("multiple org IDs present")]
    Multiple,
    /// More than [`MAX_TENANT_ID_BYTES`].
    #[error("tenant ID is too long: max 150 characters")]
    TooLong,
    /// A character that tenant ids may not contain.
    #[error("tenant ID '{id}' contains unsupported character '{found}'")]
    Unsupported {
        /// The id as given.
        id: String,
        /// The first character that is not allowed.
        found: char,
    },
    /// `.` or `..`, which would name folders.
    #[error("tenant ID is '.' or '..'")]
    Dots,
}

impl TenantId {
    /// One tenant, checked.
    ///
    /// # Errors
    /// See [`TenantError`]; several tenants (`a|b`) are [`TenantError::Multiple`] unless all are the same.
    pub fn parse(text: &str) -> Result<Self, TenantError> {
        let mut all = TenantIds::parse(text)?.0;
        match (all.pop(), all.is_empty()) {
            (Some(one), true) => Ok(one),
            (None, _) => Err(TenantError::Missing),
            _ => Err(TenantError::Multiple),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse_one(text: &str) -> Result<Self, TenantError> {
        let id = text.split_once(':').map_or(text, |(id, _metadata)| id);
        if id.is_empty() {
            return Err(TenantError::Missing);
        }
        if let Some(found) = id.chars().find(|c| !c.is_ascii_alphanumeric() && !"!-_.*'()".contains(*c)) {
            return Err(TenantError::Unsupported { id: id.to_owned(), found });
        }
        if id.len() > MAX_TENANT_ID_BYTES {
            return Err(TenantError::TooLong);
        }
        if id == "." || id == ".." {
            return Err(TenantError::Dots);
        }
        Ok(Self(id.into()))
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The tenants that a request names: sorted, without repeats, at least one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TenantIds(Vec<TenantId>);

impl TenantIds {
    /// All tenants of `a|b|c`; parts that are empty name nobody.
    ///
    /// # Errors
    /// The first part that is not a tenant id, or [`TenantError::Missing`] when there is none.
    pub fn parse(text: &str) -> Result<Self, TenantError> {
        let parts = text.split('|').filter(|part| !part.is_empty());
        let mut ids = parts.map(TenantId::parse_one).collect::<Result<Vec<_>, _>>()?;
        if ids.is_empty() {
            return Err(TenantError::Missing);
        }
        ids.sort();
        ids.dedup();
        Ok(Self(ids))
    }

    /// The tenants, sorted.
    #[must_use]
    pub fn as_slice(&self) -> &[TenantId] {
        &self.0
    }

    /// The tenant, if it is just one.
    ///
    /// # Errors
    /// [`TenantError::Multiple`].
    pub fn single(&self) -> Result<&TenantId, TenantError> {
        match self.0.as_slice() {
            [one] => Ok(one),
            _ => Err(TenantError::Multiple),
        }
    }
}

/// `a|b`, as a request names them.
impl fmt::Display for TenantIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, tenant) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("|")?;
            }
            tenant.fmt(f)?;
        }
        Ok(())
    }
}

impl From<TenantId> for TenantIds {
    fn from(one: TenantId) -> Self {
        Self(vec![one])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_contract() {
        assert_eq!(TenantId::parse("a:k=v").unwrap().as_str(), "a");
        assert_eq!(TenantId::parse("a|a").unwrap().as_str(), "a");
        assert_eq!(TenantId::parse("a|b"), Err(TenantError::Multiple));
        assert_eq!(TenantId::parse(""), Err(TenantError::Missing));
        assert_eq!(TenantId::parse(".."), Err(TenantError::Dots));
        assert_eq!(TenantId::parse(&"x".repeat(151)), Err(TenantError::TooLong));
        let err = TenantId::parse("a/b").unwrap_err();
        assert_eq!(err.to_string(), "tenant ID 'a/b' contains unsupported character '/'");
    }

    #[test]
    fn several_are_sorted_and_unique() {
        let ids = TenantIds::parse("c|a|b|a").unwrap();
        assert_eq!(ids.as_slice().iter().map(TenantId::as_str).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(ids.single().is_err());
        assert_eq!(ids.to_string(), "a|b|c");
        assert_eq!(TenantIds::parse("a|").unwrap().as_slice().len(), 1);
        assert_eq!(TenantIds::parse("|"), Err(TenantError::Missing));
    }
}
