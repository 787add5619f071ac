package fozo.step;

import java.awt.image.BufferedImage;
import java.awt.image.ComponentColorModel;
import java.awt.image.DataBuffer;
import java.awt.image.Raster;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.stream.Stream;
import javax.imageio.ImageIO;
import javax.imageio.ImageReader;
import javax.imageio.stream.ImageInputStream;

/** From the files of a folder to the pixels that a step reads. */
final class Photos {
  private static final long MOST_PIXELS = 64_000_000;

  private Photos() {}

  /**
   * Return a folder's files, sorted; hidden files are left out.
   *
   * @throws InputError there are none
   */
  static List<Path> list(Path folder) throws InputError {
    try (Stream<Path> content = java.nio.file.Files.list(folder)) {
      List<Path> paths =
          content.filter(path -> !path.getFileName().toString().startsWith(".")).sorted().toList();
      if (paths.isEmpty()) {
        throw new InputError("expected photos, found none in " + folder);
      }
      return paths;
    } catch (IOException error) {
      throw new InputError("expected a folder of photos, found " + folder);
    }
  }

  /**
   * Return photos as a step reads them, one behind the other, {@code [N, H, W, 3]}.
   *
   * @throws InputError a file is no image
   */
  static byte[] read(List<Path> paths, Recipe recipe) throws InputError {
    int length = recipe.size()[0] * recipe.size()[1] * 3;
    byte[] pixels = new byte[paths.size() * length];
    for (int index = 0; index < paths.size(); index++) {
      Image image = recipe.prepare(decode(paths.get(index)));
      System.arraycopy(image.pixels(), 0, pixels, index * length, length);
    }
    return pixels;
  }

  /**
   * Return the pixels of a file. As in fozo, transparency, colour profile and orientation are ignored.
   *
   * @throws InputError the file is no image, or a damaged one
   */
  private static Image decode(Path path) throws InputError {
    String reason = "an unknown format";
    try (ImageInputStream stream = ImageIO.createImageInputStream(path.toFile())) {
      Iterator<ImageReader> readers = ImageIO.getImageReaders(stream); // by content, not by name
      if (readers.hasNext()) {
        return toRgb(decode(readers.next(), stream));
      }
    } catch (IOException | RuntimeException error) { // readers throw both at damaged files
      reason = error.getMessage();
    }
    throw new InputError("expected an image, found %s: %s".formatted(path, reason));
  }

  private static BufferedImage decode(ImageReader reader, ImageInputStream stream) throws IOException {
    reader.setInput(stream, true, true);
    if ((long) reader.getWidth(0) * reader.getHeight(0) > MOST_PIXELS) {
      throw new IOException("more than " + MOST_PIXELS + " pixels");
    }
    List<String> warnings = new ArrayList<>();
    reader.addIIOReadWarningListener((source, warning) -> warnings.add(warning));
    try {
      BufferedImage image = reader.read(0);
      if (!warnings.isEmpty()) {
        throw new IOException(warnings.get(0)); // a JPEG that ends early, for instance
      }
      return image;
    } finally {
      reader.dispose();
    }
  }

  /** Return the stored values. {@code getRGB} would convert grey and profiles. */
  private static Image toRgb(BufferedImage image) {
    Image result = Image.black(image.getWidth(), image.getHeight());
    boolean stored = image.getColorModel() instanceof ComponentColorModel;
    Raster raster = image.getRaster();
    int shift = raster.getTransferType() == DataBuffer.TYPE_USHORT ? 8 : 0; // the upper 8 bits of 16
    int[] bands = raster.getNumBands() < 3 ? new int[] {0, 0, 0} : new int[] {0, 1, 2};
    for (int y = 0, at = 0; y < image.getHeight(); y++) {
      for (int x = 0; x < image.getWidth(); x++) {
        for (int channel = 0; channel < 3; channel++) {
          int value =
              stored
                  ? raster.getSample(x, y, bands[channel]) >> shift
                  : image.getRGB(x, y) >> (16 - 8 * channel);
          result.pixels()[at++] = (byte) value;
        }
      }
    }
    return result;
  }
}
