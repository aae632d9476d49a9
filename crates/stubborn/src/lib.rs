//! stubborn
