//! Files and their errors, which a program prints in one line.

use std::fs;
use std::path::Path;

use serde_json::Value as Json;

pub type Error = Box<dyn std::error::Error>;
pub type Result<T> = std::result::Result<T, Error>;

const MOST_VALUES: usize = 1 << 40; // of an array; more is a damaged file

/// Return the content of a file; `expected` says in the error what it should have been.
pub fn read_file(path: &Path, expected: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| format!("expected {expected}, cannot read {}: {error}", path.display()).into())
}

/// Return the content of a JSON file.
pub fn read_json(path: &Path, expected: &str) -> Result<Json> {
    let content = read_file(path, expected)?;
    let damage = |error| format!("expected {expected}, found no JSON in {}: {error}", path.display());
    Ok(serde_json::from_slice(&content).map_err(damage)?)
}

/// Return a field that is text.
pub fn get_text(object: &Json, name: &str) -> Result<String> {
    let text = object[name].as_str().ok_or_else(|| format!("expected text in the field {name} of a JSON file"))?;
    Ok(text.to_owned())
}

/// Return a field that is a list.
pub fn get_list(object: &Json, name: &str) -> Result<Vec<Json>> {
    let list =
        object[name].as_array().ok_or_else(|| format!("expected a list in the field {name} of a JSON file"))?;
    Ok(list.clone())
}

/// Return a whole number from 0.
pub fn get_count(number: &Json) -> Result<usize> {
    let count = number.as_u64().filter(|&count| count < MOST_VALUES as u64);
    Ok(count.ok_or_else(|| format!("expected a whole number in a JSON file, found {number}"))? as usize)
}

/// Return the number of values of a shape.
pub fn count_values(shape: &[usize]) -> Result<usize> {
    let count = shape.iter().try_fold(1usize, |product, &length| product.checked_mul(length));
    Ok(count.filter(|&count| count < MOST_VALUES).ok_or("expected a smaller shape in a JSON file; it is damaged")?)
}
