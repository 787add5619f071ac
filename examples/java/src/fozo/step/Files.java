package fozo.step;

import com.google.gson.Gson;
import com.google.gson.JsonParseException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

/** Files that may be missing or damaged. */
final class Files {
  private Files() {}

  /**
   * Return the bytes of a file.
   *
   * @throws InputError it cannot be read
   */
  static byte[] read(Path path, String content) throws InputError {
    try {
      return java.nio.file.Files.readAllBytes(path);
    } catch (IOException error) {
      throw new InputError("expected %s, found no readable file: %s".formatted(content, path));
    }
  }

  /**
   * Return the bytes of a file that must have so many.
   *
   * @throws InputError it cannot be read, or has another length
   */
  static byte[] read(Path path, String content, long length) throws InputError {
    byte[] bytes = read(path, content);
    if (bytes.length != length) {
      throw new InputError(
          "%s: expected %s of %d bytes, found %d".formatted(path, content, length, bytes.length));
    }
    return bytes;
  }

  /**
   * Return the values of a JSON file.
   *
   * @throws InputError it cannot be read, or has other content
   */
  static <T> T readJson(Path path, String content, java.lang.reflect.Type type) throws InputError {
    String text = new String(read(path, content), StandardCharsets.UTF_8);
    try {
      T value = new Gson().fromJson(text, type);
      if (value != null) {
        return value;
      }
    } catch (JsonParseException error) {
      // the message below says it
    }
    throw new InputError("expected %s, found no such JSON in %s".formatted(content, path));
  }

  /**
   * Compare a file of a step with its hash in step.json.
   *
   * @throws InputError it is another file
   */
  static void check(Path folder, Description description, String name) throws InputError {
    byte[] bytes = read(folder.resolve(name), "a file of a step");
    try {
      byte[] digest = MessageDigest.getInstance("SHA-256").digest(bytes);
      if (HexFormat.of().formatHex(digest).equals(description.files().get(name))) {
        return;
      }
    } catch (NoSuchAlgorithmException error) {
      throw new IllegalStateException(error); // every Java has it
    }
    throw new InputError(
        folder.resolve(name) + ": its hash is not that in step.json, so it is damaged; copy it again");
  }

  /** Return little-endian bytes in a buffer that ONNX Runtime reads without a copy. */
  static ByteBuffer wrap(byte[] bytes) {
    ByteBuffer buffer = ByteBuffer.allocateDirect(bytes.length).order(ByteOrder.LITTLE_ENDIAN);
    return buffer.put(bytes).rewind();
  }
}
