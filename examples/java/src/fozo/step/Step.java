package fozo.step;

import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;

/** A compiled step: all that adaptation needs is here. */
final class Step implements AutoCloseable {
  final Description description;
  private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
  private final OrtSession init;
  private final OrtSession session;

  /** What a step says about a batch: logits {@code [N, K]}, and the state to go on with. */
  record Prediction(float[] logits, int[] labels, float entropy, boolean valid, State next) {}

  /**
   * Open a step.
   *
   * @param folder what {@code fozo compile} has written
   * @param threads of a forward; 0: one per core
   * @throws InputError the folder has no step, or a damaged one
   */
  Step(Path folder, int threads) throws InputError, OrtException {
    description = Description.read(folder);
    OrtSession.SessionOptions options = new OrtSession.SessionOptions();
    options.setIntraOpNumThreads(threads);
    init = open(folder, "init.onnx", options);
    session = open(folder, "step.onnx", options);
  }

  private OrtSession open(Path folder, String name, OrtSession.SessionOptions options) throws InputError {
    Files.check(folder, description, name);
    try {
      return environment.createSession(folder.resolve(name).toString(), options);
    } catch (OrtException error) {
      throw new InputError(folder.resolve(name) + " cannot be opened by ONNX Runtime: " + error.getMessage());
    }
  }

  /** Return the state before the first batch. */
  State firstState() throws OrtException {
    OrtSession.Result result = init.run(Map.of());
    Map<String, OnnxTensor> tensors = new LinkedHashMap<>();
    for (Description.Value value : description.state()) {
      tensors.put(value.input(), (OnnxTensor) result.get(value.input()).orElseThrow());
    }
    return new State(tensors, result);
  }

  /**
   * Predict a batch and learn from it. {@code state} is left as it is, and the caller closes it.
   *
   * @param pixels {@code [N, H, W, 3]}, RGB
   */
  Prediction run(byte[] pixels, State state) throws OrtException {
    int[] size = description.imageShape();
    long[] shape = {pixels.length / description.countPixels(), size[0], size[1], 3};
    try (OnnxTensor images =
        OnnxTensor.createTensor(environment, Files.wrap(pixels), shape, OnnxJavaType.UINT8)) {
      Map<String, OnnxTensor> inputs = new HashMap<>(state.tensors());
      inputs.put(description.images().input(), images);
      return read(session.run(inputs));
    }
  }

  private Prediction read(OrtSession.Result outputs) throws OrtException {
    Map<String, OnnxTensor> next = new LinkedHashMap<>();
    for (Description.Value value : description.state()) {
      next.put(value.input(), (OnnxTensor) outputs.get(value.output()).orElseThrow());
    }
    OnnxTensor logits = (OnnxTensor) outputs.get(description.logits()).orElseThrow();
    FloatBuffer values = logits.getFloatBuffer();
    float[] array = new float[values.remaining()];
    values.get(array);
    int classes = (int) logits.getInfo().getShape()[1];
    float entropy = (float) outputs.get(description.diagnostics().get("entropy")).orElseThrow().getValue();
    boolean valid = (boolean) outputs.get(description.valid()).orElseThrow().getValue();
    return new Prediction(array, findLargest(array, classes), entropy, valid, new State(next, outputs));
  }

  private static int[] findLargest(float[] logits, int classes) {
    int[] labels = new int[logits.length / classes];
    for (int row = 0; row < labels.length; row++) {
      for (int label = 1; label < classes; label++) {
        if (logits[row * classes + label] > logits[row * classes + labels[row]]) {
          labels[row] = label;
        }
      }
    }
    return labels;
  }

  /**
   * Return the size of batches: that of the step if it has a fixed one, or else the one that is asked for.
   *
   * @param batch 0: none is asked for
   */
  int chooseBatch(int batch) throws InputError {
    int fixed = description.fixedBatch();
    if (fixed == 0) {
      return batch == 0 ? 8 : batch;
    }
    if (batch != 0 && batch != fixed) {
      throw new InputError(
          "expected batches of %d, for which the step is compiled, found %d".formatted(fixed, batch));
    }
    return fixed;
  }

  /** Return a batch that is filled up with copies of its images, where the step has a fixed batch. */
  byte[] fillBatch(byte[] pixels) {
    if (description.fixedBatch() == 0) {
      return pixels;
    }
    byte[] full = new byte[description.fixedBatch() * description.countPixels()];
    for (int start = 0; start < full.length; start += pixels.length) {
      System.arraycopy(pixels, 0, full, start, Math.min(pixels.length, full.length - start));
    }
    return full;
  }

  @Override
  public void close() throws OrtException {
    init.close();
    session.close();
  }
}
