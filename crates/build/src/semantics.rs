//! What is promised about a method's calls: its options, read and checked.

use prost_reflect::{DescriptorPool, MethodDescriptor};
use stubborn_stubs::{Semantics, Shape};

use crate::diagnostic::{Diagnostic, Label};
use crate::sources::Sources;

/// Which sides of a method stream.
pub(crate) fn shape(method: &MethodDescriptor) -> Shape {
    Shape::of(method.is_client_streaming(), method.is_server_streaming())
}

/// `google.protobuf.MethodOptions.idempotency_level` and its values.
const IDEMPOTENCY_LEVEL: i32 = 34;
const NO_SIDE_EFFECTS: i32 = 1;
const IDEMPOTENT: i32 = 2;

/// `stubborn.semantics` and its values, as in `options.proto`.
const SEMANTICS: i32 = 50717;
const UNSPECIFIED: i32 = 0;
const MAYBE: i32 = 1;
const AT_MOST_ONCE: i32 = 2;
const EXACTLY_ONCE: i32 = 3;

/// Reads the options of a method.
///
/// # Errors
/// If they contradict each other or do not fit the method's shape.
pub(crate) fn read(
    pool: &DescriptorPool,
    method: &MethodDescriptor,
    sources: &Sources,
) -> Result<Semantics, Diagnostic> {
    let place = |option: i32, say: &str| place(method, sources, option, say);
    let idempotency = idempotency(method);
    let Some(semantics) = extension(pool, method).filter(|s| *s != UNSPECIFIED) else {
        return Ok(match idempotency {
            NO_SIDE_EFFECTS => Semantics::Read,
            IDEMPOTENT => Semantics::Idempotent,
            _ => Semantics::AtMostOnce,
        });
    };
    let name = match semantics {
        MAYBE => "MAYBE",
        AT_MOST_ONCE => "AT_MOST_ONCE",
        EXACTLY_ONCE => "EXACTLY_ONCE",
        // An enum's number that a later version of options.proto may have; not from source text.
        other => {
            return Err(Diagnostic::new(format!("stubborn.semantics has no value {other}"))
                .at(place(SEMANTICS, "here"))
                .help("use MAYBE, AT_MOST_ONCE or EXACTLY_ONCE"));
        }
    };
    let contradiction = match idempotency {
        NO_SIDE_EFFECTS => {
            Some(("NO_SIDE_EFFECTS", "is a read, which may run any number of times"))
        }
        IDEMPOTENT => Some(("IDEMPOTENT", "may run more than once")),
        _ => None,
    };
    if let Some((level, meaning)) = contradiction {
        return Err(Diagnostic::new(format!(
            "rpc {} cannot be both {name} and {level}",
            method.full_name()
        ))
        .at(place(SEMANTICS, ""))
        .at(place(IDEMPOTENCY_LEVEL, ""))
        .help(format!("a {level} method {meaning}: keep only one of the two options")));
    }
    if semantics != AT_MOST_ONCE && shape(method) != Shape::Unary {
        return Err(Diagnostic::new(format!(
            "rpc {} streams, so it cannot be {name}",
            method.full_name()
        ))
        .at(place(SEMANTICS, ""))
        .help(
            "leave the option out: a stream is at most once; or make it a method without streams",
        ));
    }
    if semantics == MAYBE && method.output().full_name() != "google.protobuf.Empty" {
        return Err(Diagnostic::new(format!(
            "rpc {} is MAYBE, so no reply is sent, but it returns {}",
            method.full_name(),
            method.output().full_name()
        ))
        .at(sources.locate(method.parent_file().file_descriptor_proto(), &output_path(method)))
        .at(place(SEMANTICS, ""))
        .help("return google.protobuf.Empty, or leave the option out"));
    }
    Ok(match semantics {
        MAYBE => Semantics::Maybe,
        EXACTLY_ONCE => Semantics::ExactlyOnce,
        _ => Semantics::AtMostOnce,
    })
}

fn idempotency(method: &MethodDescriptor) -> i32 {
    let options = method.options();
    let value = options.get_field_by_number(IDEMPOTENCY_LEVEL as u32);
    value.and_then(|v| v.as_enum_number()).unwrap_or(0)
}

fn extension(pool: &DescriptorPool, method: &MethodDescriptor) -> Option<i32> {
    let extension = pool.get_extension_by_name("stubborn.semantics")?;
    let options = method.options();
    if !options.has_extension(&extension) {
        return None;
    }
    options.get_extension(&extension).as_enum_number()
}

/// Where an option of the method stands.
fn place(method: &MethodDescriptor, sources: &Sources, option: i32, say: &str) -> Option<Label> {
    let mut path = method.path().to_vec();
    path.extend([4, option]);
    let place = sources.locate(method.parent_file().file_descriptor_proto(), &path)?;
    Some(place.saying(say))
}

fn output_path(method: &MethodDescriptor) -> Vec<i32> {
    let mut path = method.path().to_vec();
    path.push(3);
    path
}
