//! A compiled step and its state. All that adaptation needs is here.

use std::fs;
use std::path::Path;

use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorElementType, ValueType};
use serde_json::Value as Json;

use crate::files::{Result, count_values, get_count, get_list, get_text, read_file, read_json};

const SCHEMA: u64 = 1;

/// A folder that `fozo compile` has written, opened.
pub struct Step {
    pub description: Json,
    pub fixed_batch: Option<usize>,
    pub height: usize,
    pub width: usize,
    pub names: Names,
    init: Session,
    session: Session,
}

/// Names of inputs and outputs.
pub struct Names {
    pub images: String,
    pub logits: String,
    pub state: Vec<StateName>,
    valid: String,
    entropy: String,
}

/// A value of the state: its names before and after a step, type and shape.
pub struct StateName {
    pub input: String,
    output: String,
    kind: String,
    shape: Vec<usize>,
}

/// The values of a state, in the order of `step.json`.
pub type State = Vec<DynValue>;

/// What a step says about a batch.
pub struct Prediction {
    /// `[N, K]`, row by row.
    pub logits: Vec<f32>,
    pub classes: usize,
    /// Mean of the batch.
    pub entropy: f32,
    /// If false, nothing was learnt, and the state has stayed as it was.
    pub valid: bool,
}

impl Step {
    /// Open a step. Without `threads`, a forward takes one per core.
    pub fn open(folder: &Path, threads: Option<usize>) -> Result<Step> {
        let path = folder.join("step.json");
        let description = read_json(&path, "a folder that `fozo compile` has written")?;
        if description["schema"].as_u64() != Some(SCHEMA) {
            let found = &description["schema"];
            return Err(
                format!("expected schema {SCHEMA} in {}, found {found}; compile it again", path.display()).into()
            );
        }
        let shape = get_list(&description["images"], "shape")?;
        let [batch, height, width, _] = shape.as_slice() else {
            return Err(format!("expected four axes of images in {}; it is damaged", path.display()).into());
        };
        let environment = load_runtime()?;
        Ok(Step {
            fixed_batch: if batch.is_string() { None } else { Some(get_count(batch)?) },
            height: get_count(height)?,
            width: get_count(width)?,
            names: read_names(&description)?,
            init: open_graph(&environment, &folder.join("init.onnx"), threads)?,
            session: open_graph(&environment, &folder.join("step.onnx"), threads)?,
            description,
        })
    }

    /// Return the first state.
    pub fn create_state(&mut self) -> Result<State> {
        let inputs: Vec<(String, SessionInputValue)> = Vec::new();
        let mut outputs = self.init.run(inputs)?;
        let take = |name: &StateName| outputs.remove(&name.input).ok_or_else(|| missing(&name.input));
        self.names.state.iter().map(take).collect()
    }

    /// Predict images, uint8 `[N, H, W, 3]`, and learn from them; return the next state as well.
    pub fn run(&mut self, pixels: Vec<u8>, state: &State) -> Result<(Prediction, State)> {
        let count = pixels.len() / self.image_length();
        let images = Tensor::from_array(([count, self.height, self.width, 3], pixels))?;
        let mut inputs: Vec<(&str, SessionInputValue)> = vec![(&self.names.images, images.into())];
        for (name, value) in self.names.state.iter().zip(state) {
            inputs.push((&name.input, value.into()));
        }
        let mut outputs = self.session.run(inputs)?;
        let mut take = |name: &String| outputs.remove(name).ok_or_else(|| missing(name));
        let logits = take(&self.names.logits)?.try_extract_tensor::<f32>()?.1.to_vec();
        let prediction = Prediction {
            classes: logits.len() / count,
            logits,
            entropy: take(&self.names.entropy)?.try_extract_tensor::<f32>()?.1[0],
            valid: take(&self.names.valid)?.try_extract_tensor::<bool>()?.1[0],
        };
        let next_state = self.names.state.iter().map(|name| take(&name.output)).collect::<Result<State>>()?;
        Ok((prediction, next_state))
    }

    /// Return the number of values of an image.
    pub fn image_length(&self) -> usize {
        self.height * self.width * 3
    }

    /// Return the images of a step: the number that is compiled in, or the one that is asked for, or 8.
    pub fn choose_batch(&self, wanted: Option<usize>) -> Result<usize> {
        match (self.fixed_batch, wanted) {
            (Some(fixed), Some(wanted)) if fixed != wanted => {
                Err(format!("expected batches of {fixed}, for which the step is compiled, found {wanted}").into())
            }
            (fixed, wanted) => Ok(fixed.or(wanted).unwrap_or(8)),
        }
    }

    /// Return a batch that is filled up with copies of its images, where the step has a fixed one.
    pub fn fill_batch(&self, pixels: Vec<u8>) -> Vec<u8> {
        let Some(fixed) = self.fixed_batch else { return pixels };
        pixels.iter().copied().cycle().take(fixed * self.image_length()).collect()
    }

    /// Save a state as the little-endian bytes of all its values; if interrupted, the old file stays.
    pub fn save_state(&self, state: &State, path: &Path) -> Result<()> {
        let parts = state.iter().map(to_bytes).collect::<Result<Vec<_>>>()?;
        let mut part = path.to_path_buf();
        part.as_mut_os_string().push(".new");
        let written = fs::write(&part, parts.concat()).and_then(|()| fs::rename(&part, path));
        written.map_err(|error| format!("cannot write the state {}: {error}", path.display()).into())
    }

    /// Return a state that `save_state` has written.
    pub fn load_state(&self, path: &Path) -> Result<State> {
        let saved = read_file(path, "a state")?;
        let mut rest = saved.as_slice();
        let mut state = State::new();
        for name in &self.names.state {
            let length = name.shape.iter().product::<usize>() * get_value_size(&name.kind)?;
            let Some((bytes, after)) = rest.split_at_checked(length) else { return Err(foreign_state(path)) };
            state.push(from_bytes(bytes, &name.kind, &name.shape)?);
            rest = after;
        }
        if rest.is_empty() { Ok(state) } else { Err(foreign_state(path)) }
    }
}

impl Prediction {
    /// Return the class with the largest logit of every image.
    pub fn find_classes(&self) -> Vec<usize> {
        let largest = |row: &[f32]| (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        self.logits.chunks(self.classes).map(largest).collect()
    }
}

/// Return the little-endian bytes of a tensor.
pub fn to_bytes(value: &DynValue) -> Result<Vec<u8>> {
    macro_rules! collect {
        ($type:ty) => {
            value.try_extract_tensor::<$type>()?.1.iter().flat_map(|number| number.to_le_bytes()).collect()
        };
    }
    let ValueType::Tensor { ty, .. } = value.dtype() else { return Err("expected a tensor".into()) };
    Ok(match ty {
        TensorElementType::Int32 => collect!(i32),
        TensorElementType::Int64 => collect!(i64),
        TensorElementType::Float32 => collect!(f32),
        TensorElementType::Float64 => collect!(f64),
        other => return Err(format!("expected a type that this program knows, found {other:?}").into()),
    })
}

/// Return the bytes of a value of a type as step.json names it.
pub fn get_value_size(kind: &str) -> Result<usize> {
    match kind {
        "uint8" => Ok(1),
        "int32" | "float32" => Ok(4),
        "int64" | "float64" => Ok(8),
        other => Err(format!("expected a type that this program knows, found {other}").into()),
    }
}

fn from_bytes(bytes: &[u8], kind: &str, shape: &[usize]) -> Result<DynValue> {
    macro_rules! build {
        ($type:ty) => {{
            let numbers = bytes.chunks_exact(size_of::<$type>());
            let numbers: Vec<_> = numbers.map(|number| <$type>::from_le_bytes(number.try_into().unwrap())).collect();
            Tensor::from_array((shape.to_vec(), numbers))?.into_dyn()
        }};
    }
    Ok(match kind {
        "int32" => build!(i32),
        "int64" => build!(i64),
        "float32" => build!(f32),
        "float64" => build!(f64),
        other => return Err(format!("expected a type that this program knows, found {other}").into()),
    })
}

fn read_names(description: &Json) -> Result<Names> {
    let read = |entry: &Json| {
        let shape = get_list(entry, "shape")?.iter().map(get_count).collect::<Result<Vec<_>>>()?;
        count_values(&shape)?;
        Ok(StateName {
            input: get_text(entry, "input")?,
            output: get_text(entry, "output")?,
            kind: get_text(entry, "type")?,
            shape,
        })
    };
    Ok(Names {
        images: get_text(&description["images"], "input")?,
        logits: get_text(description, "logits")?,
        valid: get_text(description, "valid")?,
        entropy: get_text(&description["diagnostics"], "entropy")?,
        state: get_list(description, "state")?.iter().map(read).collect::<Result<_>>()?,
    })
}

/// Load the library that ORT_DYLIB_PATH names.
fn load_runtime() -> Result<Environment> {
    let path = std::env::var("ORT_DYLIB_PATH").unwrap_or_default();
    if path.is_empty() {
        return Err("expected the library of ONNX Runtime in ORT_DYLIB_PATH, found nothing; see README.md".into());
    }
    let builder = ort::init_from(&path).map_err(|error| format!("cannot load ONNX Runtime from {path}: {error}"))?;
    Ok(builder.with_telemetry(false).build()?)
}

fn open_graph(environment: &Environment, path: &Path, threads: Option<usize>) -> Result<Session> {
    let mut builder = Session::builder(environment)?.with_log_level(ort::logging::LogLevel::Error)?;
    if let Some(count) = threads {
        builder = builder.with_intra_threads(count)?;
    }
    builder.commit_from_file(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn missing(name: &str) -> crate::files::Error {
    format!("expected an output {name} of the graph, found none; the folder is damaged").into()
}

fn foreign_state(path: &Path) -> crate::files::Error {
    format!("expected a state of this step, found one of another step: {}; start without it", path.display()).into()
}
