//! JSON values with the names of the fields that lead to them, so that errors can say where.

use std::time::Duration;

use serde_json::{Map, Value};

use super::ServiceConfigError;

/// A value and where it stands.
pub(super) struct Field<'a> {
    pub(super) value: &'a Value,
    pub(super) path: String,
}

/// An object of which each field is asked for; the others are refused.
pub(super) struct Object<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Field<'a> {
    pub(super) fn wrong(&self, what: &str) -> ServiceConfigError {
        ServiceConfigError { field: self.path.clone(), what: what.to_owned() }
    }

    pub(super) fn object(&self, known: &[&str]) -> Result<Object<'a>, ServiceConfigError> {
        let map = self.value.as_object().ok_or_else(|| self.wrong("an object is expected"))?;
        let object = Object { map, path: self.path.clone() };
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(object.at(key, &Value::Null).wrong("this field is not known")),
            None => Ok(object),
        }
    }

    pub(super) fn list(&self) -> Result<Vec<Field<'a>>, ServiceConfigError> {
        let list = self.value.as_array().ok_or_else(|| self.wrong("a list is expected"))?;
        let at = |(index, value)| Field { value, path: format!("{}[{index}]", self.path) };
        Ok(list.iter().enumerate().map(at).collect())
    }

    pub(super) fn text(&self) -> Result<&'a str, ServiceConfigError> {
        self.value.as_str().ok_or_else(|| self.wrong("a string is expected"))
    }

    pub(super) fn flag(&self) -> Result<bool, ServiceConfigError> {
        self.value.as_bool().ok_or_else(|| self.wrong("true or false is expected"))
    }

    /// A whole number within these bounds, also as 2.0.
    pub(super) fn number(&self, least: u32, most: u32) -> Result<u32, ServiceConfigError> {
        let number = self.value.as_f64().filter(|number| {
            number.fract() == 0.0 && (f64::from(least)..=f64::from(most)).contains(number)
        });
        number.map(|number| number as u32).ok_or_else(|| {
            self.wrong(&format!("a whole number from {least} to {most} is expected"))
        })
    }

    /// A number within these bounds, in thousandths.
    pub(super) fn thousandths(&self, least: f64, most: f64) -> Result<u32, ServiceConfigError> {
        let number = self.value.as_f64().filter(|number| (least..=most).contains(number));
        number
            .map(|number| (number * 1_000.0).round() as u32)
            .ok_or_else(|| self.wrong(&format!("a number from {least} to {most} is expected")))
    }

    /// As protobuf writes durations in JSON: "1.5s".
    pub(super) fn duration(&self) -> Result<Duration, ServiceConfigError> {
        let wrong = || self.wrong("a duration like \"1.5s\" is expected");
        let text = self.value.as_str().and_then(|text| text.strip_suffix('s')).ok_or_else(wrong)?;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
            return Err(wrong());
        }
        // More than ten thousand years are no duration of protobuf.
        let seconds = whole.parse().ok().filter(|s| *s <= 315_576_000_000_u64).ok_or_else(wrong)?;
        let nanos = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
        Ok(Duration::new(seconds, nanos))
    }

    pub(super) fn positive_duration(&self) -> Result<Duration, ServiceConfigError> {
        let duration = self.duration()?;
        if duration.is_zero() {
            Err(self.wrong("it has to be longer than 0 s"))
        } else {
            Ok(duration)
        }
    }
}

impl<'a> Object<'a> {
    fn at(&self, name: &str, value: &'a Value) -> Field<'a> {
        let path = match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        Field { value, path }
    }

    /// A field that may be missing; null counts as missing.
    pub(super) fn get(&self, name: &str) -> Option<Field<'a>> {
        let value = self.map.get(name).filter(|value| !value.is_null())?;
        Some(self.at(name, value))
    }

    pub(super) fn need(&self, name: &str) -> Result<Field<'a>, ServiceConfigError> {
        const MISSING: &Value = &Value::Null;
        self.get(name).ok_or_else(|| self.at(name, MISSING).wrong("this field is missing"))
    }

    /// A field that replaces a default.
    pub(super) fn set<T>(
        &self,
        name: &str,
        to: &mut T,
        read: impl FnOnce(&Field<'a>) -> Result<T, ServiceConfigError>,
    ) -> Result<(), ServiceConfigError> {
        if let Some(field) = self.get(name) {
            *to = read(&field)?;
        }
        Ok(())
    }

    /// The only field of an object that is a choice.
    pub(super) fn choice(field: &Field<'a>) -> Result<(&'a str, Field<'a>), ServiceConfigError> {
        let map = field.value.as_object().filter(|map| map.len() == 1);
        let map = map.ok_or_else(|| field.wrong("an object with one policy is expected"))?;
        let object = Object { map, path: field.path.clone() };
        let (name, value) = map.iter().next().expect("it has one field");
        Ok((name, object.at(name, value)))
    }
}
