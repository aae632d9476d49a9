use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Line(i64),
    Pair(u16, i16),
    Box { width: u128, height: i128, label: Option<String> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    flags: (bool, u8, i8, ()),
    numbers: Vec<u32>,
    shapes: Vec<Shape>,
    names: BTreeMap<String, Option<char>>,
    pair: (f32, f64),
    wrapped: Wrapped,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(Option<i32>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Chain(Option<Box<Chain>>);

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Point),
        any::<i64>().prop_map(Shape::Line),
        any::<(u16, i16)>().prop_map(|(a, b)| Shape::Pair(a, b)),
        any::<(u128, i128, Option<String>)>().prop_map(|(width, height, label)| Shape::Box {
            width,
            height,
            label
        }),
    ]
}

fn everything() -> impl Strategy<Value = Everything> {
    let shapes = proptest::collection::vec(shapes(), 0..4);
    let finite = (-1e9_f32..1e9, -1e9_f64..1e9);
    (
        any::<(bool, u8, i8, ())>(),
        any::<Vec<u32>>(),
        shapes,
        any::<BTreeMap<String, Option<char>>>(),
        finite,
        any::<Option<i32>>(),
    )
        .prop_map(|(flags, numbers, shapes, names, pair, wrapped)| Everything {
            flags,
            numbers,
            shapes,
            names,
            pair,
            wrapped: Wrapped(wrapped),
        })
}

fn bytes_of<M: Serialize + DeserializeOwned>(message: &M) -> Bytes {
    Postcard::encode(message).unwrap().into_bytes()
}

fn read<M: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<M, Malformed> {
    Postcard::decode(Bytes::copy_from_slice(bytes))
}

/// What the crate's reader reads, ours reads, too, if it is written as the crate writes it: that reader
/// takes two letters for a char. Compared as bytes, since a float may be no number, which equals nothing.
fn agree<M: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok((theirs, [])) = ::postcard::take_from_bytes::<M>(bytes)
        && bytes_of(&theirs) == bytes
    {
        assert_eq!(read::<M>(bytes).map(|ours| bytes_of(&ours)), Ok(bytes_of(&theirs)));
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(message in everything()) {
        let bytes = bytes_of(&message);
        prop_assert_eq!(read::<Everything>(&bytes), Ok(message));
    }

    #[test]
    fn bytes_mean_what_they_mean_to_the_crate_that_writes_them(
        bytes in proptest::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..40),
    ) {
        agree::<Everything>(&bytes);
        agree::<Vec<Shape>>(&bytes);
        agree::<(u16, i16, i64, u128)>(&bytes);
        agree::<BTreeMap<String, char>>(&bytes);
        agree::<Chain>(&bytes);
    }

    #[test]
    fn a_message_that_was_cut_or_changed_is_read_or_refused(
        message in everything(),
        at: proptest::sample::Index,
        to: u8,
    ) {
        let mut bytes = bytes_of(&message).to_vec();
        let at = at.index(bytes.len());
        let _ = read::<Everything>(&bytes[..at]);
        bytes[at] = to;
        let _ = read::<Everything>(&bytes);
    }
}

#[test]
fn further_arguments_are_left_alone_by_who_does_not_know_them_and_none_if_not_sent() {
    type Old = (u64, String);
    type New = (u64, String, Option<u32>, Option<bool>);
    let old = bytes_of(&(7_u64, String::from("x")));
    assert_eq!(read::<New>(&old), Ok((7, "x".into(), None, None)));
    let new: New = (7, "x".into(), Some(1), None);
    assert_eq!(read::<Old>(&bytes_of(&new)), Ok((7, "x".into())));
}

#[test]
fn a_variant_that_is_not_known_is_refused() {
    assert!(read::<Shape>(&[4]).unwrap_err().to_string().contains("variant"));
}

#[test]
fn values_nested_without_end_are_refused_before_the_stack_is() {
    let error = read::<Chain>(&vec![1; 1 << 20]).unwrap_err();
    assert!(error.to_string().contains("too deep"), "{error}");
    // Each link is two values: a struct and its option.
    let mut bytes = vec![1; 63];
    bytes.push(0);
    assert!(read::<Chain>(&bytes).is_ok());
}

#[test]
fn a_length_that_the_bytes_cannot_have_is_refused_though_its_values_need_none() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(read::<Vec<()>>(&huge).unwrap_err().to_string().contains("more values"));
    assert!(read::<Vec<u64>>(&huge).is_err());
    assert_eq!(read::<Vec<()>>(&[200, 1]).map(|v| v.len()), Ok(200));
    let many: Vec<u8> = [200, 6, 0].repeat(2);
    assert!(read::<(Vec<()>, u8, Vec<()>, u8)>(&many).is_err(), "the allowance is the message's");
}

#[test]
fn numbers_that_do_not_fit_and_texts_that_are_none_are_refused() {
    assert!(read::<u16>(&[0xff, 0xff, 0x04]).is_err());
    assert!(read::<u128>(&[0xff; 19]).is_err());
    assert!(read::<u64>(&[0x80; 40]).is_err());
    assert!(read::<bool>(&[2]).is_err());
    assert!(read::<String>(&[1, 0xff]).is_err());
    assert!(read::<char>(&[2, b'a', b'b']).is_err());
    assert_eq!(read::<i128>(&bytes_of(&i128::MIN)), Ok(i128::MIN));
    assert_eq!(read::<u128>(&bytes_of(&u128::MAX)), Ok(u128::MAX));
}

#[test]
fn a_type_that_needs_names_is_refused_in_both_directions() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        rest: BTreeMap<String, u8>,
    }
    let flat = Flat { rest: BTreeMap::from([("a".into(), 1)]) };
    assert!(Postcard::encode(&flat).is_err(), "{flat:?}");
    let error = <Postcard as Codec<Flat>>::decode(Bytes::from_static(&[1, 1, b'a', 1]));
    assert!(format!("{error:?}").contains("Err"));
}
