//! `verify`: compare the steps of this machine with those that were stored at compilation.

use std::path::Path;

use serde_json::Value as Json;

use crate::files::{Result, count_values, get_count, get_list, get_text, read_file, read_json};
use crate::step::{State, Step, get_value_size, to_bytes};

/// An array of vectors.json, and how far the values of this machine are from it.
struct Vector {
    name: String,
    kind: String,
    content: Vec<u8>,
    rows: usize,
    /// Bytes of a step.
    row_length: usize,
    /// Value of any step, without its sign.
    largest: f64,
    /// The largest, as a share of that; infinite if whole numbers differ.
    difference: f64,
}

/// Repeat the stored steps, print how far the results are from the stored ones, and fail if it is too far.
pub fn verify(folder: &Path, tolerance: f64) -> Result<()> {
    let mut step = Step::open(folder, Some(1))?; // as at compilation: more threads add in another order
    let index = read_json(&folder.join("vectors.json"), "the index of the vectors")?;
    let images = read_vector(folder, &index, &step.names.images)?;
    let mut logits = read_vector(folder, &index, &step.names.logits)?;
    let names = step.names.state.iter();
    let mut vectors = names.map(|name| read_vector(folder, &index, &name.input)).collect::<Result<Vec<_>>>()?;
    let mut state = step.create_state()?;
    compare_state(&mut vectors, 0, &state)?;
    for row in 0..images.rows {
        let (prediction, next_state) = step.run(images.get_row(row)?.to_vec(), &state)?;
        if !prediction.valid {
            return Err(format!("step {row} is not valid").into());
        }
        let bytes: Vec<u8> = prediction.logits.iter().flat_map(|number| number.to_le_bytes()).collect();
        logits.compare(row, &bytes)?;
        compare_state(&mut vectors, row + 1, &next_state)?;
        state = next_state;
    }
    vectors.push(logits);
    report(&vectors, images.rows, tolerance)
}

impl Vector {
    fn get_row(&self, row: usize) -> Result<&[u8]> {
        let bytes = self.content.get(row * self.row_length..(row + 1) * self.row_length);
        Ok(bytes.ok_or_else(|| format!("expected more steps of {} in vectors.json; it is damaged", self.name))?)
    }

    /// Keep the largest difference of a row to the values of this machine.
    fn compare(&mut self, row: usize, values: &[u8]) -> Result<()> {
        let expected = self.get_row(row)?;
        if values.len() != expected.len() {
            return Err(format!("expected as many values of {} as in vectors.json", self.name).into());
        }
        let mut largest = if values == expected { 0.0 } else { f64::INFINITY };
        if self.kind.starts_with("float") {
            let scale = if self.largest > 0.0 { self.largest } else { 1.0 };
            let pairs = decode(&self.kind, expected).zip(decode(&self.kind, values));
            let differences = pairs.map(|(stored, value)| (stored - value).abs() / scale);
            largest = differences.fold(0.0, |most, each| if each <= most { most } else { each }); // takes NaN, too
        }
        if largest.is_nan() || largest > self.difference {
            self.difference = largest;
        }
        Ok(())
    }
}

fn compare_state(vectors: &mut [Vector], row: usize, state: &State) -> Result<()> {
    for (vector, value) in vectors.iter_mut().zip(state) {
        vector.compare(row, &to_bytes(value)?)?;
    }
    Ok(())
}

/// Return the numbers of little-endian bytes of float32 or float64.
fn decode<'a>(kind: &str, bytes: &'a [u8]) -> Box<dyn Iterator<Item = f64> + 'a> {
    if kind == "float32" {
        let singles = bytes.chunks_exact(4).map(|number| f32::from_le_bytes(number.try_into().unwrap()));
        return Box::new(singles.map(f64::from));
    }
    Box::new(bytes.chunks_exact(8).map(|number| f64::from_le_bytes(number.try_into().unwrap())))
}

fn read_vector(folder: &Path, index: &Json, name: &str) -> Result<Vector> {
    let entry = &index[name];
    let shape = get_list(entry, "shape").map_err(|_| format!("expected {name} in vectors.json; it is damaged"))?;
    let shape = shape.iter().map(get_count).collect::<Result<Vec<_>>>()?;
    let kind = get_text(entry, "type")?;
    let path = folder.join(get_text(entry, "file")?);
    let content = read_file(&path, "vectors")?;
    let length = count_values(&shape)? * get_value_size(&kind)?;
    if content.len() != length || shape.is_empty() || shape[0] == 0 {
        let found = content.len();
        return Err(format!("expected {length} bytes in {}, found {found}; it is damaged", path.display()).into());
    }
    let largest =
        if kind.starts_with("float") { decode(&kind, &content).map(f64::abs).fold(0.0, f64::max) } else { 1.0 };
    let row_length = length / shape[0];
    Ok(Vector { name: name.to_owned(), kind, content, rows: shape[0], row_length, largest, difference: 0.0 })
}

fn report(vectors: &[Vector], steps: usize, tolerance: f64) -> Result<()> {
    for vector in vectors {
        println!("{}\t{:.1e}", vector.name, vector.difference);
    }
    let failures: Vec<&Vector> = vectors.iter().filter(|vector| !(vector.difference <= tolerance)).collect();
    if let Some(first) = failures.first() {
        return Err(format!(
            "expected differences of at most {tolerance:e} within {steps} steps, found {:.1e} in {} and in {} more",
            first.difference,
            first.name,
            failures.len() - 1
        )
        .into());
    }
    let largest = vectors.iter().map(|vector| vector.difference).fold(0.0, f64::max);
    println!("{steps} steps are those of the compilation: the largest difference is {largest:.1e}");
    Ok(())
}
