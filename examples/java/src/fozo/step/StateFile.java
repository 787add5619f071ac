package fozo.step;

import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/** A state in a file: the little-endian bytes of all its values, in the order of step.json. */
final class StateFile {
  private static final Map<String, OnnxJavaType> TYPES =
      Map.of(
          "bool", OnnxJavaType.BOOL,
          "int32", OnnxJavaType.INT32,
          "int64", OnnxJavaType.INT64,
          "float32", OnnxJavaType.FLOAT,
          "float64", OnnxJavaType.DOUBLE);

  private StateFile() {}

  /**
   * Return the state in a file.
   *
   * @throws InputError it cannot be read, or has another length than the states of this step
   */
  static State load(Description description, Path path) throws InputError, OrtException {
    long total = description.state().stream().mapToLong(StateFile::countBytes).sum();
    byte[] bytes = Files.read(path, "a state");
    if (bytes.length != total) {
      throw new InputError(
          "%s: expected %d bytes, found %d: a state of another step; start without it"
              .formatted(path, total, bytes.length));
    }
    Map<String, OnnxTensor> tensors = new LinkedHashMap<>();
    int start = 0;
    for (Description.Value value : description.state()) {
      int end = start + (int) countBytes(value);
      ByteBuffer data = Files.wrap(Arrays.copyOfRange(bytes, start, end));
      OnnxJavaType type = TYPES.get(value.type());
      tensors.put(
          value.input(), OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), data, value.shape(), type));
      start = end;
    }
    return new State(tensors, () -> tensors.values().forEach(OnnxTensor::close));
  }

  /**
   * Write a state. An interrupted program leaves the old one.
   *
   * @throws InputError it cannot be written
   */
  static void save(State state, Path path) throws InputError {
    ByteArrayOutputStream content = new ByteArrayOutputStream();
    for (OnnxTensor tensor : state.tensors().values()) {
      content.writeBytes(copyBytes(tensor));
    }
    Path part = Path.of(path + ".new");
    try {
      java.nio.file.Files.write(part, content.toByteArray());
      java.nio.file.Files.move(
          part, path, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
    } catch (IOException error) {
      throw new InputError("cannot write the state %s: %s".formatted(path, error));
    }
  }

  /** Return the bytes of a tensor. */
  static byte[] copyBytes(OnnxTensor tensor) {
    ByteBuffer buffer = tensor.getByteBuffer();
    byte[] bytes = new byte[buffer.remaining()];
    buffer.get(bytes);
    return bytes;
  }

  private static long countBytes(Description.Value value) {
    return TYPES.get(value.type()).size * Arrays.stream(value.shape()).reduce(1, (a, b) -> a * b);
  }
}
