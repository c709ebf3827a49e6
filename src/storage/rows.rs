//! From columns to domain types: what does not parse is damage, and says where.

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::StoreError;

/// Parses one text column into a domain type.
pub(super) fn field<T>(place: &'static str, text: String) -> Result<T, StoreError>
where
    T: TryFrom<String>,
    T::Error: Display,
{
    T::try_from(text).map_err(|error| StoreError::Corrupt {
        place: place.to_owned(),
        detail: error.to_string(),
    })
}

/// Parses one JSON column.
pub(super) fn json<T: DeserializeOwned>(place: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt {
        place: place.to_owned(),
        detail: error.to_string(),
    })
}

/// Writes one JSON column.
pub(super) fn to_json<T: Serialize>(place: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt {
        place: place.to_owned(),
        detail: error.to_string(),
    })
}

/// Turns every row, or says which one is damaged.
pub(super) fn all<R, T>(rows: Vec<R>) -> Result<Vec<T>, StoreError>
where
    T: TryFrom<R, Error = StoreError>,
{
    rows.into_iter().map(T::try_from).collect()
}
