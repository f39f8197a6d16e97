//! Which services a broker serves.

use broker_protocol::BrokerInstance;

/// The services that a broker answers for (behaviour.md 2, row 14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustDomain {
    /// Those whose definition names this broker.
    Only(BrokerInstance),
    /// Every one: a broker on a socket of its own, asked for by the operator.
    Every,
}

impl TrustDomain {
    /// Whether a service of `instance` is served here.
    pub fn serves(&self, instance: &BrokerInstance) -> bool {
        match self {
            Self::Only(own) => own == instance,
            Self::Every => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_protocol::ServiceName;

    use super::*;

    #[test]
    fn a_broker_serves_its_own_domain_and_one_on_its_own_socket_serves_all() {
        let private = BrokerInstance::Service(ServiceName::parse("cache").unwrap());
        let other = BrokerInstance::Service(ServiceName::parse("other").unwrap());
        let domain = TrustDomain::Only(private.clone());
        assert!(domain.serves(&private));
        assert!(!domain.serves(&other));
        assert!(!domain.serves(&BrokerInstance::Shared));
        assert!(TrustDomain::Every.serves(&other) && TrustDomain::Every.serves(&BrokerInstance::Shared));
    }
}
