package fozo.step;

import ai.onnxruntime.OnnxTensor;
import java.util.Map;

/**
 * The state between two steps. Programs look into none of its values.
 *
 * @param tensors by the name of the input
 * @param owner holds the memory of the tensors; closing it frees them
 */
record State(Map<String, OnnxTensor> tensors, AutoCloseable owner) implements AutoCloseable {
  @Override
  public void close() {
    try {
      owner.close();
    } catch (Exception error) {
      throw new IllegalStateException(error);
    }
  }
}
