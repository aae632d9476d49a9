//! gRPC's service config: how a channel chooses servers and makes calls again, as JSON.
//!
//! The shape is that of `grpc.service_config.ServiceConfig` in JSON, with fields of our own
//! (`circuitBreaker`, `consecutiveFailures`, `idempotentElsewhere`). A field that is not known is refused
//! rather than left out, so that a slip of the pen is noticed.
//!
//! ```
//! let config = stubborn::service_config::parse(
//!     r#"{
//!         "loadBalancingConfig": [{ "round_robin": {} }],
//!         "methodConfig": [{
//!             "name": [{ "service": "bank.Bank", "method": "Balance" }],
//!             "timeout": "2s",
//!             "hedgingPolicy": { "maxAttempts": 2, "hedgingDelay": "0.05s" }
//!         }]
//!     }"#,
//! )?;
//! # let _ = config;
//! # Ok::<(), stubborn::service_config::ServiceConfigError>(())
//! ```

mod read;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;
pub use stubborn_core::node::{
    Again, Balancing, ChannelCounters, CircuitBreaker, Codes, EndpointState, EndpointStats,
    FailurePercentageEjection, HedgingPolicy, MethodConfig, MethodName, OutlierDetection, RING_KEY,
    RetryPolicy, RetryThrottling, ServiceConfig, SuccessRateEjection,
};
use stubborn_core::service::Code;

use self::read::{Field, Object};

/// The most attempts of one call that a configuration can ask for (gRFC A6): more are taken for this.
const MOST_ATTEMPTS: u32 = 5;

/// Why a service config was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfigError {
    field: String,
    what: String,
}

impl ServiceConfigError {
    /// Which field is wrong, for example `methodConfig[0].retryPolicy.maxAttempts`; empty if the whole
    /// is no JSON.
    pub fn field(&self) -> &str {
        &self.field
    }
}

impl fmt::Display for ServiceConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("service config: ")?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for ServiceConfigError {}

type Result<T> = std::result::Result<T, ServiceConfigError>;

/// Reads a service config.
///
/// # Errors
/// Names the field that is wrong.
pub fn parse(json: &str) -> Result<ServiceConfig> {
    let value: Value = serde_json::from_str(json).map_err(|error| ServiceConfigError {
        field: String::new(),
        what: format!("this is no JSON: {error}"),
    })?;
    let whole = Field { value: &value, path: String::new() };
    let fields = [
        "loadBalancingConfig",
        "loadBalancingPolicy",
        "methodConfig",
        "retryThrottling",
        "circuitBreaker",
        "healthCheckConfig",
    ];
    let whole = whole.object(&fields)?;
    let mut config = ServiceConfig::default();
    if let Some(policies) = whole.get("loadBalancingConfig") {
        balancing(&policies, &mut config)?;
    } else if let Some(policy) = whole.get("loadBalancingPolicy") {
        config.balancing = match policy.text()?.to_ascii_lowercase().as_str() {
            "pick_first" => Balancing::PickFirst,
            "round_robin" => Balancing::RoundRobin,
            _ => return Err(policy.wrong("pick_first or round_robin is expected")),
        };
    }
    if let Some(methods) = whole.get("methodConfig") {
        config.methods = methods.list()?.iter().map(method).collect::<Result<_>>()?;
        each_name_once(&methods, &config.methods)?;
    }
    if let Some(throttling) = whole.get("retryThrottling") {
        let fields = throttling.object(&["maxTokens", "tokenRatio"])?;
        config.throttling = Some(RetryThrottling {
            max_tokens: fields.need("maxTokens")?.number(1, 1_000)?,
            token_ratio: fields.need("tokenRatio")?.thousandths(0.001, 1_000.0)?,
        });
    }
    if let Some(breaker) = whole.get("circuitBreaker") {
        let fields = breaker.object(&["maxOutstanding", "maxPending"])?;
        let mut breaker = CircuitBreaker::default();
        fields.set("maxOutstanding", &mut breaker.max_outstanding, |f| f.number(1, u32::MAX))?;
        fields.set("maxPending", &mut breaker.max_pending, |f| f.number(0, u32::MAX))?;
        config.breaker = Some(breaker);
    }
    Ok(config)
}

/// The first policy of a list that is known here, as gRPC chooses it.
fn balancing(policies: &Field<'_>, config: &mut ServiceConfig) -> Result<()> {
    for policy in policies.list()? {
        let (name, policy) = Object::choice(&policy)?;
        match name {
            "pick_first" => {
                let shuffles = policy.object(&["shuffleAddressList"])?.get("shuffleAddressList");
                if let Some(field) = shuffles
                    && field.flag()?
                {
                    return Err(field.wrong("addresses are tried in their order: use round_robin"));
                }
                config.balancing = Balancing::PickFirst;
            }
            "round_robin" => {
                policy.object(&[])?;
                config.balancing = Balancing::RoundRobin;
            }
            "least_request_experimental" => {
                let mut choices = 2;
                let fields = policy.object(&["choiceCount"])?;
                fields.set("choiceCount", &mut choices, |field| field.number(2, u32::MAX))?;
                config.balancing = Balancing::LeastOutstanding { choices };
            }
            "ring_hash_experimental" => config.balancing = ring(&policy)?,
            "outlier_detection_experimental" => outliers(&policy, config)?,
            _ => continue,
        }
        return Ok(());
    }
    Err(policies.wrong("none of these policies is known"))
}

fn ring(policy: &Field<'_>) -> Result<Balancing> {
    let fields = policy.object(&["minRingSize", "maxRingSize", "requestHashHeader"])?;
    let (mut points, mut most) = (1_024, 4_096);
    fields.set("minRingSize", &mut points, |field| field.number(1, 8 << 20))?;
    fields.set("maxRingSize", &mut most, |field| field.number(1, 8 << 20))?;
    let mut header = Cow::Borrowed(RING_KEY);
    fields.set("requestHashHeader", &mut header, |f| Ok(Cow::Owned(f.text()?.to_owned())))?;
    Ok(Balancing::RingHash { header, points: points.min(most).min(Balancing::MAX_RING) })
}

fn outliers(policy: &Field<'_>, config: &mut ServiceConfig) -> Result<()> {
    let fields = policy.object(&[
        "interval",
        "baseEjectionTime",
        "maxEjectionTime",
        "maxEjectionPercent",
        "consecutiveFailures",
        "successRateEjection",
        "failurePercentageEjection",
        "childPolicy",
    ])?;
    let mut outliers = OutlierDetection {
        consecutive_failures: None,
        success_rate: None,
        failure_percentage: None,
        ..OutlierDetection::default()
    };
    fields.set("interval", &mut outliers.interval, Field::positive_duration)?;
    fields.set("baseEjectionTime", &mut outliers.base_ejection_time, Field::positive_duration)?;
    fields.set("maxEjectionTime", &mut outliers.max_ejection_time, Field::positive_duration)?;
    fields.set("maxEjectionPercent", &mut outliers.max_ejection_percent, |f| f.number(0, 100))?;
    fields.set("consecutiveFailures", &mut outliers.consecutive_failures, |field| {
        field.number(1, u32::MAX).map(Some)
    })?;
    fields.set("successRateEjection", &mut outliers.success_rate, |field| {
        let known = ["stdevFactor", "enforcementPercentage", "minimumHosts", "requestVolume"];
        let fields = field.object(&known)?;
        let mut rule = SuccessRateEjection::default();
        fields.set("stdevFactor", &mut rule.stdev_factor, |f| f.number(0, u32::MAX))?;
        let percentage = &mut rule.enforcement_percentage;
        fields.set("enforcementPercentage", percentage, |f| f.number(0, 100))?;
        fields.set("minimumHosts", &mut rule.minimum_hosts, |f| f.number(0, u32::MAX))?;
        fields.set("requestVolume", &mut rule.request_volume, |f| f.number(0, u32::MAX))?;
        Ok(Some(rule))
    })?;
    fields.set("failurePercentageEjection", &mut outliers.failure_percentage, |field| {
        let known = ["threshold", "enforcementPercentage", "minimumHosts", "requestVolume"];
        let fields = field.object(&known)?;
        let mut rule = FailurePercentageEjection::default();
        fields.set("threshold", &mut rule.threshold, |f| f.number(0, 100))?;
        let percentage = &mut rule.enforcement_percentage;
        fields.set("enforcementPercentage", percentage, |f| f.number(0, 100))?;
        fields.set("minimumHosts", &mut rule.minimum_hosts, |f| f.number(0, u32::MAX))?;
        fields.set("requestVolume", &mut rule.request_volume, |f| f.number(0, u32::MAX))?;
        Ok(Some(rule))
    })?;
    let child = fields.need("childPolicy")?;
    balancing(&child, config)?;
    if config.outliers.is_some() {
        return Err(child.wrong("outlier detection inside of outlier detection"));
    }
    config.outliers = Some(outliers);
    Ok(())
}

fn method(field: &Field<'_>) -> Result<MethodConfig> {
    let fields = field.object(&[
        "name",
        "timeout",
        "waitForReady",
        "retryPolicy",
        "hedgingPolicy",
        "idempotentElsewhere",
    ])?;
    let names = fields.need("name")?.list()?.iter().map(name).collect::<Result<_>>()?;
    let timeout = fields.get("timeout").map(|field| field.duration()).transpose()?;
    let wait_for_ready = fields.get("waitForReady").map(|field| field.flag()).transpose()?;
    let again = match (fields.get("retryPolicy"), fields.get("hedgingPolicy")) {
        (Some(_), Some(field)) => {
            return Err(field.wrong("a method has a retry policy or a hedging policy, not both"));
        }
        (Some(field), None) => Again::Retry(retry(&field)?),
        (None, Some(field)) => Again::Hedge(hedging(&field)?),
        (None, None) => Again::AsUsual,
    };
    let mut idempotent_elsewhere = false;
    fields.set("idempotentElsewhere", &mut idempotent_elsewhere, Field::flag)?;
    Ok(MethodConfig { names, timeout, wait_for_ready, again, idempotent_elsewhere })
}

fn name(field: &Field<'_>) -> Result<MethodName> {
    let fields = field.object(&["service", "method"])?;
    let text = |name: &str| match fields.get(name) {
        Some(field) => field.text(),
        None => Ok(""),
    };
    match (text("service")?, text("method")?) {
        ("", "") => Ok(MethodName::Any),
        ("", _) => Err(field.wrong("a method needs its service")),
        (service, "") => Ok(MethodName::Service(service.to_owned())),
        (service, method) => Ok(MethodName::Method(format!("{service}/{method}"))),
    }
}

fn each_name_once(field: &Field<'_>, methods: &[MethodConfig]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in methods.iter().flat_map(|method| &method.names) {
        let text = match name {
            MethodName::Any => "everything",
            MethodName::Service(name) | MethodName::Method(name) => name,
        };
        if !seen.insert(text) {
            return Err(field.wrong(&format!("{text} is named twice")));
        }
    }
    Ok(())
}

fn retry(field: &Field<'_>) -> Result<RetryPolicy> {
    let fields = field.object(&[
        "maxAttempts",
        "initialBackoff",
        "maxBackoff",
        "backoffMultiplier",
        "retryableStatusCodes",
    ])?;
    let retryable = fields.need("retryableStatusCodes")?;
    let codes = codes(&retryable)?;
    if codes == Codes::default() {
        return Err(retryable.wrong("at least one code is expected"));
    }
    Ok(RetryPolicy {
        max_attempts: fields.need("maxAttempts")?.number(2, u32::MAX)?.min(MOST_ATTEMPTS),
        initial_backoff: fields.need("initialBackoff")?.positive_duration()?,
        max_backoff: fields.need("maxBackoff")?.positive_duration()?,
        multiplier: fields.need("backoffMultiplier")?.thousandths(1.0, 1_000.0)?,
        codes,
    })
}

fn hedging(field: &Field<'_>) -> Result<HedgingPolicy> {
    let fields = field.object(&["maxAttempts", "hedgingDelay", "nonFatalStatusCodes"])?;
    let mut policy = HedgingPolicy {
        max_attempts: fields.need("maxAttempts")?.number(2, u32::MAX)?.min(MOST_ATTEMPTS),
        delay: std::time::Duration::ZERO,
        non_fatal: Codes::default(),
    };
    fields.set("hedgingDelay", &mut policy.delay, Field::duration)?;
    fields.set("nonFatalStatusCodes", &mut policy.non_fatal, codes)?;
    Ok(policy)
}

/// Codes by gRPC's names or numbers.
fn codes(field: &Field<'_>) -> Result<Codes> {
    let code = |field: &Field<'_>| {
        let number = match field.value {
            Value::String(name) => {
                let same = |code: &&(&str, Code)| code.0.eq_ignore_ascii_case(name);
                CODES.iter().find(same).map(|(_, code)| *code)
            }
            value => {
                CODES.iter().map(|(_, code)| *code).find(|c| value.as_u64() == Some(*c as u64))
            }
        };
        number.ok_or_else(|| field.wrong("a status code of gRPC is expected"))
    };
    Ok(Codes::of(&field.list()?.iter().map(code).collect::<Result<Vec<_>>>()?))
}

const CODES: [(&str, Code); 17] = [
    ("OK", Code::Ok),
    ("CANCELLED", Code::Cancelled),
    ("UNKNOWN", Code::Unknown),
    ("INVALID_ARGUMENT", Code::InvalidArgument),
    ("DEADLINE_EXCEEDED", Code::DeadlineExceeded),
    ("NOT_FOUND", Code::NotFound),
    ("ALREADY_EXISTS", Code::AlreadyExists),
    ("PERMISSION_DENIED", Code::PermissionDenied),
    ("RESOURCE_EXHAUSTED", Code::ResourceExhausted),
    ("FAILED_PRECONDITION", Code::FailedPrecondition),
    ("ABORTED", Code::Aborted),
    ("OUT_OF_RANGE", Code::OutOfRange),
    ("UNIMPLEMENTED", Code::Unimplemented),
    ("INTERNAL", Code::Internal),
    ("UNAVAILABLE", Code::Unavailable),
    ("DATA_LOSS", Code::DataLoss),
    ("UNAUTHENTICATED", Code::Unauthenticated),
];
