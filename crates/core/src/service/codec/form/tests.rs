use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::net::IpAddr;
use core::num::NonZeroU32;

use serde::Deserialize;

use super::*;

fn form<M: serde::de::DeserializeOwned>() -> (String, Vec<String>) {
    let form = Form::of::<M>("json", true);
    (form.parts.join(", "), form.types)
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Account(String);

#[derive(Deserialize)]
#[allow(dead_code)]
enum Kind {
    Open,
    Closed(u64),
    Moved { to: Account, at: f64 },
    Pair(u8, bool),
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Order {
    /// Refuses the value that it is given.
    from: IpAddr,
    number: NonZeroU32,
    kind: Option<Kind>,
    #[serde(rename = "perKey")]
    per_key: BTreeMap<String, Vec<Account>>,
}

#[test]
fn the_arguments_of_a_method_are_told_one_by_one_with_the_types_that_they_name() {
    let (parts, types) = form::<(Order, u64, [u8; 32], (f32, char))>();
    assert_eq!(parts, "Order, u64, [u8; 32], (f32, char)");
    assert_eq!(
        types,
        [
            "struct Account(String)",
            "enum Kind { Open, Closed(u64), Moved { to: Account, at: f64 }, Pair(u8, bool) }",
            "struct Order { from: String, number: u32, kind: Option<Kind>, \
             perKey: Map<String, Vec<Account>> }",
        ]
    );
    assert_eq!(form::<()>(), ("()".into(), [].into()));
    assert_eq!(form::<Result<u64, String>>().1, ["enum Result { Ok(u64), Err(String) }"]);
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Node {
    next: Option<Box<Node>>,
    children: Vec<Node>,
    value: u8,
}

#[derive(Deserialize)]
#[allow(dead_code)]
enum Expr {
    Add(Box<Expr>, Box<Expr>),
    Of(Box<Endless>),
    Number(i64),
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Endless {
    again: Box<Endless>,
    tail: u8,
}

#[test]
fn types_that_contain_themselves_end() {
    let (parts, types) = form::<Node>();
    assert_eq!(parts, "Node");
    assert_eq!(types, ["struct Node { next: Option<Node>, children: Vec<Node>, value: u8 }"]);
    let (parts, types) = form::<(Expr,)>();
    assert_eq!(parts, "Expr");
    assert_eq!(
        types,
        [
            "struct Endless { again: Endless, tail: u8 }",
            "enum Expr { Add(Expr, Expr), Of(Endless), Number(i64) }",
        ]
    );
}

#[derive(Deserialize)]
#[allow(dead_code)]
#[serde(tag = "type")]
enum Tagged {
    A { one: u8 },
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Loose {
    any: Tagged,
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
}

#[test]
fn what_serde_cannot_tell_beforehand_is_left_open() {
    assert_eq!(form::<Loose>().0, "Map<String, any>");
    assert_eq!(form::<(Tagged, u8)>().0, "any, _");
}
