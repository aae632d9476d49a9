//! Finds out what a type looks like: gives its `Deserialize` what it asks for, and notes that. A type is
//! asked again until nothing more comes out, each time for other variants, and first for the fields that
//! are not known yet, since who refuses a value ends the whole round.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

use super::definition::{Definition, Field, UNKNOWN, braces};

/// What is asked of a type in all rounds together: it may be as large as its author likes.
const STEPS: usize = 100_000;

/// Values within each other.
const DEPTH: usize = 64;

/// Texts that a type may ask for, tried one after the other where one is refused: numbers, addresses,
/// times, ids.
const TEXTS: [&str; 8] = [
    "",
    "a",
    "1",
    "127.0.0.1",
    "127.0.0.1:1",
    "2000-01-01T00:00:00Z",
    "2000-01-01",
    "00000000-0000-0000-0000-000000000000",
];

/// Rounds in which nothing new comes out, before no other is begun: those that refuse take turns.
const IDLE: usize = TEXTS.len();

/// Looks into a variant that has failed, before it is left alone.
const TRIES: usize = TEXTS.len();

/// The parts of a type, and the definitions that they name.
pub(super) fn probe<M: DeserializeOwned>(readable: bool) -> (Vec<String>, Vec<String>) {
    let mut probe = Probe { readable, ..Probe::default() };
    let mut best = Vec::new();
    let mut idle = 0;
    while idle < IDLE && probe.steps < STEPS {
        let before = probe.known();
        probe.parts = None;
        probe.attempt = idle;
        probe.round::<M>();
        let parts = probe.parts.take().unwrap_or_else(|| [probe.last.clone()].into());
        if best.is_empty() || !parts.iter().any(|part| part == UNKNOWN) {
            best = parts;
        }
        idle = if probe.known() == before { idle + 1 } else { 0 };
    }
    let types = probe.types.iter().map(|((name, _), definition)| definition.show(name));
    (best, types.collect())
}

#[derive(Default)]
struct Probe {
    readable: bool,
    steps: usize,
    depth: usize,
    /// What was asked for last, as Rust writes it.
    last: String,
    /// Of the outermost value, if that is a tuple.
    parts: Option<Vec<String>>,
    /// By name and the names within: two types may have one name.
    types: BTreeMap<Name, Definition>,
    /// Those that we are in.
    open: Vec<Name>,
    /// What may be empty is empty.
    short: bool,
    /// What failed led back to a type that we are in.
    circle: bool,
    /// How often what we are in was refused.
    attempt: usize,
}

type Name = (&'static str, &'static [&'static str]);

type Result<T> = core::result::Result<T, Refused>;

/// A type did not like its value, or leads nowhere.
#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl core::error::Error for Refused {}

impl serde::de::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl Probe {
    fn round<M: DeserializeOwned>(&mut self) {
        self.depth = 0;
        self.open.clear();
        (self.short, self.circle) = (false, false);
        let _ = M::deserialize(&mut *self);
    }

    fn known(&self) -> usize {
        self.types.len() + self.types.values().map(Definition::known).sum::<usize>()
    }

    /// One value, and what its type asked for.
    fn value<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> (Result<S::Value>, String) {
        self.last = UNKNOWN.to_owned();
        self.steps += 1;
        if self.steps >= STEPS || self.depth >= DEPTH {
            return (Err(Refused), UNKNOWN.to_owned());
        }
        self.depth += 1;
        let value = seed.deserialize(&mut *self);
        self.depth -= 1;
        (value, core::mem::take(&mut self.last))
    }

    fn plain<T>(&mut self, of: &str, value: Result<T>) -> Result<T> {
        self.last = of.to_owned();
        value
    }

    /// Goes into a named type. Again into one that we are in only if `may_nest`.
    fn enter(
        &mut self,
        name: Name,
        new: impl FnOnce() -> Definition,
        may_nest: bool,
    ) -> Result<()> {
        if self.open.contains(&name) && !may_nest {
            self.circle = true;
            return Err(Refused);
        }
        self.types.entry(name).or_insert_with(new);
        self.open.push(name);
        Ok(())
    }

    fn leave(&mut self, name: Name) {
        self.open.pop();
        self.last = name.0.to_owned();
    }

    fn fields(&mut self, name: Name) -> Option<&mut Vec<Field>> {
        match self.types.get_mut(&name) {
            Some(Definition::Struct(fields)) => Some(fields),
            _ => None,
        }
    }

    fn failures(&self, name: Name, variant: usize) -> usize {
        match self.types.get(&name) {
            Some(Definition::Enum(variants)) => variants[variant].failed,
            _ => 0,
        }
    }

    /// The variant to look into: one that is new, one that may end now, or one that ends.
    fn pick(&self, name: Name) -> Option<usize> {
        let Some(Definition::Enum(variants)) = self.types.get(&name) else { return None };
        let done = || variants.iter().position(|variant| variant.done);
        if self.open.iter().filter(|open| **open == name).count() > 1 {
            return done();
        }
        let new = variants.iter().position(|variant| !variant.done && variant.failed == 0);
        let again = || {
            let left = |n: &usize| !variants[*n].done && variants[*n].failed < TRIES;
            (0..variants.len()).filter(left).min_by_key(|n| variants[*n].failed)
        };
        new.or_else(again).or_else(done)
    }
}

macro_rules! plain {
    ($($function:ident $of:literal $visit:ident $value:expr;)*) => {
        $(fn $function<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            self.plain($of, visitor.$visit($value))
        })*
    };
}

impl<'de> Deserializer<'de> for &mut Probe {
    type Error = Refused;

    // One, where zero may be refused.
    plain! {
        deserialize_bool "bool" visit_bool false;
        deserialize_i8 "i8" visit_i8 1;
        deserialize_i16 "i16" visit_i16 1;
        deserialize_i32 "i32" visit_i32 1;
        deserialize_i64 "i64" visit_i64 1;
        deserialize_i128 "i128" visit_i128 1;
        deserialize_u8 "u8" visit_u8 1;
        deserialize_u16 "u16" visit_u16 1;
        deserialize_u32 "u32" visit_u32 1;
        deserialize_u64 "u64" visit_u64 1;
        deserialize_u128 "u128" visit_u128 1;
        deserialize_f32 "f32" visit_f32 1.0;
        deserialize_f64 "f64" visit_f64 1.0;
        deserialize_char "char" visit_char 'a';
        deserialize_bytes "bytes" visit_bytes &[];
        deserialize_byte_buf "bytes" visit_bytes &[];
        deserialize_identifier "String" visit_str "";
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let text = TEXTS[self.attempt % TEXTS.len()];
        self.plain("String", visitor.visit_str(text))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.plain("()", visitor.visit_unit())
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.plain("any", visitor.visit_unit())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.plain("any", visitor.visit_unit())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.short {
            return self.plain("Option<_>", visitor.visit_none());
        }
        let value = visitor.visit_some(&mut *self);
        self.last = format!("Option<{}>", self.last);
        value
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let left = usize::from(!self.short);
        let mut parts = Parts { probe: self, left, seen: Vec::new() };
        let value = visitor.visit_seq(&mut parts);
        let of = parts.seen.pop().unwrap_or_else(|| UNKNOWN.to_owned());
        self.last = format!("Vec<{of}>");
        value
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        let outermost = self.depth == 0 && self.open.is_empty();
        let (value, seen) = self.tuple(len, visitor);
        self.last = match seen.as_slice() {
            [one, rest @ ..] if len > 4 && rest.iter().all(|other| other == one) => {
                format!("[{one}; {len}]")
            }
            [one] => format!("({one},)"),
            seen => format!("({})", seen.join(", ")),
        };
        if outermost {
            self.parts = Some(seen);
        }
        value
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let left = usize::from(!self.short);
        let mut parts = Parts { probe: self, left, seen: Vec::new() };
        let value = visitor.visit_map(&mut parts);
        let mut seen = parts.seen.into_iter();
        let mut next = || seen.next().unwrap_or_else(|| UNKNOWN.to_owned());
        let (key, of) = (next(), next());
        self.last = format!("Map<{key}, {of}>");
        value
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        self.types.insert((name, &[]), Definition::Unit);
        self.plain(name, visitor.visit_unit())
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        let key: Name = (name, &[]);
        self.last = name.to_owned();
        self.enter(key, || Definition::Tuple([UNKNOWN.to_owned()].into()), false)?;
        let value = visitor.visit_newtype_struct(&mut *self);
        let of = core::mem::take(&mut self.last);
        self.note_tuple(key, [of].into());
        self.leave(key);
        value
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value> {
        let key: Name = (name, &[]);
        self.last = name.to_owned();
        self.enter(key, || Definition::Tuple(Vec::new()), false)?;
        let (value, seen) = self.tuple(len, visitor);
        self.note_tuple(key, seen);
        self.leave(key);
        value
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let key: Name = (name, fields);
        self.last = name.to_owned();
        self.enter(key, || Definition::of_fields(fields), false)?;
        let known = |field: &mut Field| (field.of.is_some(), field.failed);
        let mut order: Vec<_> =
            self.fields(key).into_iter().flatten().map(known).zip(0..).collect();
        order.sort_unstable();
        let order = order.into_iter().map(|(_, n)| n).rev().collect();
        let short = core::mem::take(&mut self.short);
        let value = visitor.visit_map(Fields { probe: &mut *self, key, order, at: 0 });
        self.short = short;
        self.leave(key);
        value
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let key: Name = (name, variants);
        self.last = name.to_owned();
        let nested = self.open.iter().filter(|open| **open == key).count();
        self.enter(key, || Definition::of_variants(variants), nested < 2)?;
        let picked = self.pick(key);
        let short = core::mem::take(&mut self.short);
        let (value, content) = match picked {
            None => {
                self.circle = true;
                (Err(Refused), String::new())
            }
            Some(index) => {
                let mut content = String::new();
                let attempt = self.failures(key, index);
                let before = core::mem::replace(&mut self.attempt, attempt);
                let access =
                    OneVariant { probe: &mut *self, name: variants[index], content: &mut content };
                let value = visitor.visit_enum(access);
                self.attempt = before;
                (value, content)
            }
        };
        if let (Some(Definition::Enum(all)), Some(index)) = (self.types.get_mut(&key), picked) {
            let variant = &mut all[index];
            variant.done |= value.is_ok();
            variant.failed = (variant.failed + usize::from(value.is_err())).min(TRIES);
            // What is known of more of it is longer.
            if content.len() >= variant.content.len() {
                variant.content = content;
            }
        }
        self.short = short;
        self.leave(key);
        value
    }

    fn is_human_readable(&self) -> bool {
        self.readable
    }
}

impl Probe {
    fn tuple<'de, V: Visitor<'de>>(
        &mut self,
        len: usize,
        visitor: V,
    ) -> (Result<V::Value>, Vec<String>) {
        let mut parts = Parts { probe: self, left: len, seen: Vec::new() };
        let value = visitor.visit_seq(&mut parts);
        let mut seen = parts.seen;
        seen.resize(len.min(STEPS), UNKNOWN.to_owned());
        (value, seen)
    }

    /// Notes what a tuple has, unless more was known.
    fn note_tuple(&mut self, name: Name, seen: Vec<String>) {
        let unknown = |parts: &[String]| parts.iter().filter(|part| part.contains(UNKNOWN)).count();
        if let Some(Definition::Tuple(known)) = self.types.get_mut(&name)
            && (known.is_empty() || unknown(&seen) < unknown(known))
        {
            *known = seen;
        }
    }
}

/// The elements of a list or tuple, or the one entry of a map.
struct Parts<'a> {
    probe: &'a mut Probe,
    left: usize,
    seen: Vec<String>,
}

impl Parts<'_> {
    fn take<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        let (value, of) = self.probe.value(seed);
        self.seen.push(of);
        value
    }
}

impl<'de> SeqAccess<'de> for &mut Parts<'_> {
    type Error = Refused;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.take(seed).map(Some)
    }
}

impl<'de> MapAccess<'de> for &mut Parts<'_> {
    type Error = Refused;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.take(seed).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        self.take(seed)
    }
}

/// The fields of a struct; those that are not known come first.
struct Fields<'a> {
    probe: &'a mut Probe,
    key: Name,
    /// Which are left, from the last.
    order: Vec<usize>,
    at: usize,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Refused;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let Some(at) = self.order.pop() else { return Ok(None) };
        self.at = at;
        seed.deserialize(self.key.1[at].into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        let (key, at) = (self.key, self.at);
        let field = self.probe.fields(key).map(|fields| (fields[at].circular, fields[at].failed));
        let (short, attempt) = field.unwrap_or_default();
        let before = core::mem::replace(&mut self.probe.attempt, attempt);
        self.probe.short = short;
        let (value, of) = self.probe.value(seed);
        (self.probe.short, self.probe.attempt) = (false, before);
        let circle = core::mem::take(&mut self.probe.circle) && value.is_err();
        if let Some(fields) = self.probe.fields(key) {
            fields[at].of.get_or_insert(of);
            fields[at].circular |= circle;
            fields[at].failed += usize::from(value.is_err());
        }
        value
    }
}

/// The variant that was picked.
struct OneVariant<'a> {
    probe: &'a mut Probe,
    name: &'static str,
    /// What is in it, after its name.
    content: &'a mut String,
}

impl<'de> EnumAccess<'de> for OneVariant<'_> {
    type Error = Refused;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self)> {
        seed.deserialize(self.name.into_deserializer()).map(|value| (value, self))
    }
}

impl<'de> VariantAccess<'de> for OneVariant<'_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value> {
        let (value, of) = self.probe.value(seed);
        *self.content = format!("({of})");
        value
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        let (value, seen) = self.probe.tuple(len, visitor);
        *self.content = format!("({})", seen.join(", "));
        value
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let (value, seen) = self.probe.tuple(fields.len(), visitor);
        let seen = fields.iter().zip(seen).map(|(name, of)| format!("{name}: {of}"));
        *self.content = format!(" {}", braces(&seen.collect::<Vec<_>>()));
        value
    }
}
