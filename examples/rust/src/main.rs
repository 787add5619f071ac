//! A compiled step in Rust: see README.md.

mod commands;
mod files;
mod photo;
mod resize;
mod step;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use files::Result;
use step::Step;

const USAGES: [(&str, &str); 4] = [
    ("adapt", "STEP PHOTOS [BATCH] [--state FILE] [--threads N]"),
    ("digits", "STEP DIGITS [BATCH] [--threads N]"),
    ("verify", "STEP [--tolerance SHARE]"),
    ("prepare", "STEP PHOTO > PREPARED.ppm"),
];

/// What the command line asks for.
struct Arguments {
    words: Vec<String>,
    state: Option<PathBuf>,
    threads: Option<usize>,
    tolerance: f64,
}

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {}", error.to_string().lines().next().unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

fn run(mut words: Vec<String>) -> Result<()> {
    let command = if words.is_empty() { String::new() } else { words.remove(0) };
    let Some((_, usage)) = USAGES.iter().find(|(name, _)| *name == command) else {
        return Err(format!("expected a command: adapt, digits, verify or prepare; found {command:?}").into());
    };
    let found = parse(&words, usage).map_err(|error| format!("{error}; expected: fozo-step {command} {usage}"))?;
    let folder = Path::new(&found.words[0]);
    if command == "verify" {
        return verify::verify(folder, found.tolerance);
    }
    let step = Step::open(folder, found.threads)?;
    let path = Path::new(&found.words[1]);
    if command == "prepare" {
        return commands::prepare(&step, path);
    }
    let batch = step.choose_batch(found.words.get(2).map(|text| parse_count(text, "BATCH")).transpose()?)?;
    match command.as_str() {
        "adapt" => commands::adapt(step, path, batch, found.state.as_deref()),
        _ => commands::stream_digits(step, path, batch),
    }
}

/// Sort the words of a command line; a usage says how many there are, and which options.
fn parse(words: &[String], usage: &str) -> Result<Arguments> {
    let mut found = Arguments { words: Vec::new(), state: None, threads: None, tolerance: 1e-4 };
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if !word.starts_with("--") {
            found.words.push(word.clone());
            continue;
        }
        let value = rest.next().map_or("nothing", String::as_str);
        match word.as_str() {
            "--state" if usage.contains(word) => found.state = Some(PathBuf::from(value)),
            "--threads" if usage.contains(word) => found.threads = Some(parse_count(value, word)?),
            "--tolerance" if usage.contains(word) => found.tolerance = parse_share(value, word)?,
            _ => return Err(format!("found {word}").into()),
        }
    }
    let least = usage.split(' ').take_while(|word| word.chars().all(char::is_uppercase)).count();
    let most = least + usize::from(usage.contains("[BATCH]"));
    if (least..=most).contains(&found.words.len()) {
        return Ok(found);
    }
    Err(format!("found {} arguments", found.words.len()).into())
}

fn parse_count(text: &str, name: &str) -> Result<usize> {
    let count = text.parse().ok().filter(|count| (1..=1_000_000).contains(count));
    Ok(count.ok_or_else(|| format!("expected a number from 1 to 1000000 for {name}, found {text}"))?)
}

fn parse_share(text: &str, name: &str) -> Result<f64> {
    let share = text.parse().ok().filter(|share| (0.0..1.0).contains(share));
    Ok(share.ok_or_else(|| format!("expected a number from 0 to 1 for {name}, found {text}"))?)
}
