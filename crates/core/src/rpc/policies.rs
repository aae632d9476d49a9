//! Which settings a method has, and how many calls may be made again.

use alloc::collections::BTreeMap;
use alloc::string::String;

use crate::rpc::policy::{
    Again, HedgingPolicy, MethodConfig, MethodName, RetryPolicy, RetryThrottling, ServiceConfig,
};
use crate::service::{Method, MethodId};

/// The settings of methods, to be found by name.
#[derive(Debug, Default)]
pub struct Policies {
    methods: BTreeMap<MethodId, usize>,
    services: BTreeMap<String, usize>,
    any: Option<usize>,
    /// Whether there are any.
    some: bool,
    /// Whether a method is hedged.
    pub(in crate::rpc) hedges: bool,
}

impl Policies {
    /// The settings of these methods.
    pub fn new(config: &ServiceConfig) -> Self {
        let mut policies = Self::default();
        for (index, method) in config.methods.iter().enumerate() {
            policies.some |= !method.names.is_empty();
            policies.hedges |= matches!(method.again, Again::Hedge(_));
            for name in &method.names {
                match name {
                    MethodName::Any => {
                        policies.any.get_or_insert(index);
                    }
                    MethodName::Service(name) => {
                        policies.services.entry(name.clone()).or_insert(index);
                    }
                    MethodName::Method(name) => {
                        policies.methods.entry(MethodId::of(name)).or_insert(index);
                    }
                }
            }
        }
        policies
    }

    /// The settings of a method that has some, in the configuration that these were made from.
    pub fn of<'a>(&self, config: &'a ServiceConfig, method: &Method) -> Option<&'a MethodConfig> {
        if !self.some {
            return None;
        }
        let service = || self.services.get(method.name().rsplit_once('/')?.0);
        let index = self.methods.get(&method.id()).or_else(service).copied().or(self.any)?;
        config.methods.get(index)
    }

    /// How calls of a method are made again.
    pub fn retry<'a>(&self, config: &'a ServiceConfig, method: &Method) -> Option<&'a RetryPolicy> {
        match self.of(config, method).map(|method| &method.again) {
            Some(Again::Retry(policy)) => Some(policy),
            _ => config.retry.as_ref(),
        }
    }

    pub(in crate::rpc) fn hedging<'a>(
        &self,
        config: &'a ServiceConfig,
        method: &Method,
    ) -> Option<&'a HedgingPolicy> {
        match self.of(config, method).map(|method| &method.again) {
            Some(Again::Hedge(policy)) => Some(policy),
            _ => None,
        }
    }
}

/// gRFC A6's bucket of tokens, in thousandths.
#[derive(Debug, Default)]
pub struct Tokens {
    /// `None`: as many as wanted.
    left: Option<u64>,
    most: u64,
    ratio: u64,
}

impl Tokens {
    /// All of them; `None` for as many as wanted.
    pub fn new(config: Option<&RetryThrottling>) -> Self {
        let most = config.map_or(0, |config| u64::from(config.max_tokens) * 1_000);
        let ratio = config.map_or(0, |config| u64::from(config.token_ratio));
        Self { left: config.map(|_| most), most, ratio }
    }

    /// So many calls succeeded since the last one failed.
    pub fn succeeded(&mut self, calls: u64) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_add(self.ratio.saturating_mul(calls)).min(self.most);
        }
    }

    /// A call failed.
    pub fn failed(&mut self) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1_000);
        }
    }

    /// Whether a call may be made again.
    pub fn allow(&self) -> bool {
        self.left.is_none_or(|left| left * 2 > self.most)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::service::{Semantics, Shape};
    use crate::time::Duration;

    #[test]
    fn the_most_exact_name_decides_and_of_equal_ones_the_first() {
        let named = |name: MethodName, seconds| MethodConfig {
            names: vec![name],
            timeout: Some(Duration::from_secs(seconds)),
            wait_for_ready: None,
            again: Again::AsUsual,
            idempotent_elsewhere: false,
        };
        let methods = vec![
            named(MethodName::Any, 1),
            named(MethodName::Service("a.B".into()), 2),
            named(MethodName::Method("a.B/C".into()), 3),
            named(MethodName::Method("a.B/C".into()), 4),
        ];
        let config = ServiceConfig { methods, ..ServiceConfig::default() };
        let policies = Policies::new(&config);
        let timeouts: Vec<u64> = ["x.Y/Z", "a.B/D", "a.B/C"]
            .into_iter()
            .map(|name| Method::dynamic(name.into(), Semantics::Read, Shape::Unary))
            .map(|method| policies.of(&config, &method).unwrap().timeout.unwrap().as_secs())
            .collect();
        assert_eq!(timeouts, [1, 2, 3]);
    }

    #[test]
    fn tokens_stop_retries_at_half_and_successes_bring_them_back() {
        let throttling = RetryThrottling { max_tokens: 10, token_ratio: 100 };
        let mut tokens = Tokens::new(Some(&throttling));
        let mut allowed = 0;
        for _ in 0..20 {
            tokens.failed();
            allowed += u32::from(tokens.allow());
        }
        assert_eq!(allowed, 4, "six tokens are more than half, five are not");
        tokens.succeeded(50);
        assert!(!tokens.allow(), "five are half");
        tokens.succeeded(1);
        assert!(tokens.allow());
        tokens.succeeded(u64::MAX);
        assert_eq!(tokens.left, Some(10_000));
    }

    #[test]
    fn pauses_grow_by_the_multiplier_up_to_the_longest_for_any_number_of_attempts() {
        let policy = RetryPolicy { multiplier: 1_500, ..RetryPolicy::default() };
        let pauses: Vec<u64> = [1, 2, 3, 50, u32::MAX]
            .map(|attempts| policy.pause(attempts).as_millis() as u64)
            .to_vec();
        assert_eq!(pauses, [50, 75, 112, 1_000, 1_000]);
        let still = RetryPolicy { multiplier: 1_000, ..policy };
        assert_eq!(still.pause(u32::MAX), still.initial_backoff);
    }
}
