package fozo.step;

import ai.onnxruntime.OnnxTensor;
import com.google.gson.reflect.TypeToken;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** Compare the steps of this machine with those that were stored at compilation. */
final class Verify {
  static final String USAGE = "verify STEP [--tolerance SHARE]";
  private static final String TOLERANCE = "1e-4"; // whole numbers must be equal

  private final Step step;
  private final Map<String, Array> vectors;
  private final Map<String, Double> differences = new LinkedHashMap<>();

  /** An entry of vectors.json, and its values as numbers that are compared. */
  private static final class Array {
    String file;
    String type;
    int[] shape;
    byte[] bytes;
    double largest;

    void read(Path folder) throws InputError {
      bytes = Files.read(folder.resolve(file), "vectors");
      if (!isWhole()) {
        largest = Arrays.stream(toNumbers(bytes, type)).map(Math::abs).reduce(0, Math::max);
      }
    }

    boolean isWhole() {
      return !type.startsWith("float");
    }

    byte[] row(int index) {
      int length = bytes.length / shape[0];
      return Arrays.copyOfRange(bytes, index * length, (index + 1) * length);
    }
  }

  private Verify(Step step, Map<String, Array> vectors) {
    this.step = step;
    this.vectors = vectors;
  }

  static void run(Arguments arguments) throws Exception {
    Path folder = arguments.path(0);
    double tolerance = parseTolerance(arguments.options().getOrDefault("--tolerance", TOLERANCE));
    // The number of threads may decide on last bits; the vectors have one.
    try (Step step = new Step(folder, 1)) {
      for (String name : step.description.files().keySet()) {
        Files.check(folder, step.description, name);
      }
      Map<String, Array> vectors =
          Files.readJson(
              folder.resolve("vectors.json"),
              "the index of the vectors",
              new TypeToken<Map<String, Array>>() {}.getType());
      for (Array array : vectors.values()) {
        array.read(folder);
      }
      Verify verify = new Verify(step, vectors);
      verify.replay();
      verify.report(tolerance);
    }
  }

  private static double parseTolerance(String text) throws InputError {
    try {
      double tolerance = Double.parseDouble(text);
      if (tolerance >= 0) {
        return tolerance;
      }
    } catch (NumberFormatException error) {
      // the message below says it
    }
    throw new InputError("--tolerance: expected a number, found " + text);
  }

  private int countSteps() {
    return vectors.get("images").shape[0];
  }

  private void replay() throws Exception {
    State state = step.firstState();
    compare(state, 0);
    for (int index = 0; index < countSteps(); index++) {
      Step.Prediction prediction = step.run(vectors.get("images").row(index), state);
      state.close();
      state = prediction.next();
      if (!prediction.valid()) {
        throw new InputError("step %d is not valid".formatted(index));
      }
      ByteBuffer logits = ByteBuffer.allocate(4 * prediction.logits().length).order(ByteOrder.LITTLE_ENDIAN);
      logits.asFloatBuffer().put(prediction.logits());
      compare(step.description.logits(), logits.array(), index);
      compare(state, index + 1);
    }
    state.close();
  }

  private void compare(State state, int row) {
    for (Map.Entry<String, OnnxTensor> entry : state.tensors().entrySet()) {
      compare(entry.getKey(), StateFile.copyBytes(entry.getValue()), row);
    }
  }

  private void compare(String name, byte[] values, int row) {
    Array array = vectors.get(name);
    byte[] expected = array.row(row);
    double difference = Double.POSITIVE_INFINITY;
    if (array.isWhole()) {
      difference = Arrays.equals(values, expected) ? 0 : difference;
    } else if (values.length == expected.length) {
      difference = measureDifference(toNumbers(values, array.type), toNumbers(expected, array.type));
      difference /= array.largest == 0 ? 1 : array.largest;
    }
    differences.merge(name, difference, Math::max); // NaN stays
  }

  private static double measureDifference(double[] values, double[] expected) {
    double largest = 0;
    for (int index = 0; index < values.length; index++) {
      largest = Math.max(largest, Math.abs(values[index] - expected[index]));
    }
    return largest;
  }

  private static double[] toNumbers(byte[] bytes, String type) {
    ByteBuffer buffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
    boolean single = type.equals("float32");
    double[] numbers = new double[bytes.length / (single ? 4 : 8)];
    for (int index = 0; index < numbers.length; index++) {
      numbers[index] = single ? buffer.getFloat() : buffer.getDouble();
    }
    return numbers;
  }

  private void report(double tolerance) throws InputError {
    differences.forEach((name, value) -> System.out.printf(Locale.ROOT, "%s\t%.1e%n", name, value));
    List<String> failures =
        differences.keySet().stream().filter(name -> !(differences.get(name) <= tolerance)).toList();
    if (!failures.isEmpty()) {
      throw new InputError(
          String.format(
              Locale.ROOT,
              "expected differences of at most %.1e within %d steps, found %.1e in %s (%d of %d names)",
              tolerance,
              countSteps(),
              differences.get(failures.get(0)),
              failures.get(0),
              failures.size(),
              differences.size()));
    }
    System.out.printf(
        Locale.ROOT,
        "%d steps are those of the compilation: the largest difference is %.1e%n",
        countSteps(),
        differences.values().stream().reduce(0.0, Math::max));
  }
}
