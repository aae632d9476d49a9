//! How a client of the explorer chooses among its servers, and which calls it makes again.

use std::time::Duration;

use stubborn_core::node::{
    Again, Balancing, CircuitBreaker, Codes, HedgingPolicy, MethodConfig, MethodName,
    OutlierDetection, RetryPolicy, ServiceConfig,
};
use stubborn_core::random::Random;
use stubborn_core::service::Code;

/// Drawn apart from everything else, so that what a seed does otherwise stays as it was. Half of all
/// clients use one server after the other, as is the default.
pub(super) fn draw(seed: u64, client: &str) -> ServiceConfig {
    let mut bytes = [0x5b; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    for (place, byte) in bytes[8..].iter_mut().zip(client.bytes()) {
        *place ^= byte;
    }
    let random = &mut Random::from_seed(bytes);
    let mut service = ServiceConfig::default();
    if random.chance(0.5) {
        return service;
    }
    service.balancing = match random.below(3) {
        0 => Balancing::RoundRobin,
        1 => Balancing::least_outstanding(),
        _ => Balancing::ring_hash(),
    };
    service.outliers = random.chance(0.5).then(|| OutlierDetection {
        base_ejection_time: Duration::from_millis(500 + random.below(5_000)),
        consecutive_failures: Some(1 + random.below(5) as u32),
        max_ejection_percent: 10 + random.below(90) as u32,
        ..OutlierDetection::default()
    });
    service.breaker = random.chance(0.3).then(|| CircuitBreaker {
        max_outstanding: 1 + random.below(8) as u32,
        max_pending: random.below(64) as u32,
    });
    let codes = Codes::of(&[Code::Unavailable, Code::Internal, Code::FailedPrecondition]);
    let again = match random.below(3) {
        0 => Again::AsUsual,
        1 => Again::Retry(RetryPolicy {
            max_attempts: 2 + random.below(4) as u32,
            initial_backoff: Duration::from_millis(1 + random.below(500)),
            codes,
            ..RetryPolicy::default()
        }),
        _ => Again::Hedge(HedgingPolicy {
            max_attempts: 2 + random.below(3) as u32,
            delay: Duration::from_millis(random.below(300)),
            non_fatal: codes,
        }),
    };
    service.methods.push(MethodConfig {
        names: vec![MethodName::Any],
        timeout: None,
        wait_for_ready: None,
        again,
        idempotent_elsewhere: false,
    });
    if random.chance(0.3) {
        service.throttling = None;
    }
    service
}
