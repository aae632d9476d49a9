use std::time::Duration;

use super::*;

const WHOLE: &str = r#"{
    "loadBalancingConfig": [
        { "xds_cluster_impl_experimental": { "cluster": "x" } },
        { "outlier_detection_experimental": {
            "interval": "5s", "baseEjectionTime": "1.5s", "maxEjectionPercent": 50,
            "consecutiveFailures": 3,
            "successRateEjection": { "stdevFactor": 1500 },
            "failurePercentageEjection": { "threshold": 60, "minimumHosts": 3 },
            "childPolicy": [{ "ring_hash_experimental": {
                "minRingSize": 512, "requestHashHeader": "user" } }]
        } }
    ],
    "methodConfig": [
        { "name": [{}], "timeout": "0.100000001s", "waitForReady": true },
        { "name": [{ "service": "a.B" }, { "service": "a.C", "method": "D" }],
          "idempotentElsewhere": true,
          "retryPolicy": {
            "maxAttempts": 9, "initialBackoff": "0.1s", "maxBackoff": "1s",
            "backoffMultiplier": 1.5, "retryableStatusCodes": ["UNAVAILABLE", "aborted", 4] } },
        { "name": [{ "service": "a.B", "method": "E" }],
          "hedgingPolicy": { "maxAttempts": 3, "hedgingDelay": "0.02s",
            "nonFatalStatusCodes": ["INTERNAL"] } }
    ],
    "retryThrottling": { "maxTokens": 100, "tokenRatio": 0.125 },
    "circuitBreaker": { "maxOutstanding": 64, "maxPending": 0 }
}"#;

#[test]
fn every_field_of_a_service_config_is_read() {
    let config = parse(WHOLE).unwrap();
    let header = Cow::Borrowed("user");
    assert_eq!(config.balancing, Balancing::RingHash { header, points: 512 });
    let outliers = config.outliers.unwrap();
    assert_eq!(outliers.interval, Duration::from_secs(5));
    assert_eq!(outliers.base_ejection_time, Duration::from_millis(1_500));
    assert_eq!(outliers.max_ejection_time, Duration::from_secs(300));
    assert_eq!((outliers.max_ejection_percent, outliers.consecutive_failures), (50, Some(3)));
    assert_eq!(outliers.success_rate.unwrap().stdev_factor, 1_500);
    let percentage = outliers.failure_percentage.unwrap();
    assert_eq!((percentage.threshold, percentage.minimum_hosts), (60, 3));
    assert_eq!(config.throttling, Some(RetryThrottling { max_tokens: 100, token_ratio: 125 }));
    assert_eq!(config.breaker, Some(CircuitBreaker { max_outstanding: 64, max_pending: 0 }));
    let [any, retried, hedged] = &config.methods[..] else { panic!("three methods") };
    assert_eq!(any.names, [MethodName::Any]);
    assert_eq!(any.timeout, Some(Duration::from_nanos(100_000_001)));
    assert_eq!((any.wait_for_ready, &any.again), (Some(true), &Again::AsUsual));
    let names = [MethodName::Service("a.B".into()), MethodName::Method("a.C/D".into())];
    assert_eq!(retried.names, names);
    assert!(retried.idempotent_elsewhere);
    let Again::Retry(retry) = &retried.again else { panic!("retried") };
    assert_eq!((retry.max_attempts, retry.multiplier), (5, 1_500));
    assert_eq!(retry.codes, Codes::of(&[Code::Unavailable, Code::Aborted, Code::DeadlineExceeded]));
    let Again::Hedge(hedge) = &hedged.again else { panic!("hedged") };
    assert_eq!((hedge.max_attempts, hedge.delay), (3, Duration::from_millis(20)));
    assert!(hedge.non_fatal.contains(Code::Internal));
}

#[test]
fn an_empty_service_config_is_the_default() {
    assert_eq!(parse("{}").unwrap(), ServiceConfig::default());
}

#[test]
fn errors_name_the_field() {
    let retry = |field: &str, value: &str| {
        let fields = [
            ("maxAttempts", "3"),
            ("initialBackoff", "\"1s\""),
            ("maxBackoff", "\"1s\""),
            ("backoffMultiplier", "2"),
            ("retryableStatusCodes", "[14]"),
        ];
        let fields = fields.map(|(name, good)| {
            format!("\"{name}\": {}", if name == field { value } else { good })
        });
        format!(
            "{{\"methodConfig\":[{{\"name\":[{{}}],\"retryPolicy\":{{{}}}}}]}}",
            fields.join(",")
        )
    };
    let cases = [
        ("nonsense".to_owned(), ""),
        ("[]".to_owned(), ""),
        (r#"{"metodConfig": []}"#.to_owned(), "metodConfig"),
        (r#"{"methodConfig": {}}"#.to_owned(), "methodConfig"),
        (r#"{"methodConfig": [{}]}"#.to_owned(), "methodConfig[0].name"),
        (
            r#"{"methodConfig": [{"name": [{"method": "M"}]}]}"#.to_owned(),
            "methodConfig[0].name[0]",
        ),
        (r#"{"methodConfig": [{"name": [{}, {}]}]}"#.to_owned(), "methodConfig"),
        (
            r#"{"methodConfig": [{"name": [{}], "timeout": 5}]}"#.to_owned(),
            "methodConfig[0].timeout",
        ),
        (
            r#"{"methodConfig": [{"name": [{}], "timeout": "-1s"}]}"#.to_owned(),
            "methodConfig[0].timeout",
        ),
        (
            r#"{"methodConfig": [{"name": [{}], "timeout": "1.0000000001s"}]}"#.to_owned(),
            "methodConfig[0].timeout",
        ),
        (retry("maxAttempts", "1"), "methodConfig[0].retryPolicy.maxAttempts"),
        (retry("maxAttempts", "2.5"), "methodConfig[0].retryPolicy.maxAttempts"),
        (retry("initialBackoff", "\"0s\""), "methodConfig[0].retryPolicy.initialBackoff"),
        (retry("maxBackoff", "null"), "methodConfig[0].retryPolicy.maxBackoff"),
        (retry("backoffMultiplier", "0"), "methodConfig[0].retryPolicy.backoffMultiplier"),
        (retry("retryableStatusCodes", "[]"), "methodConfig[0].retryPolicy.retryableStatusCodes"),
        (
            retry("retryableStatusCodes", "[14, \"GONE\"]"),
            "methodConfig[0].retryPolicy.retryableStatusCodes[1]",
        ),
        (r#"{"loadBalancingConfig": [{"grpclb": {}}]}"#.to_owned(), "loadBalancingConfig"),
        (r#"{"loadBalancingConfig": [{}]}"#.to_owned(), "loadBalancingConfig[0]"),
        (
            r#"{"loadBalancingConfig": [{"outlier_detection_experimental": {}}]}"#.to_owned(),
            "loadBalancingConfig[0].outlier_detection_experimental.childPolicy",
        ),
        (r#"{"retryThrottling": {"maxTokens": 10}}"#.to_owned(), "retryThrottling.tokenRatio"),
        (
            r#"{"retryThrottling": {"maxTokens": 0, "tokenRatio": 1}}"#.to_owned(),
            "retryThrottling.maxTokens",
        ),
        (r#"{"circuitBreaker": {"maxPending": -1}}"#.to_owned(), "circuitBreaker.maxPending"),
    ];
    for (json, field) in cases {
        let error = parse(&json).unwrap_err();
        assert_eq!(error.field(), field, "{json}: {error}");
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
    let deep = "[".repeat(100_000);
    assert_eq!(parse(&deep).unwrap_err().field(), "");
    let mut policy = r#"[{"round_robin":{}}]"#.to_owned();
    for _ in 0..20 {
        policy = format!(r#"[{{"outlier_detection_experimental":{{"childPolicy":{policy}}}}}]"#);
    }
    parse(&format!(r#"{{"loadBalancingConfig":{policy}}}"#)).unwrap_err();
}
