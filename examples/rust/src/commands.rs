//! `adapt`, `digits` and `prepare`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::files::{Result, count_values, get_count, get_list, get_text, read_file, read_json};
use crate::photo;
use crate::step::Step;

/// Print name, class and mean entropy of every photo of a folder, batch by batch.
pub fn adapt(mut step: Step, folder: &Path, batch: usize, file: Option<&Path>) -> Result<()> {
    let photos = list_photos(folder)?;
    let mut state = match file {
        Some(path) if path.exists() => step.load_state(path)?,
        _ => step.create_state()?,
    };
    if let Some(path) = file {
        step.save_state(&state, path)?; // what cannot be stored fails now, not after the stream
    }
    let (mut entropy, mut seen, mut unlearnt) = (0.0, 0, 0);
    for paths in photos.chunks(batch) {
        let images = paths.iter().map(|path| read_pixels(&step, path)).collect::<Result<Vec<_>>>()?;
        let (prediction, next_state) = step.run(step.fill_batch(images.concat()), &state)?;
        state = next_state;
        seen += paths.len();
        entropy += (f64::from(prediction.entropy) - entropy) * paths.len() as f64 / seen as f64;
        unlearnt += if prediction.valid { 0 } else { paths.len() };
        for (path, class) in paths.iter().zip(prediction.find_classes()) {
            let name = path.file_name().unwrap_or_default().display();
            println!("{name}\t{}\t{entropy:.4}", name_class(&step.description, class));
        }
    }
    if unlearnt > 0 {
        let reason = "the state is of another step, or not finite; start again from the first one";
        return Err(format!("nothing was learnt from {unlearnt} of {seen} photos: {reason}").into());
    }
    file.map_or(Ok(()), |path| step.save_state(&state, path))
}

/// Print the accuracy on corrupted digits that `tools/digit_stream.py` has written.
pub fn stream_digits(mut step: Step, folder: &Path, batch: usize) -> Result<()> {
    let index = read_json(&folder.join("digits.json"), "a folder of digit_stream.py")?;
    let shape = get_list(&index["images"], "shape")?.iter().skip(1).map(get_count).collect::<Result<Vec<_>>>()?;
    if shape != [step.height, step.width, 3] {
        let (height, width) = (step.height, step.width);
        let found = shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        return Err(format!("expected images of {height}x{width}x3, found {found} in {}", folder.display()).into());
    }
    let (images, labels) = (read_array(folder, &index, "images")?, read_array(folder, &index, "labels")?);
    if images.len() != labels.len() * step.image_length() || labels.is_empty() {
        return Err(format!("expected a label for each image in {}", folder.display()).into());
    }
    let mut state = step.create_state()?;
    let (mut correct, mut entropy, mut seen) = (0, 0.0, 0);
    for (pixels, truth) in images.chunks(batch * step.image_length()).zip(labels.chunks(batch)) {
        let (prediction, next_state) = step.run(step.fill_batch(pixels.to_vec()), &state)?;
        if !prediction.valid {
            return Err(format!("nothing was learnt from the batch at digit {seen}: the step is not valid").into());
        }
        state = next_state;
        seen += truth.len();
        entropy += (f64::from(prediction.entropy) - entropy) * truth.len() as f64 / seen as f64;
        let classes = prediction.find_classes();
        correct += truth.iter().zip(classes).filter(|&(&label, class)| usize::from(label) == class).count();
    }
    let accuracy = 100.0 * correct as f64 / seen as f64;
    println!("accuracy {accuracy:.2} % of {seen} digits, mean entropy {entropy:.4}");
    Ok(())
}

/// Write a photo as the network sees it, as a PPM file.
pub fn prepare(step: &Step, path: &Path) -> Result<()> {
    let pixels = read_pixels(step, path)?;
    let mut output = io::stdout().lock();
    write!(output, "P6\n{} {}\n255\n", step.width, step.height)?;
    Ok(output.write_all(&pixels)?)
}

fn list_photos(folder: &Path) -> Result<Vec<PathBuf>> {
    let failure = |error| format!("expected a folder of photos, cannot open {}: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failure)? {
        let entry = entry.map_err(failure)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    if paths.is_empty() {
        Err(format!("expected photos, found none in {}", folder.display()).into())
    } else {
        Ok(paths)
    }
}

fn read_pixels(step: &Step, path: &Path) -> Result<Vec<u8>> {
    let prepared = photo::prepare(&photo::read_photo(path)?, &step.description["preprocessing"])?;
    if prepared.len() != step.image_length() {
        return Err("expected equal sizes in preprocessing and images of step.json; the file is damaged".into());
    }
    Ok(prepared.into_raw())
}

/// Return the name of a class, or its number where there are no names.
fn name_class(description: &Json, class: usize) -> String {
    description["classes"][class].as_str().map_or_else(|| class.to_string(), str::to_owned)
}

/// Return the bytes of an array of digits.json.
fn read_array(folder: &Path, index: &Json, name: &str) -> Result<Vec<u8>> {
    let shape = get_list(&index[name], "shape")?.iter().map(get_count).collect::<Result<Vec<_>>>()?;
    let path = folder.join(get_text(&index[name], "file")?);
    let content = read_file(&path, "an array of digits")?;
    let (length, found) = (count_values(&shape)?, content.len());
    if found != length {
        return Err(format!("expected {length} bytes in {}, found {found}; it is damaged", path.display()).into());
    }
    Ok(content)
}
