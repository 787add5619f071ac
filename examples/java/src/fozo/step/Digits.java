package fozo.step;

import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;

/** Adapt to corrupted digits that `tools/digit_stream.py` has written, and print the accuracy. */
final class Digits {
  static final String USAGE = "digits STEP DIGITS [BATCH] [--threads N]";

  private record Array(String file, int[] shape) {
    byte[] read(Path folder) throws InputError {
      long length = Arrays.stream(shape).asLongStream().reduce(1, (a, b) -> a * b);
      return Files.read(folder.resolve(file), "digits", length);
    }
  }

  private record Index(Array images, Array labels) {}

  private Digits() {}

  static void run(Arguments arguments) throws Exception {
    try (Step step = new Step(arguments.path(0), arguments.threads())) {
      int batch = step.chooseBatch(arguments.batch());
      Index index = readIndex(arguments.path(1), step.description);
      byte[] images = index.images().read(arguments.path(1));
      byte[] labels = index.labels().read(arguments.path(1));
      int length = step.description.countPixels();
      State state = step.firstState();
      int correct = 0;
      double entropy = 0;
      for (int start = 0; start < labels.length; start += batch) {
        int end = Math.min(start + batch, labels.length);
        byte[] pixels = Arrays.copyOfRange(images, start * length, end * length);
        Step.Prediction prediction = step.run(step.fillBatch(pixels), state);
        state.close();
        state = prediction.next();
        if (!prediction.valid()) {
          throw new InputError("nothing was learnt from the batch at digit " + start);
        }
        for (int row = start; row < end; row++) {
          correct += prediction.labels()[row - start] == labels[row] ? 1 : 0;
        }
        entropy += (prediction.entropy() - entropy) * (end - start) / end;
      }
      state.close();
      System.out.printf(
          Locale.ROOT,
          "accuracy %.2f %% of %d digits, mean entropy %.4f%n",
          100.0 * correct / labels.length,
          labels.length,
          entropy);
    }
  }

  private static Index readIndex(Path folder, Description description) throws InputError {
    Index index =
        Files.readJson(folder.resolve("digits.json"), "a folder of digit_stream.py", Index.class);
    int[] shape = index.images().shape();
    String found = join(Arrays.copyOfRange(shape, 1, shape.length));
    String expected = join(description.imageShape());
    if (!found.equals(expected)) {
      throw new InputError(
          "%s: expected images of %s, found %s; nothing is resized here".formatted(folder, expected, found));
    }
    return index;
  }

  private static String join(int[] shape) {
    return String.join("x", Arrays.stream(shape).mapToObj(Integer::toString).toList());
  }
}
