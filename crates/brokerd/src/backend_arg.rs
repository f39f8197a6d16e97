//! A backend that runs already, as the operator names it.
//!
//! Invariant: its endpoints lead to the same place from whatever directory.

use broker_protocol::{ServiceName, Version};
use broker_transport::endpoint::Platform;

/// `--backend service=S,version=V,endpoint=P[,handoff=P]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendArg {
    pub(crate) service: ServiceName,
    pub(crate) version: Version,
    pub(crate) endpoint: String,
    pub(crate) handoff: Option<String>,
}

impl BackendArg {
    /// Whether both are of one service and version.
    pub(crate) fn is_of_the_same(&self, other: &Self) -> bool {
        (&self.service, &self.version) == (&other.service, &other.version)
    }
}

impl std::str::FromStr for BackendArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut service, mut version, mut endpoint, mut handoff) = (None, None, None, None);
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not KEY=VALUE"))?;
            let place = match key {
                "service" => &mut service,
                "version" => &mut version,
                "endpoint" => &mut endpoint,
                "handoff" => &mut handoff,
                _ => return Err(format!("{key:?} is none of service, version, endpoint and handoff")),
            };
            if place.replace(value.to_owned()).is_some() {
                return Err(format!("{key:?} is given twice"));
            }
        }
        let required = |value: Option<String>, key: &str| {
            value.filter(|value| !value.is_empty()).ok_or_else(|| format!("{key}= is missing"))
        };
        Ok(Self {
            service: required(service, "service")?.parse().map_err(|error| format!("service: {error}"))?,
            version: required(version, "version")?.parse().map_err(|error| format!("version: {error}"))?,
            endpoint: required(endpoint, "endpoint").and_then(whole)?,
            handoff: handoff.map(whole).transpose()?,
        })
    }
}

/// A relative path would lead elsewhere from the backend's working directory.
pub(crate) fn whole(endpoint: String) -> Result<String, String> {
    let is_whole = match Platform::CURRENT {
        Platform::Linux | Platform::MacOs => std::path::Path::new(&endpoint).is_absolute(),
        Platform::Windows => true,
    };
    if is_whole { Ok(endpoint) } else { Err(format!("{endpoint:?} is not an absolute path")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registered_backend_needs_service_version_and_endpoint() {
        let full: BackendArg = "service=a,version=1.0.0,endpoint=/e,handoff=/h".parse().unwrap();
        assert_eq!((full.endpoint.as_str(), full.handoff.as_deref()), ("/e", Some("/h")));
        for bad in [
            "",
            "service=a",
            "service=a,version=1.0.0",
            "service=a,version=1,endpoint=/e",
            "service=A,version=1.0.0,endpoint=/e",
            "service=a,version=1.0.0,endpoint=",
            "service=a,service=b,version=1.0.0,endpoint=/e",
            "service=a,version=1.0.0,endpoint=/e,color=red",
        ] {
            assert!(bad.parse::<BackendArg>().is_err(), "{bad}");
        }
        for bare in ["endpoint=e.sock", "endpoint=/e,handoff=h.sock"] {
            let parsed = format!("service=a,version=1.0.0,{bare}").parse::<BackendArg>();
            assert_eq!(parsed.is_ok(), Platform::CURRENT == Platform::Windows, "{bare}");
        }
    }
}
