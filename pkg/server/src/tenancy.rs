//! Whose request it is (contract, Loki API §6).

use axum::http::HeaderMap;
use tailwater_model::{TenantError, TenantId, TenantIds};

use crate::Config;
use crate::answer::Failure;

/// The header that names the tenant.
pub(crate) const TENANT_HEADER: &str = "x-scope-orgid";

/// How requests are attributed.
#[derive(Clone, Debug)]
pub(crate) struct Tenancy {
    /// See [`Config::auth_enabled`].
    auth_enabled: Option<bool>,
    nobody: TenantId,
    multi_tenant_queries: bool,
}

impl Tenancy {
    pub(crate) fn new(config: &Config) -> Result<Self, TenantError> {
        Ok(Self {
            auth_enabled: config.auth_enabled,
            nobody: TenantId::parse(&config.no_auth_tenant)?,
            multi_tenant_queries: config.querier.multi_tenant_queries_enabled,
        })
    }

    /// The tenants of a request, not yet checked: the text of the header.
    ///
    /// # Errors
    /// 401 when the header is required and missing. This comes before every other check.
    pub(crate) fn claim(&self, headers: &HeaderMap) -> Result<Claim, Failure> {
        let header = || {
            let value = headers.get(TENANT_HEADER).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
            value.filter(|v| !v.is_empty())
        };
        match (self.auth_enabled, header()) {
            (Some(false), _) | (None, None) => Ok(Claim::Nobody(self.nobody.clone())),
            (Some(true), None) => Err(Failure::no_tenant()),
            (_, Some(text)) => Ok(Claim::Named(text)),
        }
    }

    /// The one tenant of a push.
    ///
    /// # Errors
    /// 400: the id is not one, or there are several.
    pub(crate) fn one(claim: Claim) -> Result<TenantId, Failure> {
        match claim {
            Claim::Nobody(tenant) => Ok(tenant),
            Claim::Named(text) => TenantId::parse(&text).map_err(Failure::bad_request),
        }
    }

    /// The tenants of a tail.
    ///
    /// # Errors
    /// 400: an id is not one, or there are several where only one is allowed.
    pub(crate) fn tailed(&self, claim: Claim) -> Result<TenantIds, Failure> {
        if self.multi_tenant_queries { self.several(claim) } else { Self::one(claim).map(TenantIds::from) }
    }

    /// The tenants of a query.
    ///
    /// # Errors
    /// 400: an id is not one; 500, as Loki: several where only one is allowed.
    pub(crate) fn several(&self, claim: Claim) -> Result<TenantIds, Failure> {
        let tenants = match claim {
            Claim::Nobody(tenant) => tenant.into(),
            Claim::Named(text) => TenantIds::parse(&text).map_err(Failure::bad_request)?,
        };
        if !self.multi_tenant_queries {
            tenants.single().map_err(Failure::internal)?;
        }
        Ok(tenants)
    }
}

/// Whom a request says it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// For nobody in particular, which is this tenant.
    Nobody(TenantId),
    /// What the header says.
    Named(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, StatusCode};

    fn headers(tenant: Option<&'static [u8]>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(tenant) = tenant {
            headers.insert(TENANT_HEADER, HeaderValue::from_bytes(tenant).unwrap());
        }
        headers
    }

    fn push(auth: Option<bool>, tenant: Option<&'static [u8]>) -> Result<String, (StatusCode, String)> {
        let tenancy = Tenancy::new(&Config { auth_enabled: auth, ..Config::default() }).unwrap();
        let tenant = tenancy.claim(&headers(tenant)).and_then(Tenancy::one);
        tenant.map(|t| t.to_string()).map_err(|f| (f.status, f.text))
    }

    #[test]
    fn the_header_is_required_ignored_or_honoured() {
        let unauthorized = Err((StatusCode::UNAUTHORIZED, "no org id".to_owned()));
        assert_eq!(push(Some(true), Some(b"t1")), Ok("t1".to_owned()));
        assert_eq!(push(Some(true), None), unauthorized);
        assert_eq!(push(Some(true), Some(b"")), unauthorized);
        assert_eq!(push(Some(false), Some(b"a/b")), Ok("fake".to_owned()));
        assert_eq!(push(None, None), Ok("fake".to_owned()));
        assert_eq!(push(None, Some(b"t1:k=v")), Ok("t1".to_owned()));
        let bad = |text: &str| Err((StatusCode::BAD_REQUEST, text.to_owned()));
        assert_eq!(push(None, Some(b"a/b")), bad("tenant ID 'a/b' contains unsupported character '/'"));
        assert_eq!(push(None, Some(b"a|b")), bad("multiple org IDs present"));
        assert_eq!(push(None, Some(b"a|a")), Ok("a".to_owned()));
        assert!(push(None, Some(b"t\xe9")).is_err());
    }

    #[test]
    fn several_tenants_need_permission() {
        let mut config = Config::default();
        let several = |config: &Config, text: &'static [u8]| {
            let tenancy = Tenancy::new(config).unwrap();
            let claim = tenancy.claim(&headers(Some(text)))?;
            tenancy.several(claim)
        };
        let refused = several(&config, b"a|b").unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.text.as_str()), (500, "multiple org IDs present"));
        assert_eq!(several(&config, b"a|a").unwrap().as_slice().len(), 1);
        let tailed = |config: &Config| {
            let tenancy = Tenancy::new(config).unwrap();
            tenancy.claim(&headers(Some(b"b|a"))).and_then(|claim| tenancy.tailed(claim))
        };
        let refused = tailed(&config).unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.text.as_str()), (400, "multiple org IDs present"));
        config.querier.multi_tenant_queries_enabled = true;
        assert_eq!(several(&config, b"b|a").unwrap().as_slice().len(), 2);
        assert_eq!(tailed(&config).unwrap().to_string(), "a|b");
    }
}
