//! From the files of photos to the pixels that a step reads.

use std::path::Path;

use image::{ImageReader, RgbImage, imageops};
use serde_json::Value as Json;

use crate::files::{Result, get_count, get_list, get_text};
use crate::resize::resize;

const MOST_PIXELS: u64 = 178_956_970; // of a photo

/// Read a photo as RGB. Transparency, colour profile and orientation are ignored, as fozo ignores them.
pub fn read_photo(path: &Path) -> Result<RgbImage> {
    let damage = |error: String| format!("expected an image, found {}: {error}", path.display());
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
    let photo = reader.map_err(|error| damage(error.to_string()))?.decode();
    Ok(photo.map_err(|error| damage(error.to_string()))?.into_rgb8())
}

/// Return an image, resized and cropped as `preprocessing` in step.json says.
pub fn prepare(image: &RgbImage, preprocessing: &Json) -> Result<RgbImage> {
    let size = get_list(preprocessing, "size")?;
    let [height, width] = size.as_slice() else { return Err("expected two lengths in size of step.json".into()) };
    let (height, width) = (get_count(height)? as u32, get_count(width)? as u32);
    let frame = get_count(&preprocessing["frame"])? as u32; // of black, around the image
    let mut length = get_count(&preprocessing["resize"])? as u32;
    if 2 * frame >= height.min(width) || length == 0 {
        return Err("expected sizes from 1 in preprocessing of step.json; the file is damaged".into());
    }
    if frame > 0 {
        let shorter = f64::from(height.min(width));
        length = ((f64::from(length) * (shorter - 2.0 * f64::from(frame)) / shorter).round_ties_even() as u32).max(1);
    }
    let mut target = (u64::from(length), u64::from(length));
    if get_text(preprocessing, "crop_mode")? == "center" {
        // The shorter side gets this length, the longer one is rounded down.
        let shorter = u64::from(image.width().min(image.height()));
        target = (target.0 * u64::from(image.width()) / shorter, target.1 * u64::from(image.height()) / shorter);
    }
    if target.0 * target.1 > MOST_PIXELS {
        return Err(format!("expected ordinary proportions, found an image that would be {target:?} pixels").into());
    }
    let resized = resize(image, target.0 as u32, target.1 as u32, &get_text(preprocessing, "interpolation")?)?;
    Ok(crop_middle(&crop_middle(&resized, width - 2 * frame, height - 2 * frame), width, height))
}

/// Return the middle of an image; where the image is smaller, the rest is black.
fn crop_middle(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (left, top) = (find_start(image.width(), width), find_start(image.height(), height));
    let mut result = RgbImage::new(width, height);
    imageops::replace(&mut result, image, -left, -top);
    result
}

/// Return where the middle begins; it is negative if there is less than wanted.
fn find_start(length: u32, wanted: u32) -> i64 {
    if length < wanted {
        return -i64::from((wanted - length) / 2);
    }
    (f64::from(length - wanted) / 2.0).round_ties_even() as i64
}
