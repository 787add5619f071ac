package fozo.step;

import java.util.function.DoubleUnaryOperator;

/** Resizing as Pillow does it: filters as wide as the reduction asks for, in whole numbers, axis by axis. */
final class Resize {
  private static final int BITS = 22; // of a weight behind the point

  /** Weights of the source's pixels from {@code first} on, for one pixel of the result. */
  private record Weights(int first, int[] factors) {}

  /** Half the width of a filter in pixels, and its value at a distance. */
  private record Filter(double support, DoubleUnaryOperator value) {}

  private Resize() {}

  /** Resize an image by one of Pillow's filters, in lower case; the result is Pillow 13's to the bit. */
  static Image resize(Image image, int width, int height, String filter) {
    int loss = image.height() - height;
    if (loss > 0 && loss > 2 * (image.width() - width)) { // the order matters to the last bits
      return resizeRows(resizeColumns(image, height, filter), width, filter);
    }
    return resizeColumns(resizeRows(image, width, filter), height, filter);
  }

  private static Image resizeRows(Image image, int width, String filter) {
    Image result = Image.black(width, image.height());
    Weights[] weights = weigh(image.width(), width, filter);
    for (int y = 0; y < image.height(); y++) {
      apply(weights, image.pixels(), y * image.width() * 3, result.pixels(), y * width * 3, 3);
    }
    return result;
  }

  private static Image resizeColumns(Image image, int height, String filter) {
    Image result = Image.black(image.width(), height);
    Weights[] weights = weigh(image.height(), height, filter);
    for (int x = 0; x < image.width(); x++) {
      apply(weights, image.pixels(), x * 3, result.pixels(), x * 3, image.width() * 3);
    }
    return result;
  }

  /** Filter one row or column: where it begins, and how far its pixels lie apart. */
  private static void apply(
      Weights[] weights, byte[] source, int sourceStart, byte[] target, int targetStart, int stride) {
    for (int index = 0; index < weights.length; index++) {
      int[] factors = weights[index].factors();
      for (int channel = 0; channel < 3; channel++) {
        int at = sourceStart + weights[index].first() * stride + channel;
        int sum = 1 << (BITS - 1); // rounds
        for (int k = 0; k < factors.length; k++, at += stride) {
          sum += (source[at] & 255) * factors[k];
        }
        target[targetStart + index * stride + channel] = (byte) Math.min(Math.max(sum >> BITS, 0), 255);
      }
    }
  }

  private static Weights[] weigh(int from, int to, String name) {
    if (name.equals("nearest")) {
      return weighNearest(from, to);
    }
    Filter filter = filter(name);
    double scale = (double) from / to;
    double stretch = Math.max(scale, 1);
    Weights[] result = new Weights[to];
    for (int index = 0; index < to; index++) {
      double center = (index + 0.5) * scale;
      int first = Math.max(0, (int) (center - filter.support() * stretch + 0.5));
      int last = Math.min(from, (int) (center + filter.support() * stretch + 0.5));
      double[] values = new double[last - first];
      double sum = 0;
      for (int k = 0; k < values.length; k++) {
        values[k] = filter.value().applyAsDouble((k + first - center + 0.5) / stretch);
        sum += values[k];
      }
      int[] factors = new int[values.length];
      for (int k = 0; k < values.length; k++) {
        double factor = values[k] / sum * (1 << BITS);
        factors[k] = (int) (factor < 0 ? factor - 0.5 : factor + 0.5);
      }
      result[index] = new Weights(first, factors);
    }
    return result;
  }

  private static Weights[] weighNearest(int from, int to) {
    Weights[] result = new Weights[to];
    double position = (double) from / to * 0.5; // sums, as Pillow's, decide on ties
    for (int index = 0; index < to; index++, position += (double) from / to) {
      result[index] = new Weights((int) position, new int[] {1 << BITS});
    }
    return result;
  }

  private static Filter filter(String name) {
    return switch (name) {
      case "box" -> new Filter(0.5, x -> x > -0.5 && x <= 0.5 ? 1 : 0);
      case "bilinear" -> new Filter(1, x -> Math.max(0, 1 - Math.abs(x)));
      case "hamming" ->
          new Filter(1, x -> Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0);
      case "bicubic" -> new Filter(2, x -> cubic(Math.abs(x)));
      case "lanczos" -> new Filter(3, x -> x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0);
      default -> throw new IllegalArgumentException("unknown interpolation: " + name);
    };
  }

  private static double sinc(double x) {
    return x == 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
  }

  private static double cubic(double x) {
    if (x < 1) {
      return (1.5 * x - 2.5) * x * x + 1;
    }
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
  }
}
