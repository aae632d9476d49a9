//! Reads the postcard format within bounds.

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::Error;

/// How deep values may be nested: the reader calls itself for each.
const DEPTH: u32 = 128;

/// How many values without a byte of their own a message may have beyond its bytes: a `Vec<()>` says its
/// length and nothing more.
const EMPTY: usize = 1_024;

/// What of a message is still to be read.
pub(super) struct Reader<'de> {
    rest: &'de [u8],
    depth: u32,
    empty: usize,
}

impl<'de> Reader<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Self { rest: bytes, depth: DEPTH, empty: EMPTY }
    }

    fn take(&mut self, length: usize) -> Result<&'de [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Error::End)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Error::End)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A number in groups of seven bits, the lowest first.
    fn number<N: TryFrom<u128>>(&mut self) -> Result<N, Error> {
        let mut number = 0_u128;
        let mut shift = 0;
        loop {
            let [byte] = self.array()?;
            let group = u128::from(byte & 0x7f);
            if shift >= u128::BITS || (group << shift) >> shift != group {
                return Err(Error::Number);
            }
            number |= group << shift;
            if byte & 0x80 == 0 {
                return N::try_from(number).map_err(|_| Error::Number);
            }
            shift += 7;
        }
    }

    /// A number with its sign in the lowest bit.
    fn signed<N: TryFrom<i128>>(&mut self) -> Result<N, Error> {
        let number: u128 = self.number()?;
        let number = (number >> 1) as i128 ^ -((number & 1) as i128);
        N::try_from(number).map_err(|_| Error::Number)
    }

    fn text(&mut self) -> Result<&'de str, Error> {
        let length = self.number()?;
        core::str::from_utf8(self.take(length)?).map_err(|_| Error::Text)
    }

    fn tag(&mut self) -> Result<bool, Error> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Error::Tag),
        }
    }

    /// How many elements follow.
    fn length(&mut self) -> Result<usize, Error> {
        let length: usize = self.number()?;
        let beyond = length.saturating_sub(self.rest.len());
        self.empty = self.empty.checked_sub(beyond).ok_or(Error::Long)?;
        Ok(length)
    }

    /// Reads what is inside a value.
    fn inside<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.depth = self.depth.checked_sub(1).ok_or(Error::Deep)?;
        let value = read(self);
        self.depth += 1;
        value
    }

    fn elements<V: Visitor<'de>>(&mut self, left: usize, visitor: V) -> Result<V::Value, Error> {
        self.inside(|reader| visitor.visit_seq(Elements { reader, left }))
    }
}

macro_rules! plain {
    ($($method:ident $visit:ident $read:expr;)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(($read)(self)?)
        }
    )* };
}

macro_rules! untyped {
    ($($method:ident)*) => { $(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::Untyped)
        }
    )* };
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    plain! {
        deserialize_bool visit_bool Reader::tag;
        deserialize_i8 visit_i8 |r: &mut Reader<'de>| Ok::<_, Error>(i8::from_le_bytes(r.array()?));
        deserialize_i16 visit_i16 Reader::signed::<i16>;
        deserialize_i32 visit_i32 Reader::signed::<i32>;
        deserialize_i64 visit_i64 Reader::signed::<i64>;
        deserialize_i128 visit_i128 Reader::signed::<i128>;
        deserialize_u8 visit_u8 |r: &mut Reader<'de>| Ok::<_, Error>(u8::from_le_bytes(r.array()?));
        deserialize_u16 visit_u16 Reader::number::<u16>;
        deserialize_u32 visit_u32 Reader::number::<u32>;
        deserialize_u64 visit_u64 Reader::number::<u64>;
        deserialize_u128 visit_u128 Reader::number::<u128>;
        deserialize_f32 visit_f32 |r: &mut Reader<'de>| Ok::<_, Error>(f32::from_le_bytes(r.array()?));
        deserialize_f64 visit_f64 |r: &mut Reader<'de>| Ok::<_, Error>(f64::from_le_bytes(r.array()?));
        deserialize_str visit_borrowed_str Reader::text;
        deserialize_string visit_borrowed_str Reader::text;
    }

    untyped! { deserialize_any deserialize_identifier deserialize_ignored_any }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut chars = self.text()?.chars();
        match (chars.next(), chars.next()) {
            (Some(char), None) => visitor.visit_char(char),
            _ => Err(Error::Text),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let length = self.number()?;
        visitor.visit_borrowed_bytes(self.take(length)?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        // Whoever wrote the message did not know it.
        if self.rest.is_empty() || !self.tag()? {
            return visitor.visit_none();
        }
        self.inside(|reader| visitor.visit_some(reader))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.inside(|reader| visitor.visit_newtype_struct(reader))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let length = self.length()?;
        self.elements(length, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.elements(length, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.elements(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.length()?;
        self.inside(|reader| visitor.visit_map(Elements { reader, left }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.elements(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.inside(|reader| visitor.visit_enum(reader))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of a sequence or a map.
struct Elements<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.reader.rest.len()))
    }
}

impl<'de> MapAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        SeqAccess::size_hint(self)
    }
}

impl<'de> EnumAccess<'de> for &mut Reader<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let variant: u32 = self.number()?;
        Ok((seed.deserialize(variant.into_deserializer())?, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Reader<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        self.elements(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.elements(fields.len(), visitor)
    }
}
