//! Resizing as Pillow does it: filters widen with the reduction, in whole numbers, one axis after the other.

use std::f64::consts::PI;

use image::RgbImage;

use crate::files::Result;

const BITS: i32 = 22; // of a weight behind the point

/// What a pixel of the result sees along one axis: the first pixel of the source, and weights, of which 2^BITS is one.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

/// Resize an image with one of Pillow's filters; the result is the same to the bit.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: &str) -> Result<RgbImage> {
    let lost_rows = i64::from(image.height()) - i64::from(height);
    let lost_columns = i64::from(image.width()) - i64::from(width);
    // The order matters to the last bits.
    if lost_rows > 0 && lost_rows > 2 * lost_columns {
        return resize_rows(&resize_columns(image, height, filter)?, width, filter);
    }
    resize_columns(&resize_rows(image, width, filter)?, height, filter)
}

fn resize_rows(image: &RgbImage, width: u32, filter: &str) -> Result<RgbImage> {
    let (row, new_row) = (image.width() as usize * 3, width as usize * 3);
    let mut result = RgbImage::new(width, image.height());
    let target: &mut [u8] = &mut result;
    for (x, window) in find_windows(image.width(), width, filter)?.iter().enumerate() {
        for y in 0..image.height() as usize {
            apply(window, &image.as_raw()[y * row..], 3, &mut target[y * new_row + x * 3..]);
        }
    }
    Ok(result)
}

fn resize_columns(image: &RgbImage, height: u32, filter: &str) -> Result<RgbImage> {
    let row = image.width() as usize * 3;
    let mut result = RgbImage::new(image.width(), height);
    let target: &mut [u8] = &mut result;
    for (y, window) in find_windows(image.height(), height, filter)?.iter().enumerate() {
        for x in (0..row).step_by(3) {
            apply(window, &image.as_raw()[x..], row, &mut target[y * row + x..]);
        }
    }
    Ok(result)
}

/// Apply a window to the channels of one pixel; neighbours are `stride` bytes apart.
fn apply(window: &Window, source: &[u8], stride: usize, target: &mut [u8]) {
    for channel in 0..3 {
        let pixels = source[window.first * stride + channel..].iter().step_by(stride);
        let sum: i32 = window.weights.iter().zip(pixels).map(|(weight, &pixel)| weight * i32::from(pixel)).sum();
        target[channel] = ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8;
    }
}

fn find_windows(from: u32, to: u32, filter: &str) -> Result<Vec<Window>> {
    if filter == "nearest" {
        return Ok(pick_nearest(from, to));
    }
    let (support, evaluate) = find_filter(filter)?;
    let (from, scale) = (f64::from(from), f64::from(from) / f64::from(to));
    let stretch = scale.max(1.0);
    let window = |index: u32| {
        let center = (f64::from(index) + 0.5) * scale;
        let first = (center - support * stretch + 0.5).max(0.0) as usize;
        let end = (center + support * stretch + 0.5).min(from) as usize;
        let values: Vec<f64> = (first..end).map(|i| evaluate((i as f64 - center + 0.5) / stretch)).collect();
        let sum: f64 = values.iter().sum();
        let weights = values.iter().map(|value| (value / sum * f64::from(1 << BITS)).round() as i32);
        Window { first, weights: weights.collect() }
    };
    Ok((0..to).map(window).collect())
}

fn pick_nearest(from: u32, to: u32) -> Vec<Window> {
    let scale = f64::from(from) / f64::from(to);
    let positions = std::iter::successors(Some(scale / 2.0), |at| Some(at + scale)); // a sum, as in Pillow
    let pick = |at: f64| Window { first: (at as usize).min(from as usize - 1), weights: vec![1 << BITS] };
    positions.take(to as usize).map(pick).collect()
}

type Filter = fn(f64) -> f64;

/// Return half the width of a filter in pixels, and its value at a distance.
fn find_filter(name: &str) -> Result<(f64, Filter)> {
    Ok(match name {
        "box" => (0.5, |x| if x > -0.5 && x <= 0.5 { 1.0 } else { 0.0 }),
        "bilinear" => (1.0, |x| (1.0 - x.abs()).max(0.0)),
        "hamming" => (1.0, |x| if x.abs() < 1.0 { sinc(x) * (0.54 + 0.46 * (x * PI).cos()) } else { 0.0 }),
        "bicubic" => (2.0, cubic),
        "lanczos" => (3.0, |x| if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }),
        other => return Err(format!("expected an interpolation of Pillow, found {other}").into()),
    })
}

fn cubic(x: f64) -> f64 {
    match x.abs() {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}
