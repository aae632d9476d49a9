//! The service through which a server describes the others, and its client; generated from
//! `stubborn/reflection.proto`.

pub use crate::generated::stubborn::v1::*;
